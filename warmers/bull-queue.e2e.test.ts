import { spawn, type ChildProcess } from 'node:child_process'
import { once } from 'node:events'
import { setTimeout as sleep } from 'node:timers/promises'
import { Redis } from 'ioredis'
import { FlowProducer, Queue, Worker } from 'bullmq'
import { describe, expect, it } from 'vitest'
import { EdgeError } from '../manifests/errors.ts'
import { BatchBoard, type BatchEnd, type RunBatch } from './batch-board.ts'
import { openBullQueue } from './bull-queue.ts'
import type { Batch } from './plan-fill.ts'
import { temporaryFolder } from './testing.ts'

async function redisServer(): Promise<
  AsyncDisposable & { url: string; pid: number; start(): Promise<void>; kill(): Promise<void> }
> {
  const folder = await temporaryFolder()
  const url = `${folder.path}/redis.sock`
  let child: ChildProcess | undefined
  const start = async () => {
    child = spawn('redis-server', ['--port', '0', '--unixsocket', url, '--save', '', '--dir', folder.path], {
      stdio: ['ignore', 'pipe', 'ignore'],
    })
    for await (const line of child.stdout!) if (/ready to accept/i.test(String(line))) break
    child.stdout!.resume()
  }
  const kill = async () => {
    if (!child || child.exitCode !== null || child.signalCode) return
    child.kill('SIGKILL')
    await once(child, 'exit')
  }
  await start()
  return {
    url,
    get pid() {
      return child!.pid!
    },
    start,
    kill,
    async [Symbol.asyncDispose]() {
      await kill()
      await folder[Symbol.asyncDispose]()
    },
  }
}

const batch = (n: number, priority: Batch['priority'] = 1): Batch => ({
  id: `batch${n}`,
  dataset: 'health/who',
  revision: 1,
  priority,
  step: 0,
  path: 'p',
  fileBytes: 1,
  steps: [],
  requests: [],
  wire: { down: 0, up: 0 },
  contentBytes: 1,
  reason: 'frame',
})
const batches = (count: number) => Array.from({ length: count }, (_, n) => batch(n))
const signal = new AbortController().signal

function boardOf(all: readonly Batch[], run: RunBatch = async () => ({ contentBytes: 1, fallbacks: [] })) {
  const ran: string[] = []
  const ends: BatchEnd[] = []
  let running = 0
  const board = new BatchBoard(
    all,
    async (one, options) => {
      if (ran.length !== new Set(ran).size && running > 100) throw new Error('unreachable')
      ran.push(one.id)
      running++
      try {
        return await run(one, options)
      } finally {
        running--
      }
    },
    end => ends.push(end),
    { attemptsMax: 3, pauseMs: 20, pauseMsMax: 100 },
  )
  return { board, ran, ends }
}

