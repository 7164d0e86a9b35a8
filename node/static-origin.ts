/**
 * The dullest origin there is: files of one folder over HTTP on loopback, with single ranges. It
 * stands in for the CDN or bucket of a real publisher, in `tower up` and in tests.
 *
 * It knows nothing of repositories and verifies nothing: whoever fills from it does. GET and HEAD
 * only; no listings; names that leave the folder are 404. A folder that grows while it serves is
 * fine, since publishing renames whole files into place.
 */
import { once } from 'node:events'
import { type FileHandle, open } from 'node:fs/promises'
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http'
import type { AddressInfo } from 'node:net'
import { join } from 'node:path'
import { pipeline } from 'node:stream/promises'
import type { ByteRange } from '../manifests/extent.ts'

export interface StaticOrigin extends AsyncDisposable {
  /** `http://127.0.0.1:<port>/`, with the slash; an IPv6 host is not taken. */
  readonly url: string
  /** What was answered so far: bodies, not headers. */
  readonly served: Readonly<{ requests: number; bodyBytes: number }>
}

export interface StaticOriginOptions {
  readonly port?: number
  /** Loopback when absent. */
  readonly host?: string
  /** `false`: answers 200 with everything to a Range request, as some servers do. */
  readonly ranges?: boolean
}

export async function openStaticOrigin(
  folder: string,
  options: StaticOriginOptions = {},
): Promise<StaticOrigin> {
  const { port = 0, host = '127.0.0.1', ranges = true } = options
  const served = { requests: 0, bodyBytes: 0 }
  const server = createServer((request, response) => {
    served.requests += 1
    answer(folder, ranges, request, response).then(
      bytes => (served.bodyBytes += bytes),
      () => response.destroy(), // the client left, or the disk failed in mid-body: never a short body that looks whole
    )
  })
  server.listen(port, host)
  await once(server, 'listening')
  return {
    url: `http://${host}:${(server.address() as AddressInfo).port}/`,
    served,
    async [Symbol.asyncDispose]() {
      const closed = once(server, 'close')
      server.close()
      server.closeAllConnections()
      await closed
    },
  }
}

/** @returns bytes of the body that were sent. */
async function answer(
  folder: string,
  ranges: boolean,
  request: IncomingMessage,
  response: ServerResponse,
): Promise<number> {
  const refuse = (status: number, headers = {}) => void response.writeHead(status, headers).end()
  if (request.method !== 'GET' && request.method !== 'HEAD') {
    refuse(405, { allow: 'GET, HEAD' })
    return 0
  }
  await using file = await openInside(folder, request.url ?? '/')
  if (!file) {
    refuse(404)
    return 0
  }

  const { size, mtime, mtimeMs } = await file.stat()
  const range = ranges ? rangeOf(request.headers.range, size) : undefined
  if (range === 'outside') {
    refuse(416, { 'content-range': `bytes */${size}` })
    return 0
  }
  const { first, last } = range ?? { first: 0, last: size - 1 }
  response.writeHead(range ? 206 : 200, {
    'content-type': 'application/octet-stream',
    'content-length': last + 1 - first,
    'last-modified': mtime.toUTCString(),
    etag: `"${size.toString(16)}-${Math.trunc(mtimeMs).toString(16)}"`,
    ...(ranges && { 'accept-ranges': 'bytes' }),
    ...(range && { 'content-range': `bytes ${first}-${last}/${size}` }),
  })
  if (request.method === 'HEAD' || last < first) {
    response.end()
    return 0
  }
  await pipeline(file.createReadStream({ start: first, end: last, autoClose: false }), response)
  return last + 1 - first
}

/** The file, or undefined for whatever is not one inside `folder`. */
async function openInside(folder: string, target: string): Promise<FileHandle | undefined> {
  let path: string
  try {
    path = decodeURIComponent(target.split('?', 1)[0]!)
  } catch {
    return undefined
  }
  if (path.includes('\0') || path.split('/').includes('..')) return undefined

  const file = await open(join(folder, path)).catch(() => undefined)
  if (file && !(await file.stat()).isFile()) {
    await file.close()
    return undefined
  }
  return file
}

/** RFC 9110 §14: one range of bytes; several, or malformed ones, are ignored as the RFC allows. */
function rangeOf(header: string | undefined, sizeBytes: number): ByteRange | 'outside' | undefined {
  const [, from = '', to = ''] = /^bytes=(\d*)-(\d*)$/.exec(header ?? '') ?? []
  if (from === '' && to === '') return undefined
  const first = from === '' ? Math.max(sizeBytes - Number(to), 0) : Number(from)
  const last = from === '' || to === '' ? sizeBytes - 1 : Math.min(Number(to), sizeBytes - 1)
  if (from !== '' && to !== '' && Number(to) < first) return undefined
  return first > last ? 'outside' : { first, last }
}
