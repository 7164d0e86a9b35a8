/**
 * Brings what somebody asks for now: an item that is catalogued and not here. The same sources,
 * staging and verification as a fill, ahead of what else waits for a connection; a bundle that a fill
 * fetches just now is waited for instead of fetched twice (I9).
 */
import { EdgeError } from '../manifests/errors.ts'
import type { Abortable } from '../manifests/extent.ts'
import type { Upstream } from './upstream.ts'
import { EarlyChunks, type Position } from './early-chunks.ts'
import type { Batch, Want } from './plan-fill.ts'
import { planPrepared, prepareDataset, type Prepared, type PrepareTools } from './prepare-dataset.ts'
import { runBatch } from './run-batch.ts'

export interface ItemWish {
  readonly dataset: string
  readonly path: string
  /** Whether what is waited for is here by now. */
  isHere(): boolean
  /** Of the first byte that is waited for; undefined while the nodes above it are not here. */
  position?(): Position | undefined
}

export interface OnDemand {
  /**
   * Resolves when what is wished for is here; the rest of the item goes on coming, what somebody waits
   * for first, then in the order of its bytes. Single flight per item; who leaves does not stop it for
   * others.
   * @returns proven bytes from the wish's position on that came ahead of their extent; else undefined.
   * @throws EdgeError `ITEM_ABSENT` when it cannot be had now, `UPSTREAM_…`; the signal's reason.
   */
  bring(wish: ItemWish, options: Abortable): Promise<Buffer | undefined>
}

export interface OnDemandTools extends Omit<PrepareTools, 'upstreams'> {
  /** A window to work in, on a link that is up and may be used for this; undefined when there is none. */
  open(): (Disposable & { readonly upstreams: readonly Upstream[]; readonly signal: AbortSignal }) | undefined
  /** Ends what is under way: the node stops. */
  readonly signal: AbortSignal
}

export function openOnDemand(tools: OnDemandTools): OnDemand {
  const flights = new Map<string, Flight>()
  const known = new RecentlyPrepared(tools)
  return {
    async bring(wish, { signal }) {
      const { dataset, path } = wish
      const key = `${dataset}\n${path}`
      while (!wish.isHere()) {
        signal.throwIfAborted()
        let flight = flights.get(key)
        if (!flight) {
          flight = new Flight()
          flights.set(key, flight)
          void fetchItem(dataset, path, tools, known, flight).finally(() => flights.delete(key))
        }
        using step = flight.wait(wish)
        const position = wish.position?.()
        const early = position && (await flight.early?.at(position))
        if (early) return early
        await step.next(signal)
      }
      return undefined
    },
  }
}

/** Never rejects: how it ended is told by the flight. */
async function fetchItem(
  dataset: string,
  path: string,
  tools: OnDemandTools,
  known: RecentlyPrepared,
  flight: Flight,
): Promise<void> {
  try {
    using window = tools.open()
    if (!window) throw absent(dataset, path, 'no link may be used for it now')
    const signal = AbortSignal.any([tools.signal, window.signal])
    const { upstreams } = window
    const { prepared, wants } = await known.wantsOf(dataset, path, upstreams, { signal })
    if (!prepared || wants.length === 0) throw absent(dataset, path, 'nothing of it can be fetched')
    const { batches, unobtainable } = planPrepared(prepared, { ...tools, upstreams }, new Set(), wants)
    const early = (flight.early = new EarlyChunks({ ...tools, upstreams }))
    const lacking: Want[] = [...unobtainable]
    const pending = batches.toSorted((a, b) => orderOf(a.steps) - orderOf(b.steps))
    for (let batch = nextOf(pending, flight); batch; batch = nextOf(pending, flight)) {
      const urgently = { ...tools, upstreams, urgent: true, onProgress: () => flight.tell() }
      // what the chunks must be is asked for first: without it nothing can be given before an extent is whole
      const [, { fallbacks }] = await Promise.all([
        early.learn(batch, { signal }),
        runBatch(batch, urgently, { signal }),
      ])
      lacking.push(...fallbacks.map(({ want }) => want))
      flight.tell()
    }
    if (lacking.length > 0) throw absent(dataset, path, `${lacking.length} extents of it cannot be had`)
    flight.end()
  } catch (error) {
    flight.end(error)
  }
}

