/**
 * Brings what somebody asks for now: an item that is catalogued and not here. The same sources,
 * staging and verification as a fill, ahead of what else waits for a connection; a bundle that a fill
 * fetches just now is waited for instead of fetched twice (I9).
 */
import { EdgeError } from '../manifests/errors.ts'
import type { Abortable } from '../manifests/extent.ts'
import type { Upstream } from './upstream.ts'
import { BATCH_BYTES, planFill, type Want } from './plan-fill.ts'
import { prepareDataset, type PrepareTools } from './prepare-dataset.ts'
import { runBatch } from './run-batch.ts'

export interface ItemWish {
  readonly dataset: string
  readonly path: string
  /** Whether what is waited for is here by now. */
  isHere(): boolean
}

export interface OnDemand {
  /**
   * Resolves when what is wished for is here; the rest of the item goes on coming, in the order of
   * its bytes. Single flight per item; who leaves does not stop it for others.
   * @throws EdgeError `ITEM_ABSENT` when it cannot be had now, `UPSTREAM_…`; the signal's reason.
   */
  bring(wish: ItemWish, options: Abortable): Promise<void>
}

export interface OnDemandTools extends Omit<PrepareTools, 'upstreams'> {
  /** A window to work in, on a link that is up and may be used for this; undefined when there is none. */
  open(): (Disposable & { readonly upstreams: readonly Upstream[]; readonly signal: AbortSignal }) | undefined
  /** Ends what is under way: the node stops. */
  readonly signal: AbortSignal
}

export function openOnDemand(tools: OnDemandTools): OnDemand {
  const flights = new Map<string, Flight>()
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
          void fetchItem(dataset, path, tools, flight).finally(() => flights.delete(key))
        }
        await flight.progress(signal)
      }
    },
  }
}

/** Never rejects: how it ended is told by the flight. */
async function fetchItem(dataset: string, path: string, tools: OnDemandTools, flight: Flight): Promise<void> {
  try {
    using window = tools.open()
    if (!window) throw absent(dataset, path, 'no link may be used for it now')
    const signal = AbortSignal.any([tools.signal, window.signal])
    const { upstreams } = window
    const prepared = await prepareDataset(dataset, { ...tools, upstreams }, { signal })
    const wants = prepared?.wants.filter(want => want.why === path) ?? []
    if (!prepared || wants.length === 0) throw absent(dataset, path, 'nothing of it can be fetched')
    const { batches, unobtainable } = planFill({
      ...prepared,
      wants,
      holds: cid => tools.store.has(cid),
      staged: file => tools.staged.spans(file),
      cost: upstreams[0]!.cost,
      batchBytes: BATCH_BYTES,
      requestBytes: tools.requestBytes,
    })
    const onProgress = ({ contentBytes }: { readonly contentBytes: number }) => {
      if (contentBytes > 0) flight.tell()
    }
    const lacking: Want[] = [...unobtainable]
    for (const batch of batches.toSorted((a, b) => orderOf(a.steps) - orderOf(b.steps))) {
      const { fallbacks } = await runBatch(
        batch,
        { ...tools, upstreams, urgent: true, onProgress },
        { signal },
      )
      lacking.push(...fallbacks.map(({ want }) => want))
      flight.tell()
    }
    if (lacking.length > 0) throw absent(dataset, path, `${lacking.length} extents of it cannot be had`)
    flight.end()
  } catch (error) {
    flight.end(error)
  }
}

function absent(dataset: string, path: string, why: string): EdgeError {
  return new EdgeError('ITEM_ABSENT', `${dataset}/${path}: ${why}`)
}

function orderOf(steps: readonly { readonly wants: readonly Want[] }[]): number {
  let least = Infinity
  for (const { wants } of steps) for (const { order } of wants) least = Math.min(least, order)
  return least
}

/** Progress that several wait for, each until the next step. */
class Flight {
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

  async progress(signal: AbortSignal): Promise<void> {
    const aborted = promised<never>()
    const abort = () => aborted.reject(signal.reason as Error)
    signal.addEventListener('abort', abort, { once: true })
    try {
      if (!this.#ended) await Promise.race([this.#next.promise, aborted.promise])
    } finally {
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
