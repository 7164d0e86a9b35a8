/**
 * Brings what somebody asks for now: an item that is catalogued and not here, or an extent that was
 * lost. The same sources, staging and verification as a fill, ahead of what else waits for a
 * connection; a bundle that a fill fetches just now is waited for instead of fetched twice (I9).
 */
import { LRUCache } from 'lru-cache'
import { codecOf, type Cid } from '../manifests/cid.ts'
import { EdgeError, isEdgeError } from '../manifests/errors.ts'
import type { Abortable } from '../manifests/extent.ts'
import type { Manifest, PackRef } from '../manifests/manifest.ts'
import type { HealSource } from '../node/store/store.ts'
import { planFill, BATCH_BYTES, type Want } from './plan-fill.ts'
import { prepareDataset, type Prepared, type PrepareTools } from './prepare-dataset.ts'
import { runBatch } from './run-batch.ts'
import { openPack, type OpenSource } from './sources.ts'

export interface OnDemand extends HealSource {
  /**
   * Resolves as soon as some more of the item is here, in the order of its bytes; the rest goes on
   * coming. Single flight per item.
   * @throws EdgeError `ITEM_ABSENT` when it cannot be had, `UPSTREAM_…`; the signal's reason.
   */
  bring(dataset: string, path: string, options: Abortable): Promise<void>
}

export interface OnDemandTools extends PrepareTools {
  /** Whether a link is up and may be used for this: policy, battery, caps. */
  mayFetch(): boolean
  /** Ends what is under way: the node stops. */
  readonly signal: AbortSignal
}

/** Directories stay open for so long after they were used. */
const KEPT_MS = 60_000
const PACKS_MAX = 16

export function openOnDemand(tools: OnDemandTools): OnDemand {
  return new Bringer(tools)
}

class Bringer implements OnDemand {
  readonly name = 'upstream'
  readonly #tools: OnDemandTools
  readonly #prepared = new Map<
    string,
    { readonly made: Promise<Prepared | undefined>; readonly revision: number; readonly untilMs: number }
  >()
  readonly #flights = new Map<string, Flight>()
  readonly #packs = new LRUCache<string, Promise<OpenSource>>({ max: PACKS_MAX })

  constructor(tools: OnDemandTools) {
    this.#tools = tools
  }