describe('batches through BullMQ', () => {
  it('all run, once each, by its workers', async () => {
    await using redis = await redisServer()
    await using queue = openBullQueue({ redisUrl: redis.url, prefix: 'node-a' })
    const { board, ran, ends } = boardOf(batches(60))
    await queue.drain(board, { concurrency: 4, window: 'w1' }, { signal })
    expect(ran.toSorted()).toEqual(
      batches(60)
        .map(({ id }) => id)
        .toSorted(),
    )
    expect(new Set(ends.map(({ executor }) => executor))).toEqual(new Set(['bullmq']))
  })

  it('run in the order of the board', async () => {
    await using redis = await redisServer()
    await using queue = openBullQueue({ redisUrl: redis.url, prefix: 'node-a' })
    const all = [batch(0, 3), batch(1, 0), batch(2, -1), batch(3, 2), batch(4, 1)]
    const { board, ran } = boardOf(all)
    await queue.drain(board, { concurrency: 1, window: 'w' }, { signal })
    expect(ran).toEqual(['batch0', 'batch1', 'batch2', 'batch3', 'batch4'])
  })

  it('run again in a later window, although they failed in this one', async () => {
    await using redis = await redisServer()
    await using queue = openBullQueue({ redisUrl: redis.url, prefix: 'node-a' })
    for (let window = 0; window < 2; window++) {
      const { board, ran, ends } = boardOf(batches(3), async ({ id }) => {
        if (id === 'batch0') throw new EdgeError('PACK_INVALID', 'for good')
        if (id === 'batch1') throw new EdgeError('UPSTREAM_STALLED', 'for now')
        return { contentBytes: 1, fallbacks: [] }
      })
      await queue.drain(board, { concurrency: 2, window: 'same' }, { signal })
      expect(ran.toSorted()).toEqual(['batch0', 'batch1', 'batch1', 'batch1', 'batch2'])
      expect(ends.filter(({ error, again }) => error !== undefined && !again)).toHaveLength(2)
      expect(new Set(ends.map(({ executor }) => executor))).toEqual(new Set(['bullmq']))
    }
  })

  it('are the lowest jobs of a flow: window, dataset, batches; one that fails for good does not hold it up', async () => {
    await using redis = await redisServer()
    await using queue = openBullQueue({ redisUrl: redis.url, prefix: 'node-a' })
    const look = new Queue('fill', { connection: { path: redis.url }, prefix: 'node-a' })
    const hold = Promise.withResolvers<void>()
    const { board } = boardOf(batches(6), async ({ id }) => {
      if (id === 'batch0') throw new EdgeError('PACK_INVALID', 'for good')
      await hold.promise
      return { contentBytes: 1, fallbacks: [] }
    })
    const draining = queue.drain(board, { concurrency: 2, window: 'night' }, { signal })
    await expect.poll(() => board.open).toBe(5)
    const above = await look.getJobs(['waiting-children'])
    expect(above.map(({ name }) => name).toSorted()).toEqual(['health/who', 'window night'])
    const dataset = above.find(({ name }) => name === 'health/who')!
    await expect.poll(async () => (await dataset.getDependenciesCount()).unprocessed).toBe(5)
    hold.resolve()
    await draining
    await expect
      .poll(async () => Object.values(await look.getJobCounts()).every(count => count === 0))
      .toBe(true)
    await look.close()
  })

  it('of two nodes with one Redis stay apart', async () => {
    await using redis = await redisServer()
    await using a = openBullQueue({ redisUrl: redis.url, prefix: 'node-a' })
    await using b = openBullQueue({ redisUrl: redis.url, prefix: 'node-b' })
    const boards = [boardOf(batches(20)), boardOf(batches(20))]
    await Promise.all([
      a.drain(boards[0]!.board, { concurrency: 2, window: 'w' }, { signal }),
      b.drain(boards[1]!.board, { concurrency: 2, window: 'w' }, { signal }),
    ])
    expect(boards.map(({ ran }) => ran.length)).toEqual([20, 20])
  })

  it('stop within a second of the abort', async () => {
    await using redis = await redisServer()
    await using queue = openBullQueue({ redisUrl: redis.url, prefix: 'node-a' })
    const stop = new AbortController()
    const { board, ran } = boardOf(batches(10), async (_, options) => {
      await sleep(60_000, undefined, options)
      return { contentBytes: 1, fallbacks: [] }
    })
    const draining = queue.drain(board, { concurrency: 2, window: 'w' }, { signal: stop.signal })
    draining.catch(() => undefined)
    await expect.poll(() => ran.length).toBe(2)
    const since = performance.now()
    stop.abort(new EdgeError('WINDOW_CLOSED', 'over'))
    await expect(draining).rejects.toMatchObject({ code: 'WINDOW_CLOSED' })
    expect(performance.now() - since).toBeLessThan(1000)
    expect(board.open).toBe(10)
  })
})

