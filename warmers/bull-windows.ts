/**
 * Contact windows as BullMQ job schedulers: one for each rule of each link, so that the usual tools
 * show when the next window opens, and a node is woken at its very beginning. Only a reminder, like
 * every job (I8): the warmer looks at clock and windows by itself, too, and Redis may be emptied or
 * gone; what is lacking in it is put back within a minute.
 */
import { Queue, Worker } from 'bullmq'
import type { Redis } from 'ioredis'
import { type BullAddress, CALL_MS, connectRedis, within } from './bull-job.ts'
import type { LinkSettings } from './link-settings.ts'
import { cronPatternOf } from './windows.ts'

export interface BullWindowsOptions extends BullAddress {
  readonly links: readonly LinkSettings[]
  /** A window has just begun. */
  onBegin(link: string): void
  /** Between two looks whether the schedulers are still there. */
  readonly lookMs?: number
}

const QUEUE = 'windows'
const LOOK_MS = 60_000

interface WindowJob {
  readonly link: string
}

/** Returns at once, whether Redis is there or not. */
export function openBullWindows(options: BullWindowsOptions): AsyncDisposable {
  return new BullWindows(options)
}

class BullWindows implements AsyncDisposable {
  readonly #options: BullWindowsOptions
  readonly #connections: readonly Redis[]
  readonly #timer: NodeJS.Timeout
  #queue: Queue<WindowJob> | undefined
  #worker: Worker<WindowJob> | undefined
  #closed = false

  constructor(options: BullWindowsOptions) {
    const { redisUrl, lookMs = LOOK_MS } = options
    this.#options = options
    const calls = connectRedis(redisUrl, { enableOfflineQueue: false })
    this.#connections = [calls, connectRedis(redisUrl, { maxRetriesPerRequest: null })]
    const look = () => void this.#look().catch(() => undefined) // tried again at the next look
    calls.on('ready', look)
    this.#timer = setInterval(look, lookMs).unref()
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#closed = true
    clearInterval(this.#timer)
    // with Redis down these would wait for ever
    await within(CALL_MS, Promise.all([this.#worker?.close(true), this.#queue?.close()]))
    for (const redis of this.#connections) redis.disconnect()
  }

  async #look(): Promise<void> {
    const [calls, jobs] = this.#connections as [Redis, Redis]
    if (this.#closed || calls.status !== 'ready') return
    const { prefix, links, onBegin } = this.#options
    const wanted = links.flatMap(link =>
      (link.windows ?? []).map((rule, at) => ({
        id: `${link.name} ${rule.name ?? at}`.replaceAll(':', '.'),
        link: link.name,
        repeat: { pattern: cronPatternOf(rule), tz: rule.timeZone },
      })),
    )
    this.#queue ??= new Queue<WindowJob>(QUEUE, { connection: calls, prefix, skipWaitingForReady: true })
    this.#queue.on('error', () => undefined)
    this.#worker ??= new Worker<WindowJob>(QUEUE, async ({ data }) => onBegin(data.link), {
      connection: jobs,
      prefix,
      removeOnComplete: { count: 0 },
      removeOnFail: { count: 0 },
    })
    this.#worker.on('error', () => undefined)
    const known = new Map(
      (await this.#queue.getJobSchedulers()).map(({ key, pattern, tz }) => [key, { pattern, tz }]),
    )
    for (const { id, link, repeat } of wanted) {
      const before = known.get(id)
      known.delete(id)
      if (before?.pattern === repeat.pattern && before.tz === repeat.tz) continue
      await this.#queue.upsertJobScheduler(id, repeat, { name: 'window', data: { link } })
    }
    for (const id of known.keys()) await this.#queue.removeJobScheduler(id) // of settings before
  }
}