  async bring(dataset: string, path: string, { signal }: Abortable): Promise<void> {
    if (!this.#tools.mayFetch())
      throw new EdgeError('ITEM_ABSENT', `${dataset}/${path}: no link may be used for it now`)
    const key = `${dataset}\n${path}`
    let flight = this.#flights.get(key)
    if (!flight) {
      flight = new Flight()
      this.#flights.set(key, flight)
      void this.#fetchItem(dataset, path, flight).finally(() => this.#flights.delete(key))
    }
    await flight.progress(signal)
  }

  /** An extent's bytes, not stored: whoever heals does that. */
  async fetchExtent(cid: Cid, options: Abortable): Promise<Uint8Array | undefined> {
    if (!this.#tools.mayFetch()) return undefined
    for (const { current, next } of this.#tools.releases.releases()) {
      for (const manifest of [current, next]) {
        for (const ref of manifest?.packs.toReversed() ?? []) {
          const pack = await this.#openPack(ref, manifest!.dataset)
          if (pack.bundleOf(cid)) return await this.#extentOf(manifest!, pack, cid, options)
        }
      }
    }
    return undefined
  }

  /** Single-chunk extents only: other chunks come with their extent. */
  async fetchChunk(cid: Cid, options: Abortable): Promise<Uint8Array | undefined> {
    return codecOf(cid) === 'raw' ? await this.fetchExtent(cid, options) : undefined
  }

  async #fetchItem(dataset: string, path: string, flight: Flight): Promise<void> {
    const { signal } = this.#tools
    try {
      this.#prepared.delete(dataset) // what is missing has changed since
      const prepared = await this.#prepare(dataset)
      const wants = prepared?.wants.filter(want => want.why === path) ?? []
      if (!prepared || wants.length === 0)
        throw new EdgeError('ITEM_ABSENT', `${dataset}/${path}: nothing of it can be fetched`)
      const { batches, unobtainable } = this.#plan(prepared, wants)
      if (batches.length === 0)
        throw new EdgeError(
          'ITEM_ABSENT',
          `${dataset}/${path}: no source has ${unobtainable.length} extents of it`,
        )
      const inOrder = batches.toSorted((a, b) => orderOf(a.steps) - orderOf(b.steps))
      for (const batch of inOrder) {
        await runBatch(
          batch,
          {
            ...this.#tools,
            urgent: true,
            onProgress: ({ contentBytes }) => contentBytes > 0 && flight.tell(),
          },
          { signal },
        )
        flight.tell()
      }
      flight.end()
    } catch (error) {
      flight.end(error)
    }
  }

  async #extentOf(
    { dataset, revision }: Manifest,
    pack: OpenSource,
    cid: Cid,
    options: Abortable,
  ): Promise<Uint8Array | undefined> {
    const { store } = this.#tools
    let found: Uint8Array | undefined
    const want: Want = { cid, sizeBytes: 0, rule: 'fastcdc-v1', priority: 0, step: 0, order: 0, why: 'heal' }
    // runs like any batch, but what comes out is handed over instead of stored
    const taking = {
      has: () => found !== undefined,
      readRange: store.readRange.bind(store),
      admitExtent: async (_: Cid, bytes: Uint8Array) => void (found = Uint8Array.from(bytes)),
    }
    for (const batch of this.#plan({ dataset, revision, sources: [pack] }, [want]).batches) {
      await runBatch(batch, { ...this.#tools, store: taking, urgent: true }, options)
    }
    return found
  }

  #openPack(ref: PackRef, dataset: string): Promise<OpenSource> {
    let opened = this.#packs.get(ref.sha256)
    if (!opened) {
      opened = openPack(ref, { ...this.#tools, dataset }, { signal: this.#tools.signal })
      opened.catch(() => this.#packs.delete(ref.sha256))
      this.#packs.set(ref.sha256, opened)
    }
    return opened
  }

  #plan(
    { dataset, revision, sources }: Pick<Prepared, 'dataset' | 'revision' | 'sources'>,
    wants: readonly Want[],
  ) {
    const { store, staged, upstreams, requestBytes } = this.#tools
    return planFill({
      dataset,
      revision,
      wants,
      sources,
      holds: cid => store.has(cid),
      staged: path => staged.spans(path),
      cost: upstreams[0]!.cost,
      batchBytes: BATCH_BYTES,
      requestBytes,
    })
  }

  #prepare(dataset: string): Promise<Prepared | undefined> {
    const release = this.#tools.releases.releases().find(known => known.dataset === dataset)
    const revision = (release?.next ?? release?.current)?.revision ?? 0
    const known = this.#prepared.get(dataset)
    if (known && known.revision === revision && known.untilMs > performance.now()) return known.made
    const made = prepareDataset(dataset, this.#tools, { signal: this.#tools.signal }).catch(
      (error: unknown) => {
        this.#prepared.delete(dataset)
        if (!isEdgeError(error)) throw error
        return undefined
      },
    )
    this.#prepared.set(dataset, { made, revision, untilMs: performance.now() + KEPT_MS })
    return made
  }
}

function orderOf(steps: readonly { readonly wants: readonly Want[] }[]): number {
  return steps.reduce(
    (least, { wants }) => wants.reduce((order, want) => Math.min(order, want.order), least),
    Infinity,
  )
}

/** Progress that several wait for, each until the next step. */
class Flight {
  #next = Promise.withResolvers<void>()
  #ended: { readonly error: unknown } | undefined

  constructor() {
    this.#next.promise.catch(() => undefined)
  }

  tell(): void {
    this.#next.resolve()
    this.#next = Promise.withResolvers()
    this.#next.promise.catch(() => undefined)
  }

  end(error?: unknown): void {
    this.#ended = { error }
    if (error === undefined) this.#next.resolve()
    else this.#next.reject(error)
  }

  async progress(signal: AbortSignal): Promise<void> {
    signal.throwIfAborted()
    if (this.#ended) {
      if (this.#ended.error !== undefined) throw this.#ended.error
      return
    }
    const aborted = Promise.withResolvers<never>()
    aborted.promise.catch(() => undefined)
    const abort = () => aborted.reject(signal.reason as Error)
    signal.addEventListener('abort', abort, { once: true })
    try {
      await Promise.race([this.#next.promise, aborted.promise])
    } finally {
      signal.removeEventListener('abort', abort)
    }
  }
}
