/**
 * Batches run by BullMQ workers, over Redis: jobs can be seen, counted and retried with the usual
 * tools, as flows: window → dataset → batches. Redis is disposable (I8): a job is only a reminder to
 * look at the board, which is in the owner. If it was emptied, jobs are offered again; if it is down
 * or hangs, the batches are run in this process within seconds.
 *
 * How often a batch is tried again, and after which pause, is the board's to say; a batch that failed
 * for good does not hold up what is above it. Whatever an owner before this one left in the queue is
 * no work and is removed: only the owner of a store offers jobs under its node's id.
 */
import { createHash, randomUUID } from 'node:crypto'
import { setTimeout as sleep } from 'node:timers/promises'
import { FlowProducer, Queue, type FlowJobNode, type Worker } from 'bullmq'
import type { Redis } from 'ioredis'
import type { Abortable } from '../manifests/extent.ts'
import type { BatchBoard, RunState, Via } from './batch-board.ts'
import {
  type BullAddress,
  CALL_MS,
  connectRedis,
  type JobData,
  type JobEnd,
  openBullWorker,
  QUEUE,
  within,
} from './bull-job.ts'
import type { FillQueue, Work } from './fill-queue.ts'
import { type FillWorkers, startFillWorkers } from './fill-workers.ts'
import { drainLocally } from './local-queue.ts'
import type { Batch } from './plan-fill.ts'

export interface BullOptions extends BullAddress {
  /** Processes that receive for this one, `concurrency` batches at a time in all; absent: its own worker does. */
  readonly workers?: { readonly processes: number; readonly concurrency: number } | undefined
  /** How long nothing may happen before this process runs batches itself. */
  readonly patienceMs?: number
  readonly onState?: (state: 'redis' | 'local', why: string) => void
}

const LOOK_MS = 250
const PATIENCE_MS = 3000
const START_MS = 15_000
/** Jobs of a flow are added in one transaction: so many take half a second. */
const FLOW_JOBS_MAX = 2000
/** BullMQ's lowest priority is 2^21; a job without one would run before all others. */
const PRIORITY_MAX = 2_000_000

export interface BullQueue extends FillQueue {
  readonly connected: boolean
  readonly workers: Pick<FillWorkers, 'pids' | 'ready'> | undefined
}

/** Returns at once, whether Redis is there or not. */
export function openBullQueue(options: BullOptions): BullQueue {
  return new RedisQueue(options)
}

interface OpenBoard {
  readonly board: BatchBoard
  readonly signal: AbortSignal
}

class RedisQueue implements BullQueue {
  readonly name = 'bullmq'
  readonly #options: BullOptions
  readonly #redis: Redis
  readonly #connections: Redis[] = []
  readonly #boards = new Map<string, OpenBoard>()
  readonly #openedAt = performance.now()
  #clearing: Promise<void> = Promise.resolve()
  #queue: Queue<JobData> | undefined
  #flows: FlowProducer | undefined
  #worker: Worker<JobData> | undefined
  readonly #processes: FillWorkers | undefined

  constructor(options: BullOptions) {
    this.#options = options
    this.#redis = this.#connect({ enableOfflineQueue: false })
    if (options.workers) {
      const settings = { ...options.workers, redisUrl: options.redisUrl, prefix: options.prefix }
      this.#processes = startFillWorkers(settings, (executor, job, via) => this.#run(executor, job, via))
    }
  }

  get connected(): boolean {
    return this.#redis.status === 'ready'
  }

  get workers() {
    return this.#processes
  }

