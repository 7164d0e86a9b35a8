/** Fills by worker processes over a real Redis: same bytes, same accounts, and they may be killed. */
import { describe, expect, it } from 'vitest'
import { openEmbeddedRedis } from '../node/embedded-redis.ts'
import { bytesOf } from '../node/store/testing.ts'
import { openBullQueue } from './bull-queue.ts'
import { fillOnce, type FillRequest } from './fill-once.ts'
import { openSlowProxy } from './test-proxy.ts'
import { openNode, openOrigin } from './test-world.ts'
import { temporaryFolder } from './testing.ts'

const MIB = 1024 * 1024
const FILES = { 'film.mp4': bytesOf('film', 8 * MIB), 'note.txt': 'a note' }

/** An origin on a slow link, a node, and its queue with two worker processes. */
async function world(bytesPerSecond: number) {
  const stack = new AsyncDisposableStack()
  const folder = stack.use(await temporaryFolder())
  const redis = stack.use(await openEmbeddedRedis(folder.path))
  const origin = stack.use(await openOrigin())
  await origin.publish('media/films', FILES)
  const server = stack.use(await origin.serve())
  const proxy = stack.use(await openSlowProxy(server.url, { delayMs: 1, bytesPerSecond }))
  const node = stack.use(await openNode(origin.root))
  const states: string[] = []
  const queue = stack.use(
    openBullQueue({
      redisUrl: redis.redisUrl,
      prefix: 'tower-a',
      workers: { processes: 2, concurrency: 4 },
      onState: state => states.push(state),
    }),
  )
  await expect.poll(() => queue.workers?.ready, { timeout: 15_000 }).toBe(2)
  const upstream = node.upstream(proxy.url, { connectionsMax: 6 })
  return { server, proxy, node, queue, states, upstream, [Symbol.asyncDispose]: () => stack.disposeAsync() }
}

async function run(request: FillRequest, onProgress?: (contentBytes: number, wireBytes: number) => void) {
  for await (const event of fillOnce(request)) {
    if (event.type === 'progress') onProgress?.(event.contentBytes, event.wireBytes)
    if (event.type === 'done') return event
  }
  throw new Error('it did not end')
}

describe('worker processes', () => {
  it('receive what a fill needs, once, and the accounts are exact', async () => {
    await using at = await world(Infinity)
    const done = await run(at.node.request([at.upstream], { queue: at.queue }))
    expect(done.complete).toBe(true)
    expect(at.states).toEqual(['redis'])
    const frames = at.server.requests.filter(request => request.includes('.pack'))
    expect(new Set(frames).size).toBe(frames.length)
    expect(done.wire.down).toBeLessThan(8.1 * MIB)
    expect(done.wire.down).toBe(at.node.records.reduce((sum, { bytesDown }) => sum + bytesDown, 0))
    await expect.poll(() => at.proxy.bytesDown).toBe(done.wire.down)
    await at.node.items('media/films')
  }, 30_000)

  it('killed with -9 hold up a fill for a moment, and nothing is fetched twice', async () => {
    await using at = await world(4 * MIB)
    let killedAt = 0
    let nextAt = 0
    const kill = (contentBytes: number, wireBytes: number) => {
      if (wireBytes > MIB && killedAt === 0) {
        killedAt = performance.now()
        for (const pid of at.queue.workers?.pids ?? []) process.kill(pid, 'SIGKILL')
      } else if (killedAt > 0 && nextAt === 0 && contentBytes > 6 * MIB) nextAt = performance.now()
    }
    const done = await run(at.node.request([at.upstream], { queue: at.queue }), kill)
    expect(done.complete).toBe(true)
    expect(killedAt).toBeGreaterThan(0)
    expect(nextAt - killedAt).toBeLessThan(15_000)
    // what was in the sockets of those killed comes again: at most 256 KiB for each connection
    expect(at.proxy.bytesDown).toBeLessThan(8.1 * MIB + 6 * 256 * 1024)
    await at.node.items('media/films')
  }, 30_000)

  it('stop within a second of the abort', async () => {
    await using at = await world(2 * MIB)
    const stop = new AbortController()
    let abortedAt = 0
    const abort = (_contentBytes: number, wireBytes: number) => {
      if (wireBytes < MIB || abortedAt > 0) return
      abortedAt = performance.now()
      stop.abort(new Error('the window has ended'))
    }
    const request = at.node.request([at.upstream], { queue: at.queue, signal: stop.signal })
    await expect(run(request, abort)).rejects.toThrow('the window has ended')
    expect(performance.now() - abortedAt).toBeLessThan(1000)
    await new Promise(resolve => setTimeout(resolve, 200)) // for what is told of requests that were stopped
    const { bytesDown } = at.upstream.wire
    await new Promise(resolve => setTimeout(resolve, 400))
    expect(at.upstream.wire.bytesDown).toBe(bytesDown)
  }, 30_000)
})
