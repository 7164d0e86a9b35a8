/** What a reader sees of an absent item: it streams while it comes over a slow link, proven chunk by chunk. */
import { once } from 'node:events'
import { request, type IncomingMessage } from 'node:http'
import { describe, expect, it } from 'vitest'
import { startNode } from '../node/http/test-client.ts'
import { bytesOf } from '../node/store/testing.ts'
import { openOnDemand } from './on-demand.ts'
import { openSlowProxy } from './test-proxy.ts'
import { openNode, openOrigin } from './test-world.ts'

const MIB = 1024 * 1024
const film = bytesOf('film', 11 * MIB)

/** A node that knows the catalog of films and has none of them, on a link of `bytesPerSecond`. */
async function world(bytesPerSecond: number) {
  const stack = new AsyncDisposableStack()
  const origin = stack.use(await openOrigin())
  const server = stack.use(await origin.serve())
  const proxy = stack.use(await openSlowProxy(server.url, { delayMs: 10, bytesPerSecond }))
  const node = stack.use(await openNode(origin.root))
  await origin.publish('media/films', { 'film.mp4': film, 'note.txt': 'a note' }, { priority: 3 })
  await node.fill([node.upstream(server.url)], { limits: { priorityMax: 2 } })
  const upstream = node.upstream(proxy.url, { connectionsMax: 4 })
  const window = new AbortController()
  const allowed = { fetch: true }
  const open = () =>
    allowed.fetch ? { upstreams: [upstream], signal: window.signal, [Symbol.dispose]() {} } : undefined
  node.onDemand = openOnDemand({ ...node.request([upstream]), signal: window.signal, open })
  const http = stack.use(await startNode({ library: node.releases }))
  return { http, upstream, proxy, node, window, allowed, [Symbol.asyncDispose]: () => stack.disposeAsync() }
}

interface Streamed {
  readonly status: number
  readonly body: Buffer
  readonly firstMs: number
  readonly lastMs: number
}

async function stream(
  port: number,
  path: string,
  headers: Record<string, string> = {},
  onFirst: () => void = () => {},
): Promise<Streamed> {
  const since = performance.now()
  const asked = request({ host: '127.0.0.1', port, path, headers, agent: false }).end()
  const [answer] = (await once(asked, 'response')) as [IncomingMessage]
  const parts: Buffer[] = []
  let firstMs = 0
  for await (const part of answer as AsyncIterable<Buffer>) {
    firstMs ||= performance.now() - since
    parts.push(part)
    onFirst()
  }
  return {
    status: answer.statusCode!,
    body: Buffer.concat(parts),
    firstMs,
    lastMs: performance.now() - since,
  }
}

describe('an absent item that is asked for over HTTP', () => {
  it('streams: its first byte is there long before its last, and before its first extent', async () => {
    await using at = await world(2 * MIB)
    const got = await stream(at.http.port, '/data/media/films/film.mp4')
    expect(got.status).toBe(200)
    expect(got.body.equals(film)).toBe(true)
    expect(got.lastMs).toBeGreaterThan(4500)
    expect(got.firstMs).toBeLessThan(1500)
    expect(at.upstream.wire.bytesDown).toBeLessThan(11.2 * MIB)
    const again = await stream(at.http.port, '/data/media/films/film.mp4')
    expect(again.body.equals(film)).toBe(true)
    expect(at.upstream.wire.bytesDown).toBeLessThan(11.2 * MIB)
  }, 30_000)

  it('begins with the range that was asked for, however far in', async () => {
    await using at = await world(2 * MIB)
    const from = 9 * MIB + 4321
    const got = await stream(at.http.port, '/data/media/films/film.mp4', {
      range: `bytes=${from}-${from + 99_999}`,
    })
    expect(got.status).toBe(206)
    expect(got.body.equals(film.subarray(from, from + 100_000))).toBe(true)
    expect(got.lastMs).toBeLessThan(4500)
  }, 30_000)

  it('is cut, never ended short, when the link goes; what came is kept for the next who asks', async () => {
    await using at = await world(2 * MIB)
    const began = Promise.withResolvers<void>()
    const cut = stream(at.http.port, '/data/media/films/film.mp4', {}, began.resolve)
    cut.catch(() => undefined)
    await began.promise
    await expect.poll(() => at.proxy.bytesDown, { timeout: 10_000 }).toBeGreaterThan(3 * MIB)
    at.allowed.fetch = false
    at.window.abort(new Error('the window has ended'))
    await expect(cut).rejects.toThrow()
    const refused = await at.http.ask('/data/media/films/film.mp4', { headers: { range: 'bytes=11000000-' } })
    expect([refused.status, refused.headers['retry-after']]).toEqual([503, '77'])
  }, 30_000)
})
