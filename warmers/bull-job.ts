/**
 * What the owner and its worker processes agree on in Redis: one queue, what a job holds, and how one
 * is worked off. A job only names a batch of a board that is in the owner (I8).
 *
 * Settings and bounds come from trials: locks and stall checks of 5 s (a killed
 * worker's job is taken up again within 10 s, 60 s at defaults), no limit to stalls, and nothing kept
 * of ended jobs: a kept one with the same id would block every later one.
 */
import { setTimeout as sleep } from 'node:timers/promises'
import { DelayedError, UnrecoverableError, Worker, type Job } from 'bullmq'
import { Redis } from 'ioredis'

export const QUEUE = 'fill'
/** No call to Redis is waited for longer. */
export const CALL_MS = 2000
const LOCK_MS = 5000

export interface JobData {
  readonly board: string
  /** Absent in the jobs above batches: a window, a dataset. */
  readonly batch?: string
}

/** What became of a batch; as it crosses a process border. */
export type JobEnd =
  | { readonly state: 'done'; readonly contentBytes: number }
  | { readonly state: 'failed'; readonly message: string }
  | { readonly state: 'pausing'; readonly ms: number }
  | { readonly state: 'none' }

export interface BullAddress {
  readonly redisUrl: string
  /** Separates nodes that share a Redis: the node's id. */
  readonly prefix: string
}

/** @param run runs the batch that is named, if it is still open. */
export function openBullWorker(
  { prefix, redis }: { readonly prefix: string; readonly redis: Redis },
  concurrency: number,
  run: (job: JobData) => Promise<JobEnd>,
): Worker<JobData> {
  const work = async (job: Job<JobData>, token: string | undefined) => {
    if (job.data.batch === undefined) return // all below it has ended
    const end = await run(job.data)
    if (end.state === 'done')
      void job.updateProgress({ contentBytes: end.contentBytes }).catch(() => undefined)
    if (end.state === 'failed') throw new UnrecoverableError(end.message)
    if (end.state !== 'pausing') return
    await job.moveToDelayed(Date.now() + end.ms, token)
    throw new DelayedError()
  }
  const worker = new Worker<JobData>(QUEUE, work, {
    connection: redis,
    prefix,
    concurrency,
    lockDuration: LOCK_MS,
    stalledInterval: LOCK_MS,
    maxStalledCount: 1_000_000,
    drainDelay: 1,
    removeOnComplete: { count: 0 },
    removeOnFail: { count: 0 },
  })
  worker.on('error', () => undefined) // Redis is looked at, not listened to
  return worker
}

export function connectRedis(
  redisUrl: string,
  more: { enableOfflineQueue?: boolean; maxRetriesPerRequest?: null } = {},
): Redis {
  const redis = new Redis(redisUrl, {
    connectTimeout: CALL_MS,
    retryStrategy: times => Math.min(100 * times, 2000),
    ...more,
  })
  redis.on('error', () => undefined) // state is looked at, not listened to
  return redis
}

/** @returns undefined when it takes longer. */
export async function within<T>(ms: number, promise: Promise<T>): Promise<T | undefined> {
  promise.catch(() => undefined)
  return await Promise.race([promise, sleep(ms, undefined, { ref: false })])
}
