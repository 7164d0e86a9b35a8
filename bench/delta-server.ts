/**
 * A plain static file server that counts: bytes of its sockets in both directions, headers included,
 * and requests. Ranges, several in one request too (zsync asks so), and nothing else.
 */
import { createReadStream } from 'node:fs'
import { stat } from 'node:fs/promises'
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http'
import type { AddressInfo, Socket } from 'node:net'
import { join, normalize } from 'node:path'
import { pipeline } from 'node:stream/promises'

export interface Traffic {
  /** Bytes from the server, and to it. */
  readonly down: number
  readonly up: number
  readonly requests: number
}

export interface CountingServer extends AsyncDisposable {
  readonly url: string
  /** Since the last call. */
  traffic(): Traffic
}

export async function serveFolder(folder: string): Promise<CountingServer> {
  const sockets = new Set<Socket>()
  let closed = { down: 0, up: 0 }
  let requests = 0
  let taken = { down: 0, up: 0, requests: 0 }

  const answer = async (request: IncomingMessage, response: ServerResponse) => {
    try {
      const path = join(
        folder,
        normalize(decodeURIComponent(new URL(request.url ?? '/', 'http://x').pathname)),
      )
      const { size } = await stat(path)
      const ranges = rangesOf(request.headers.range, size)
      const headers = { 'accept-ranges': 'bytes' }
      if (ranges.length > 1) await sendSeveral(response, path, ranges, size)
      else {
        const [{ first, last }] = ranges.length === 1 ? [ranges[0]!] : [{ first: 0, last: size - 1 }]
        const range = ranges.length === 1 && { 'content-range': `bytes ${first}-${last}/${size}` }
        response.writeHead(range ? 206 : 200, { ...headers, 'content-length': last - first + 1, ...range })
        if (request.method === 'HEAD' || last < first) response.end()
        else await pipeline(createReadStream(path, { start: first, end: last }), response)
      }
    } catch {
      if (!response.headersSent) response.writeHead(404)
      response.end()
    }
  }
  const server = createServer((request, response) => {
    requests += 1
    void answer(request, response)
  })
  server.on('connection', socket => {
    sockets.add(socket)
    socket.on('close', () => {
      sockets.delete(socket)
      closed = { down: closed.down + socket.bytesWritten, up: closed.up + socket.bytesRead }
    })
  })
  server.listen(0, '127.0.0.1')
  await new Promise(resolve => server.once('listening', resolve))

  return {
    url: `http://127.0.0.1:${(server.address() as AddressInfo).port}/`,
    traffic() {
      const open = [...sockets]
      const down = closed.down + open.reduce((sum, socket) => sum + socket.bytesWritten, 0)
      const up = closed.up + open.reduce((sum, socket) => sum + socket.bytesRead, 0)
      const since = { down: down - taken.down, up: up - taken.up, requests: requests - taken.requests }
      taken = { down, up, requests }
      return since
    },
    async [Symbol.asyncDispose]() {
      for (const socket of sockets) socket.destroy()
      await new Promise(resolve => server.close(resolve))
    },
  }
}

interface Range {
  readonly first: number
  readonly last: number
}

function rangesOf(header: string | undefined, size: number): Range[] {
  const list = /^bytes=(.+)$/.exec(header ?? '')?.[1]?.split(',') ?? []
  return list.map(range => {
    const [first, last] = range.trim().split('-')
    return { first: Number(first), last: last ? Math.min(Number(last), size - 1) : size - 1 }
  })
}

/** multipart/byteranges, RFC 9110 §14.6. */
async function sendSeveral(
  response: ServerResponse,
  path: string,
  ranges: readonly Range[],
  size: number,
): Promise<void> {
  const heads = ranges.map(
    ({ first, last }) =>
      `\r\n--towerlight\r\nContent-Type: application/octet-stream\r\nContent-Range: bytes ${first}-${last}/${size}\r\n\r\n`,
  )
  const end = '\r\n--towerlight--\r\n'
  const length =
    heads.join('').length + end.length + ranges.reduce((sum, { first, last }) => sum + last - first + 1, 0)
  response.writeHead(206, {
    'content-type': 'multipart/byteranges; boundary=towerlight',
    'content-length': length,
  })
  for (const [at, { first, last }] of ranges.entries()) {
    response.write(heads[at])
    for await (const piece of createReadStream(path, { start: first, end: last })) response.write(piece)
  }
  response.end(end)
}
