/**
 * For tests only: real servers on 127.0.0.1 and port 0, honest and evil ones.
 */
import { mkdtemp, readFile, rm } from 'node:fs/promises'
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http'
import { createServer as createTcpServer, type AddressInfo, type Server, type Socket } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { bytesOf, joined } from './spans.ts'
import type { Span } from './upstream.ts'

export interface TestServer extends AsyncDisposable {
  readonly url: URL
  /** `GET path range` of each request so far. */
  readonly requests: string[]
  /** TCP payload as the server's own sockets counted it. */
  readonly wire: { down: number; up: number }
}

export type Handler = (request: IncomingMessage, response: ServerResponse) => void | Promise<void>

/** Bytes by path, with ranges as a static server answers them. */
export function staticFiles(read: (path: string) => Promise<Buffer | undefined>, ranges = true): Handler {
  return async (request, response) => {
    const bytes = await read(decodeURIComponent(new URL(request.url ?? '/', 'http://x').pathname.slice(1)))
    if (!bytes) return void response.writeHead(404, { 'content-type': 'text/plain' }).end('no such file')
    const range = ranges ? /^bytes=(\d+)-(\d+)$/.exec(request.headers.range ?? '') : null
    if (!range) return void response.writeHead(200, { 'content-length': bytes.length }).end(bytes)
    const [first, last] = [Number(range[1]), Math.min(Number(range[2]), bytes.length - 1)]
    if (first > last)
      return void response.writeHead(416, { 'content-range': `bytes */${bytes.length}` }).end()
    response.writeHead(206, {
      'content-range': `bytes ${first}-${last}/${bytes.length}`,
      'content-length': last - first + 1,
    })
    response.end(bytes.subarray(first, last + 1))
  }
}

export function folderFiles(folder: string): (path: string) => Promise<Buffer | undefined> {
  return path => readFile(join(folder, path)).catch(() => undefined)
}

export async function serve(handler: Handler): Promise<TestServer> {
  const requests: string[] = []
  const sockets = new Set<Socket>()
  const wire = { down: 0, up: 0 }
  const server = createServer((request, response) => {
    requests.push(`${request.method} ${request.url} ${request.headers.range ?? ''}`.trim())
    void handler(request, response)
  })
  server.keepAliveTimeout = 60_000
  server.on('connection', socket => {
    sockets.add(socket)
    socket.on('error', () => undefined)
    socket.once('close', () => {
      sockets.delete(socket)
      wire.down += socket.bytesWritten
      wire.up += socket.bytesRead
    })
  })
  const url = await listen(server)
  return { url, requests, wire, [Symbol.asyncDispose]: () => stop(server, sockets) }
}

/** Bytes of files that were asked for more than once. */
export function repeatedBytes(requests: readonly string[]): number {
  const spans = new Map<string, Span[]>()
  for (const request of requests) {
    const [, path = '', first, last] = /^GET (\S+) bytes=(\d+)-(\d+)$/.exec(request) ?? []
    if (last === undefined) continue
    const known = spans.get(path) ?? []
    spans.set(path, known)
    known.push({ offset: Number(first), length: Number(last) + 1 - Number(first) })
  }
  return spans.values().reduce((sum, asked) => sum + bytesOf(asked) - bytesOf(joined(asked)), 0)
}

/** A server that does not speak HTTP as it should: `answer` gets the raw socket per request. */
export async function serveRaw(answer: (socket: Socket, head: string) => void): Promise<TestServer> {
  const requests: string[] = []
  const sockets = new Set<Socket>()
  const wire = { down: 0, up: 0 }
  const server = createTcpServer(socket => {
    sockets.add(socket)
    socket.on('error', () => undefined)
    socket.once('close', () => {
      sockets.delete(socket)
      wire.down += socket.bytesWritten
      wire.up += socket.bytesRead
    })
    let head = ''
    socket.on('data', data => {
      head += data.toString('latin1')
      if (!head.includes('\r\n\r\n')) return
      requests.push(head.slice(0, head.indexOf('\r\n')))
      answer(socket, head)
      head = ''
    })
  })
  const url = await listen(server)
  return { url, requests, wire, [Symbol.asyncDispose]: () => stop(server, sockets) }
}

export async function temporaryFolder(): Promise<AsyncDisposable & { readonly path: string }> {
  const path = await mkdtemp(join(tmpdir(), 'towerlight-'))
  return { path, [Symbol.asyncDispose]: () => rm(path, { recursive: true, force: true, maxRetries: 5 }) }
}

async function listen(server: Server): Promise<URL> {
  await new Promise<void>(done => server.listen(0, '127.0.0.1', done))
  return new URL(`http://127.0.0.1:${(server.address() as AddressInfo).port}/`)
}

async function stop(server: Server, sockets: Set<Socket>): Promise<void> {
  for (const socket of sockets) socket.destroy()
  await new Promise(done => server.close(done))
}
