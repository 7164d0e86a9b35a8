/**
 * Batches run by BullMQ workers, over Redis: jobs can be seen, counted and retried with the usual
 * tools. Redis is disposable (I8): a job is only a reminder to look at the board, which is in the
 * owner. If Redis is down, slow or emptied, the batches are run in this process within seconds.
 *
 * Settings and bounds come from trials (DEPENDENCIES.md): locks and stall checks of 5 s, no limit to
 * stalls, nothing kept of failed jobs (a kept one with the same id would block every later one),
 * and no call to Redis is waited for without a bound. How often a batch is tried again, and after
 * which pause, is the board's to say.
 */
import { createHash } from 'node:crypto'
import { setTimeout as sleep } from 'node:timers/promises'
import { DelayedError, Queue, UnrecoverableError, Worker, type Job } from 'bullmq'
import { Redis } from 'ioredis'
import type { Abortable } from '../manifests/extent.ts'
import type { BatchBoard } from './batch-board.ts'
import type { FillQueue, Work } from './fill-queue.ts'
import { drainLocally } from './local-queue.ts'

export interface BullOptions {
  readonly redisUrl: string
  /** Separates nodes that share a Redis: the node's id. */
  readonly prefix: string
  /** How long nothing may happen before this process runs batches itself. */
  readonly patienceMs?: number
  readonly onState?: (state: 'redis' | 'local', why: string) => void
}

const QUEUE = 'fill'
const LOCK_MS = 5000
const CALL_MS = 2000
const LOOK_MS = 250
const PATIENCE_MS = 3000

interface JobData {
  readonly board: string
  readonly batch: string
}

/** Returns at once, whether Redis is there or not. */
export function openBullQueue(options: BullOptions): FillQueue & { readonly connected: boolean } {
  return new BullQueue(options)
}

class BullQueue implements FillQueue {
  readonly name = 'bullmq'
  readonly #options: BullOptions
  readonly #redis: Redis
  readonly #connections: Redis[] = []
  readonly #boards = new Map<string, { board: BatchBoard; signal: AbortSignal }>()
  #queue: Queue<JobData> | undefined
  #worker: Worker<JobData> | undefined

  constructor(options: BullOptions) {
    this.#options = options
    this.#redis = this.#connect({ enableOfflineQueue: false })
  }

  get connected(): boolean {
    return this.#redis.status === 'ready'
  }