  async drain(board: BatchBoard, work: Work, { signal }: Abortable): Promise<void> {
    const ended = new AbortController()
    const stop = AbortSignal.any([signal, ended.signal])
    const id = nameOf(work.window, randomUUID())
    this.#boards.set(id, { board, signal: stop })
    try {
      await this.#watch(id, board, work, signal)
      signal.throwIfAborted()
    } finally {
      ended.abort(new Error('the fill has ended'))
      this.#boards.delete(id)
      void this.#clear()
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    // with Redis down these would wait for ever
    const clients = Promise.all([this.#worker?.close(true), this.#queue?.close(), this.#flows?.close()])
    await Promise.all([within(CALL_MS, clients), this.#processes?.[Symbol.asyncDispose]()])
    // BullMQ leaves connections that it was given open: they would look for Redis for ever
    for (const redis of this.#connections) redis.disconnect()
  }

  /** Puts a flow of jobs into Redis and starts workers, if Redis answers. */
  async #offer(id: string, board: BatchBoard, work: Work): Promise<void> {
    await this.#ready()
    const { prefix } = this.#options
    // not before: its constructor asks Redis something, and a failure there would end the process
    this.#queue ??= new Queue<JobData>(QUEUE, { connection: this.#redis, prefix, skipWaitingForReady: true })
    this.#queue.on('error', () => undefined)
    this.#flows ??= new FlowProducer({ connection: this.#redis, prefix, skipWaitingForReady: true })
    this.#flows.on('error', () => undefined)
    await within(CALL_MS, this.#clear())
    this.#startWorker(work.concurrency)
    const waiting = board.waiting()
    for (let at = 0; at < waiting.length; at += FLOW_JOBS_MAX) {
      const flow = flowOf(id, work.window, waiting.slice(at, at + FLOW_JOBS_MAX), at)
      if ((await within(CALL_MS, this.#flows.add(flow))) === undefined)
        throw new Error('Redis does not answer')
    }
  }

  /** Empties the queue, unless another board has jobs in it. */
  #clear(): Promise<void> {
    this.#clearing = this.#clearing.then(async () => {
      if (this.connected && this.#boards.size <= 1)
        await this.#queue?.obliterate({ force: true }).catch(() => undefined)
    })
    return this.#clearing
  }

  #startWorker(concurrency: number): void {
    if (this.#processes) return
    if (this.#worker) {
      this.#worker.concurrency = concurrency
      return
    }
    const redis = this.#connect({ maxRetriesPerRequest: null })
    const { prefix } = this.#options
    this.#worker = openBullWorker({ prefix, redis }, concurrency, job => this.#run('bullmq', job))
  }

  /** Jobs of plans that are no more, or of batches that ran elsewhere, simply end. */
  async #run(executor: string, { board, batch }: JobData, via?: Via): Promise<JobEnd> {
    const here = this.#boards.get(board)
    if (!here || here.signal.aborted) return { state: 'none' }
    return endOf(await here.board.runOne(executor, { signal: here.signal }, batch, via))
  }

  /** Offers jobs, again when they are gone; runs batches here when nobody else does. */
  async #watch(id: string, board: BatchBoard, work: Work, signal: AbortSignal): Promise<void> {
    const patienceMs = this.#options.patienceMs ?? PATIENCE_MS
    let idleSince = performance.now()
    const jobs: { state: 'offering' | 'offered' | 'refused' } = { state: 'offering' }
    const offer = () => {
      jobs.state = 'offering'
      this.#offer(id, board, work).then(
        () => (jobs.state = 'offered'),
        () => (jobs.state = 'refused'),
      )
    }
    offer()
    while (board.open > 0) {
      signal.throwIfAborted()
      const now = performance.now()
      if (board.running > 0 || this.#isStarting()) idleSince = now
      const isGone = jobs.state === 'refused' || (jobs.state === 'offered' && !this.connected)
      if (board.running === 0 && (isGone || now - idleSince > patienceMs)) {
        this.#options.onState?.('local', isGone ? 'Redis is not there' : 'no worker took a batch')
        return await drainLocally(board, work, { signal })
      }
      await board.change(LOOK_MS, { signal })
      if (jobs.state === 'offered' && board.running === 0 && board.open > 0 && (await this.#isEmptied()))
        offer()
    }
  }

  /** Worker processes take a moment, on a slow machine several seconds. */
  #isStarting(): boolean {
    const { ready = 1 } = this.#processes ?? {}
    return this.connected && ready === 0 && performance.now() - this.#openedAt < START_MS
  }

  async #isEmptied(): Promise<boolean> {
    if (!this.connected || !this.#queue) return false
    const counts = this.#queue.getJobCounts('waiting-children', 'prioritized', 'wait', 'active', 'delayed')
    const known = await within(LOOK_MS, counts).catch(() => undefined)
    return known !== undefined && Object.values(known).every(count => count === 0)
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
    const redis = connectRedis(this.#options.redisUrl, more)
    this.#connections.push(redis)
    return redis
  }
}

/** Window → datasets → batches. @param from rank of the first batch among all of the window. */
function flowOf(board: string, window: string, batches: readonly Batch[], from: number) {
  const ended = { removeOnComplete: true, removeOnFail: true }
  const below = new Map<string, FlowJobNode[]>()
  for (const [at, { id, dataset }] of batches.entries()) {
    const jobs = below.get(dataset) ?? []
    below.set(dataset, jobs)
    jobs.push({
      name: 'batch',
      queueName: QUEUE,
      data: { board, batch: id } satisfies JobData,
      opts: {
        ...ended,
        jobId: nameOf(board, id),
        priority: Math.min(from + at + 1, PRIORITY_MAX),
        ignoreDependencyOnFailure: true,
      },
    })
  }
  const above = (name: string, children: FlowJobNode[]) => ({
    name,
    queueName: QUEUE,
    data: { board } satisfies JobData,
    opts: { ...ended, jobId: nameOf(board, `${from} ${name}`), priority: PRIORITY_MAX },
    children,
  })
  const datasets = [...below].map(([dataset, jobs]) => ({
    ...above(dataset, jobs),
    opts: { ...above(dataset, jobs).opts, ignoreDependencyOnFailure: true },
  }))
  return above(`window ${window}`, datasets)
}

function endOf(state: RunState): JobEnd {
  if (state.state === 'done') return { state: 'done', contentBytes: state.result.contentBytes }
  if (state.state !== 'failed') return state
  const { error } = state
  return { state: 'failed', message: error instanceof Error ? error.message : String(error) }
}

/** Unlike others, without `:`, which BullMQ refuses. */
function nameOf(...parts: readonly string[]): string {
  return `b${createHash('sha256').update(parts.join('\n')).digest('hex').slice(0, 31)}`
}