/** Preparing takes a second of CPU for 100,000 items: who asks for another one so soon shares it. */
const PREPARED_MS = 10_000

class RecentlyPrepared {
  readonly #tools: OnDemandTools
  readonly #prepared = new Map<string, Promise<Prepared | undefined>>()

  constructor(tools: OnDemandTools) {
    this.#tools = tools
  }

  /** What the item lacks, and from where it comes. */
  async wantsOf(dataset: string, path: string, upstreams: readonly Upstream[], options: Abortable) {
    const shared = this.#prepared.get(dataset)
    for (const earlier of shared ? [shared, undefined] : [undefined]) {
      // of an earlier one that failed, of another release, or when more is lacking since: once more
      const prepared = await (earlier?.catch(() => undefined) ?? this.#prepare(dataset, upstreams, options))
      const wants = prepared?.wants.filter(({ cid, why }) => why === path && !this.#tools.store.has(cid))
      const isNewest = prepared?.revision === this.#newestOf(dataset)
      if (!earlier || (isNewest && wants && wants.length > 0)) return { prepared, wants: wants ?? [] }
    }
    return { prepared: undefined, wants: [] }
  }

  #prepare(dataset: string, upstreams: readonly Upstream[], options: Abortable) {
    const preparing = prepareDataset(dataset, { ...this.#tools, upstreams }, options)
    this.#prepared.set(dataset, preparing)
    const forget = () => this.#prepared.get(dataset) === preparing && this.#prepared.delete(dataset)
    preparing.catch(forget)
    setTimeout(forget, PREPARED_MS).unref()
    return preparing
  }

  #newestOf(dataset: string): number | undefined {
    const release = this.#tools.releases.releases().find(known => known.dataset === dataset)
    return (release?.next ?? release?.current)?.revision
  }
}

function absent(dataset: string, path: string, why: string): EdgeError {
  return new EdgeError('ITEM_ABSENT', `${dataset}/${path}: ${why}`)
}

/** Takes the batch that somebody waits for, or else the first. */
function nextOf(pending: Batch[], { wishes }: Flight): Batch | undefined {
  const wanted = new Set([...wishes].flatMap(({ position }) => position?.()?.extent ?? []))
  const at = pending.findIndex(({ steps }) =>
    steps.some(({ wants }) => wants.some(({ cid }) => wanted.has(cid))),
  )
  return pending.splice(Math.max(at, 0), 1)[0]
}

function orderOf(steps: readonly { readonly wants: readonly Want[] }[]): number {
  let least = Infinity
  for (const { wants } of steps) for (const { order } of wants) least = Math.min(least, order)
  return least
}

/** So long a step is waited for: what a fill beside it brings is not told here. */
const STEP_MS = 200

/** Progress that several wait for, each until the next step. */
class Flight {
  readonly wishes = new Set<ItemWish>()
  early: EarlyChunks | undefined
  #next = promised()
  #ended: { readonly error: unknown } | undefined

  tell(): void {
    this.#next.resolve()
    this.#next = promised()
  }

  end(error?: unknown): void {
    this.#ended = { error }
    this.#next.resolve() // whoever waits looks how it ended
  }

  /** From now on nothing that happens is missed by `next`. */
  wait(wish: ItemWish): Disposable & { next(signal: AbortSignal): Promise<void> } {
    const { promise } = this.#next
    this.wishes.add(wish)
    return {
      next: signal => this.#progress(promise, signal),
      [Symbol.dispose]: () => void this.wishes.delete(wish),
    }
  }

  async #progress(step: Promise<void>, signal: AbortSignal): Promise<void> {
    const aborted = promised<never>()
    const abort = () => aborted.reject(signal.reason as Error)
    signal.addEventListener('abort', abort, { once: true })
    const timer = setTimeout(() => this.tell(), STEP_MS)
    try {
      if (!this.#ended) await Promise.race([step, aborted.promise])
    } finally {
      clearTimeout(timer)
      signal.removeEventListener('abort', abort)
    }
    if (this.#ended?.error !== undefined) throw this.#ended.error
  }
}

/** Nobody need wait for it. */
function promised<T = void>(): PromiseWithResolvers<T> {
  const made = Promise.withResolvers<T>()
  made.promise.catch(() => undefined)
  return made
}