  async drain(board: BatchBoard, work: Work, { signal }: Abortable): Promise<void> {
    const ended = new AbortController()
    const stop = AbortSignal.any([signal, ended.signal])
    const id = nameOf(work.window)
    this.#boards.set(id, { board, signal: stop })
    try {
      const offered = this.#offer(id, board, work.concurrency)
      offered.catch(() => undefined)
      await this.#watch(board, work, offered, signal)
      signal.throwIfAborted()
    } finally {
      ended.abort(new Error('the fill has ended'))
      this.#boards.delete(id)
      if (this.connected) void this.#queue?.drain(true).catch(() => undefined)
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    // with Redis down these would wait for ever
    await within(CALL_MS, Promise.all([this.#worker?.close(true), this.#queue?.close()]))
    // BullMQ leaves connections that it was given open: they would look for Redis for ever
    for (const redis of this.#connections) redis.disconnect()
  }

  /** Puts a job per batch into Redis and starts the worker, if Redis answers. */
  async #offer(id: string, board: BatchBoard, concurrency: number): Promise<void> {
    const { prefix } = this.#options
    await this.#ready()
    // not before: its constructor asks Redis something, and a failure there would end the process
    this.#queue ??= new Queue<JobData>(QUEUE, { connection: this.#redis, prefix, skipWaitingForReady: true })
    this.#queue.on('error', () => undefined)
    this.#startWorker(concurrency)
    const jobs = board.waiting().map((batch, rank) => ({
      name: batch.dataset,
      data: { board: id, batch: batch.id },
      opts: {
        jobId: nameOf(`${id} ${batch.id}`),
        // a job without a priority would run before all others; 2^21 is the most there is
        priority: Math.min(rank + 1, 2_000_000),
        removeOnComplete: true,
        removeOnFail: true,
      },
    }))
    for (let at = 0; at < jobs.length; at += 500) {
      if ((await within(CALL_MS, this.#queue.addBulk(jobs.slice(at, at + 500)))) === undefined)
        throw new Error('Redis does not answer')
    }
  }

  #startWorker(concurrency: number): void {
    if (this.#worker) {
      this.#worker.concurrency = concurrency
      return
    }
    this.#worker = new Worker<JobData>(QUEUE, (job, token) => this.#process(job, token), {
      connection: this.#connect({ maxRetriesPerRequest: null }),
      prefix: this.#options.prefix,
      concurrency,
      lockDuration: LOCK_MS,
      stalledInterval: LOCK_MS,
      maxStalledCount: 1_000_000,
      drainDelay: 1,
      removeOnComplete: { count: 0 },
      removeOnFail: { count: 0 },
    })
    this.#worker.on('error', () => undefined)
  }

  /** Jobs of plans that are no more, or of batches that ran elsewhere, simply end. */
  async #process(job: Job<JobData>, token: string | undefined): Promise<void> {
    const here = this.#boards.get(job.data.board)
    if (!here || here.signal.aborted) return
    const ran = await here.board.runOne('bullmq', { signal: here.signal }, job.data.batch)
    if (ran.state === 'done')
      void job.updateProgress({ contentBytes: ran.result.contentBytes }).catch(() => undefined)
    if (ran.state === 'pausing') {
      await job.moveToDelayed(Date.now() + ran.ms, token)
      throw new DelayedError()
    }
    if (ran.state === 'failed')
      throw new UnrecoverableError(ran.error instanceof Error ? ran.error.message : String(ran.error))
  }

  /** Runs batches here when nobody else does. */
  async #watch(board: BatchBoard, work: Work, offered: Promise<void>, signal: AbortSignal): Promise<void> {
    const patienceMs = this.#options.patienceMs ?? PATIENCE_MS
    let idleSince = performance.now()
    const redis = { hasJobs: false, refused: false }
    offered.then(
      () => (redis.hasJobs = true),
      () => (redis.refused = true),
    )
    while (board.open > 0) {
      signal.throwIfAborted()
      if (board.running > 0) idleSince = performance.now()
      const isIdle = performance.now() - idleSince > patienceMs
      const isGone = redis.refused || (redis.hasJobs && !this.connected)
      if (board.running === 0 && (isIdle || isGone)) {
        this.#options.onState?.('local', isGone ? 'Redis is not there' : 'no worker took a batch')
        return await drainLocally(board, work, { signal })
      }
      await board.change(LOOK_MS, { signal })
    }
  }

  async #ready(): Promise<void> {
    const until = performance.now() + CALL_MS
    while (!this.connected) {
      if (performance.now() > until) throw new Error('Redis is not there')
      await sleep(20)
    }
    this.#options.onState?.('redis', 'connected')
  }

  #connect(more: { enableOfflineQueue?: boolean; maxRetriesPerRequest?: null }): Redis {
    const redis = new Redis(this.#options.redisUrl, {
      connectTimeout: CALL_MS,
      retryStrategy: times => Math.min(100 * times, 2000),
      ...more,
    })
    redis.on('error', () => undefined) // state is looked at, not listened to
    this.#connections.push(redis)
    return redis
  }
}

/** Plan and window in one id without `:`, which BullMQ refuses. */
function nameOf(text: string): string {
  return `b${createHash('sha256').update(text).digest('hex').slice(0, 31)}`
}

async function within<T>(ms: number, promise: Promise<T>): Promise<T | undefined> {
  promise.catch(() => undefined)
  return await Promise.race([promise, sleep(ms, undefined, { ref: false })])
}