describe('without Redis', () => {
  it('that was never there, batches run within seconds', async () => {
    await using queue = openBullQueue({ redisUrl: '/nowhere/redis.sock', prefix: 'node-a' })
    const { board, ran } = boardOf(batches(20))
    const since = performance.now()
    await queue.drain(board, { concurrency: 4, window: 'w' }, { signal })
    expect(ran).toHaveLength(20)
    expect(performance.now() - since).toBeLessThan(3000)
  })

  it.each([
    ['killed', (redis: Awaited<ReturnType<typeof redisServer>>) => redis.kill()],
    [
      'emptied',
      async (redis: Awaited<ReturnType<typeof redisServer>>) => {
        const client = new Redis(redis.url)
        await client.flushall()
        client.disconnect()
      },
    ],
    [
      'killed and started again, empty',
      async (redis: Awaited<ReturnType<typeof redisServer>>) => {
        await redis.kill()
        await redis.start()
      },
    ],
    [
      'hung',
      async (redis: Awaited<ReturnType<typeof redisServer>>) => void process.kill(redis.pid, 'SIGSTOP'),
    ],
  ])('that is %s in the middle, the rest runs, none twice', async (_, harm) => {
    await using redis = await redisServer()
    await using queue = openBullQueue({ redisUrl: redis.url, prefix: 'node-a', patienceMs: 1000 })
    const { board, ran } = boardOf(batches(30), async () => {
      await sleep(20)
      return { contentBytes: 1, fallbacks: [] }
    })
    const draining = queue.drain(board, { concurrency: 2, window: 'w' }, { signal })
    await expect.poll(() => ran.length, { interval: 5 }).toBeGreaterThan(6)
    await harm(redis)
    await draining
    expect(ran.toSorted()).toEqual(
      batches(30)
        .map(({ id }) => id)
        .toSorted(),
    )
  })

  it('that was emptied, jobs are offered again', async () => {
    await using redis = await redisServer()
    await using queue = openBullQueue({ redisUrl: redis.url, prefix: 'node-a' })
    const { board, ran, ends } = boardOf(batches(12), async () => {
      await sleep(20)
      return { contentBytes: 1, fallbacks: [] }
    })
    const draining = queue.drain(board, { concurrency: 2, window: 'w' }, { signal })
    await expect.poll(() => ran.length, { interval: 5 }).toBeGreaterThan(3)
    const client = new Redis(redis.url)
    await client.flushall()
    client.disconnect()
    await draining
    expect(new Set(ends.map(({ executor }) => executor))).toEqual(new Set(['bullmq']))
    expect(ran).toHaveLength(12)
  })

  it('closing is bounded', async () => {
    await using redis = await redisServer()
    const queue = openBullQueue({ redisUrl: redis.url, prefix: 'node-a' })
    await queue.drain(boardOf(batches(3)).board, { concurrency: 1, window: 'w' }, { signal })
    await redis.kill()
    const since = performance.now()
    await queue[Symbol.asyncDispose]()
    expect(performance.now() - since).toBeLessThan(4000)
  })

  it('jobs left over by a killed node, running and in flows, are no work and do not stay', async () => {
    await using redis = await redisServer()
    const place = { connection: { path: redis.url }, prefix: 'node-a' }
    const look = new Queue('fill', place)
    {
      const flows = new FlowProducer(place)
      const children = batches(5).map(({ id }) => ({
        name: 'batch',
        queueName: 'fill',
        data: { board: 'gone', batch: id },
        opts: { priority: 1 },
      }))
      await flows.add({ name: 'window night', queueName: 'fill', data: { board: 'gone' }, children })
      await flows.close()
      const killed = new Worker('fill', () => new Promise(() => {}), place)
      await expect.poll(() => look.getActiveCount()).toBe(1)
      await killed.close(true)
    }
    await using queue = openBullQueue({ redisUrl: redis.url, prefix: 'node-a' })
    const { board, ran, ends } = boardOf(batches(4))
    await queue.drain(board, { concurrency: 2, window: 'w' }, { signal })
    expect(ran).toHaveLength(4)
    expect(new Set(ends.map(({ executor }) => executor))).toEqual(new Set(['bullmq']))
    await expect
      .poll(async () => Object.values(await look.getJobCounts()).every(count => count === 0))
      .toBe(true)
    await look.close()
  })
})
