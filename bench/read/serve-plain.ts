/**
 * What people write: `node:http` with a file stream piped into the response. Nothing is verified.
 */
import { createReadStream, statSync } from 'node:fs'
import { createServer } from 'node:http'
import type { AddressInfo } from 'node:net'
import { basename, join } from 'node:path'

const folder = process.argv[2] as string
const server = createServer((req, res) => {
  const path = join(folder, basename(req.url ?? ''))
  const { size, isFile } = fileAt(path)
  if (!isFile) return void res.writeHead(404).end()
  const [, from, to] = /^bytes=(\d+)-(\d+)$/.exec(req.headers.range ?? '') ?? []
  if (from === undefined) {
    res.writeHead(200, { 'Content-Length': size })
    createReadStream(path).pipe(res)
    return
  }
  const [start, end] = [Number(from), Math.min(Number(to), size - 1)]
  res.writeHead(206, { 'Content-Length': end - start + 1, 'Content-Range': `bytes ${start}-${end}/${size}` })
  createReadStream(path, { start, end }).pipe(res)
})
server.listen(0, '127.0.0.1', () => console.log(`PORT ${(server.address() as AddressInfo).port}`))

function fileAt(path: string): { size: number; isFile: boolean } {
  const stat = statSync(path, { throwIfNoEntry: false })
  return { size: stat?.size ?? 0, isFile: stat?.isFile() ?? false }
}
