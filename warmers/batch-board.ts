/**
 * Who runs which batch: one table in the store's owner, from which every executor takes its work,
 * so that no batch is run twice at a time however many executors there are. It knows nothing of
 * Redis; what is on it can always be derived again from manifests and store (I8).
 *
 * A batch that failed is offered again after a pause that doubles; one whose error cannot pass by
 * itself, or that failed too often, is given up. Either way it never holds up the others.
 */
import { isEdgeError } from '../manifests/errors.ts'
import type { Abortable } from '../manifests/extent.ts'
import type { BatchResult } from './run-batch.ts'
import type { Batch } from './plan-fill.ts'
import type { Upstream } from './upstream.ts'

/** By which way an executor reads: through a process of its own; as it is when absent. */
export type Via = (upstreams: readonly Upstream[]) => readonly Upstream[]
export type RunBatch = (batch: Batch, options: Abortable, via?: Via) => Promise<BatchResult>

export interface BatchEnd {
  readonly batch: Batch
  readonly executor: string
  readonly result?: BatchResult
  readonly error?: unknown
  /** Failed, and offered again later. */
  readonly again: boolean
}

/** What became of a call: `pausing` has so many milliseconds to go, `none` has nothing to run. */
export type RunState =
  | { readonly state: 'done'; readonly result: BatchResult }
  | { readonly state: 'failed'; readonly error: unknown }
  | { readonly state: 'pausing'; readonly ms: number }
  | { readonly state: 'none' }

export interface BoardOptions {
  readonly attemptsMax: number
  readonly pauseMs: number
  readonly pauseMsMax: number
}

export const BOARD: BoardOptions = { attemptsMax: 6, pauseMs: 500, pauseMsMax: 30_000 }

interface Entry {
  readonly batch: Batch
  state: 'waiting' | 'running' | 'ended'
  attempts: number
  notBefore: number
}

export class BatchBoard {
  readonly #entries: Map<string, Entry>
  readonly #run: RunBatch
  readonly #onEnd: (end: BatchEnd) => void
  readonly #options: BoardOptions
  readonly #waiters = new Set<() => void>()
  #open: number
  #running = 0
  /** Every entry before it has ended. */
  #first = 0
  readonly #order: readonly Entry[]

  constructor(
    batches: readonly Batch[],
    run: RunBatch,
    onEnd: (end: BatchEnd) => void,
    options: BoardOptions = BOARD,
  ) {
    this.#order = batches.map(batch => ({ batch, state: 'waiting', attempts: 0, notBefore: 0 }))
    this.#entries = new Map(this.#order.map(entry => [entry.batch.id, entry]))
    this.#run = run
    this.#onEnd = onEnd
    this.#options = options
    this.#open = batches.length
  }

  /** Batches that have not ended. */
  get open(): number {
    return this.#open
  }

  get running(): number {
    return this.#running
  }

  has(id: string): boolean {
    return this.#entries.has(id)
  }

  /** Waiting batches in the order in which they should run. */
  waiting(): Batch[] {
    return this.#order.filter(({ state }) => state === 'waiting').map(({ batch }) => batch)
  }

  /**
   * Runs one batch: the one named, or the first that may run now. Errors end up with `onEnd`, too.
   * `none`: it has ended or runs elsewhere, or there is nothing left to take.
   */
  async runOne(executor: string, options: Abortable, id?: string, via?: Via): Promise<RunState> {
    const entry = this.#take(id)
    if (!entry) return this.#pauseOf(id)
    const { batch } = entry
    this.#running++
    try {
      const result = await this.#run(batch, options, via)
      this.#end(entry)
      this.#onEnd({ batch, executor, result, again: false })
      return { state: 'done', result }
    } catch (error) {
      const lost = !isEdgeError(error) || !error.retryable || entry.attempts >= this.#options.attemptsMax
      if (options.signal.aborted) entry.state = 'waiting'
      else if (lost) this.#end(entry)
      else this.#pause(entry)
      if (options.signal.aborted) return { state: 'none' }
      this.#onEnd({ batch, executor, error, again: !lost })
      return lost ? { state: 'failed', error } : this.#pauseOf(batch.id)
    } finally {
      this.#running--
      this.#wake()
    }
  }

  /** Resolves when something changed, a pause is over, or after `ms`. */
  async change(ms: number, { signal }: Abortable): Promise<void> {
    signal.throwIfAborted()
    const now = performance.now()
    let soonest = ms
    for (const { state, notBefore } of this.#order) {
      if (state === 'waiting' && notBefore > now) soonest = Math.min(soonest, notBefore - now)
    }
    const { promise, resolve } = Promise.withResolvers<void>()
    const timer = setTimeout(resolve, Math.max(soonest, 1))
    this.#waiters.add(resolve)
    signal.addEventListener('abort', () => resolve(), { once: true })
    await promise
    clearTimeout(timer)
    this.#waiters.delete(resolve)
  }

  #take(id: string | undefined): Entry | undefined {
    const now = performance.now()
    const isFree = (entry: Entry | undefined) => entry?.state === 'waiting' && entry.notBefore <= now
    let entry = id === undefined ? undefined : this.#entries.get(id)
    if (id === undefined) {
      while (this.#order[this.#first]?.state === 'ended') this.#first++
      for (let at = this.#first; at < this.#order.length && !entry; at++)
        if (isFree(this.#order[at])) entry = this.#order[at]
    }
    if (!entry || !isFree(entry)) return undefined
    entry.state = 'running'
    entry.attempts++
    return entry
  }

  #pauseOf(id: string | undefined): RunState {
    const entry = id === undefined ? undefined : this.#entries.get(id)
    if (entry?.state !== 'waiting') return { state: 'none' }
    return { state: 'pausing', ms: Math.max(1, Math.ceil(entry.notBefore - performance.now())) }
  }

  #end(entry: Entry): void {
    entry.state = 'ended'
    this.#open--
  }

  #pause(entry: Entry): void {
    const { pauseMs, pauseMsMax } = this.#options
    entry.state = 'waiting'
    entry.notBefore = performance.now() + Math.min(pauseMs * 2 ** (entry.attempts - 1), pauseMsMax)
  }

  #wake(): void {
    for (const waiter of this.#waiters) waiter()
  }
}
