/**
 * Everything that must be known before a dataset can be planned exactly: the directories of its
 * packs and deltas, the nodes that they bring, and the catalog. All of it is small, is fetched once,
 * and stays.
 */
import type { Cid } from '../manifests/cid.ts'
import type { Sha256 } from '../manifests/digest.ts'
import { isEdgeError } from '../manifests/errors.ts'
import type { Abortable, DagNode } from '../manifests/extent.ts'
import { deltaPath, packPath, type DeltaRef, type Manifest, type PackRef } from '../manifests/manifest.ts'
import type { ContentStore } from '../node/store/store.ts'
import { stepOf, type Demand } from './demand.ts'
import { usable } from './choose-bundles.ts'
import { findChain, loadManifest, openChain, type DeltaChain } from './delta-chain.ts'
import { openDelta, type OpenDelta } from './delta-source.ts'
import type { FetchTools } from './fetch-spans.ts'
import type { Keeps } from './keep-plan.ts'
import type { NodeStore } from './item-extents.ts'
import { planFill, BATCH_BYTES, type FillPlan, type Source, type Want } from './plan-fill.ts'
import type { DatasetReleases, Missing, MissingExtent, Releases } from './releases.ts'
import { runBatch, type BatchStore } from './run-batch.ts'
import { openPack, type DigestCache, type OpenSource } from './sources.ts'
import { bytesOf } from './spans.ts'

export interface PrepareTools extends FetchTools {
  readonly cache: DigestCache
  readonly store: BatchStore & NodeStore & Pick<ContentStore, 'admitNodes' | 'usage'>
  readonly releases: Releases
  readonly requestBytes: number
  /** See `SourceTools`. */
  readonly readAheadBytes?: number
  /** What items are worth, within their class; the catalog's order when absent. */
  readonly demand?: Demand
  /** Where not everything fits (`keep-plan.ts`). */
  readonly keeps?: Keeps | undefined
}

export interface Prepared extends Opened {
  readonly dataset: string
  readonly revision: number
  /** What is to be fetched, the catalog's left out. */
  readonly wants: readonly Want[]
}

interface Opened {
  readonly sources: readonly Source[]
  /** Deltas between older releases, whose results are bases. */
  readonly helpers: readonly Source[]
  /** Their manifests and directories: kept until the fill is whole. */
  readonly kept: readonly Sha256[]
  /** Whether a base is in memory. */
  isAtHand(cid: Cid): boolean
}

/** How many deltas to look into, when there is no way from the release we hold. */
const DELTAS_MAX = 2
/** Of a release of which we hold nothing but what other datasets have: if its head is small beside it. */
const HEAD_SHARE_MAX = 0.01
const ROUNDS_MAX = 64

/**
 * @param withoutDelta extents whose patch has failed before: packs are opened for them.
 * @throws EdgeError `PACK_INVALID`, `UPSTREAM_…`, `STORE_…`
 */
export async function prepareDataset(
  dataset: string,
  tools: PrepareTools,
  options: Abortable,
  withoutDelta: ReadonlySet<Cid> = new Set(),
): Promise<Prepared | undefined> {
  const release = tools.releases.releases().find(known => known.dataset === dataset)
  const manifest = release?.next ?? release?.current
  if (!release || !manifest) return undefined
  const sources = new Sources(release, manifest, tools, options, withoutDelta)
  let missing = await tools.releases.missing(dataset)
  for (let round = 0; round < ROUNDS_MAX && missing.nodes.length + missing.extents.length > 0; round++) {
    const hasMore = await sources.cover(missing)
    const catalog = wantsOf({ extents: missing.extents.filter(({ rule }) => rule === 'catalog-v1') }, noSteps)
    const hasCatalog = catalog.length > 0 && (await fetchCatalog(dataset, catalog, sources, tools, options))
    if (!hasMore && !hasCatalog) break
    missing = await tools.releases.missing(dataset)
  }
  const steps = stepsOf(manifest, missing, tools)
  return {
    ...sources.opened,
    dataset,
    revision: manifest.revision,
    wants: wantsOf(missing, steps).filter(keptBy(dataset, tools)),
  }
}

/** @param withoutDelta extents whose patch has failed before. @param wants all that are prepared, or some. */
export function planPrepared(
  prepared: Prepared,
  tools: PrepareTools,
  withoutDelta: ReadonlySet<Cid> = new Set(),
  wants: readonly Want[] = prepared.wants,
): FillPlan {
  const { sources, helpers, isAtHand } = prepared
  const { store, staged, upstreams, requestBytes } = tools
  return planFill({
    dataset: prepared.dataset,
    revision: prepared.revision,
    wants,
    sources: sources.map(source => (source.kind === 'delta' ? without(source, withoutDelta) : source)),
    helpers: helpers.map(source => without(source, withoutDelta)),
    holds: cid => store.has(cid) || isAtHand(cid),
    staged: path => staged.spans(path),
    cost: upstreams[0]!.cost,
    ranges: upstreams[0]!.ranges,
    batchBytes: BATCH_BYTES,
    requestBytes,
  })
}

function without(source: Source, excluded: ReadonlySet<Cid>): Source {
  return { ...source, bundleOf: cid => (excluded.has(cid) ? undefined : source.bundleOf(cid)) }
}

/** Catalogs are always wanted. */
export function keptBy(dataset: string, { keeps }: Pick<PrepareTools, 'keeps'>): (want: Want) => boolean {
  return ({ priority, why }) => priority < 0 || !keeps || keeps(dataset, why)
}

type StepOf = (extent: MissingExtent) => number

const noSteps: StepOf = () => 0

/** What each item's missing bytes would cost, and be worth. */
function stepsOf({ dataset, published }: Manifest, missing: Missing, { demand }: PrepareTools): StepOf {
  if (!demand) return noSteps
  const publishedMs = Date.parse(published)
  const sizes = new Map<string, number>()
  for (const { path, sizeBytes } of missing.extents) sizes.set(path, (sizes.get(path) ?? 0) + sizeBytes)
  const steps = new Map<string, number>()
  return ({ path, priority }) => {
    let step = steps.get(path)
    if (step === undefined) {
      step = stepOf(demand.valueOf({ dataset, path, sizeBytes: sizes.get(path)!, priority, publishedMs }))
      steps.set(path, step)
    }
    return step
  }
}

function wantsOf(missing: Pick<Missing, 'extents'>, stepOfExtent: StepOf): Want[] {
  return missing.extents.map((extent, order) => ({
    cid: extent.cid,
    sizeBytes: extent.sizeBytes,
    rule: extent.rule,
    order,
    step: extent.rule === 'catalog-v1' ? 0 : stepOfExtent(extent),
    priority: extent.rule === 'catalog-v1' ? -1 : extent.priority,
    why: extent.path || 'catalog',
  }))
}

/**
 * Small and needed to go on: done here and now, by whatever is cheapest, by frames if a patch fails.
 * @returns whether anything came.
 */
async function fetchCatalog(
  dataset: string,
  wants: readonly Want[],
  sources: Sources,
  tools: PrepareTools,
  options: Abortable,
): Promise<boolean> {
  const withoutDelta = new Set<Cid>()
  let came = false
  for (let lacking = wants; lacking.length > 0; ) {
    const prepared = { ...sources.opened, dataset, revision: sources.revision, wants: lacking }
    const plan = planPrepared(prepared, tools, withoutDelta)
    const results = []
    for (const batch of plan.batches) results.push(await runBatch(batch, tools, options))
    came ||= results.some(({ contentBytes }) => contentBytes > 0)
    lacking = results.flatMap(({ fallbacks }) => fallbacks.map(({ want }) => want))
    for (const { cid } of lacking) withoutDelta.add(cid)
    if (lacking.length > 0) while (await sources.openNextPack());
  }
  return came
}

/** Opens packs and deltas as they turn out to be needed. */
class Sources {
  readonly revision: number
  readonly #release: DatasetReleases
  readonly #manifest: Manifest
  readonly #tools: PrepareTools
  readonly #options: Abortable
  readonly #withoutDelta: ReadonlySet<Cid>
  readonly #deltas: OpenDelta[] = []
  readonly #packs: OpenSource[] = []
  #chain: DeltaChain | undefined
  #kept: readonly Sha256[] = []
  #hasDeltas = false

  constructor(
    release: DatasetReleases,
    manifest: Manifest,
    tools: PrepareTools,
    options: Abortable,
    withoutDelta: ReadonlySet<Cid>,
  ) {
    this.revision = manifest.revision
    this.#release = release
    this.#manifest = manifest
    this.#tools = tools
    this.#options = options
    this.#withoutDelta = withoutDelta
  }

  get opened(): Opened {
    return {
      sources: [...this.#deltas, ...this.#packs],
      helpers: this.#chain?.helpers ?? [],
      kept: this.#kept,
      isAtHand: cid => this.#chain?.has(cid) ?? false,
    }
  }

  /**
   * Opens what is needed, deltas before packs, until each thing missing has a source.
   * @returns whether nodes came that were missing, so that what is below them can be named.
   */
  async cover(missing: Missing): Promise<boolean> {
    const wanted = new Set([...missing.nodes, ...missing.extents.map(({ cid }) => cid)])
    const isNews = (nodes: readonly DagNode[]) => nodes.some(({ cid }) => wanted.has(cid))
    let hasNews = false
    if (!this.#hasDeltas) {
      this.#hasDeltas = true
      for (const nodes of await this.#openDeltas(missing)) hasNews = isNews(nodes) || hasNews
    }
    for (const delta of this.#deltas) hasNews = isNews(await this.#nameItems(delta)) || hasNews
    if (hasNews) return true
    while (!this.#covers(missing)) {
      const nodes = await this.openNextPack()
      if (!nodes) break
      hasNews = isNews(nodes) || hasNews
    }
    return hasNews
  }

  /** Newest first: what a release brings is in its last packs. @returns its nodes; undefined when all are open. */
  async openNextPack(): Promise<readonly DagNode[] | undefined> {
    const ref = this.#manifest.packs.at(-1 - this.#packs.length)
    if (!ref) return undefined
    const pack = await openPack(ref, { ...this.#tools, dataset: this.#manifest.dataset }, this.#options)
    this.#packs.push(pack)
    await this.#tools.store.admitNodes(pack.nodes)
    return pack.nodes
  }

  /** From the release that we hold directly, or through others; else the nearest. @returns their nodes. */
  async #openDeltas(missing: Missing): Promise<(readonly DagNode[])[]> {
    const { current } = this.#release
    const held = current?.revision
    if (
      held !== undefined &&
      held < this.revision &&
      !this.#manifest.deltas.some(({ from }) => from === held)
    ) {
      const nodes = await this.#openChain(current!)
      if (nodes) return [nodes]
    }
    const opened: (readonly DagNode[])[] = []
    for (const ref of this.#usefulDeltas(held, missing)) opened.push(await this.#openDelta(ref))
    return opened
  }

  async #openChain(current: Manifest): Promise<readonly DagNode[] | undefined> {
    const tools = { ...this.#tools, dataset: this.#manifest.dataset }
    try {
      const load = (sha256: Sha256) => loadManifest(sha256, tools, this.#options)
      const { hops, manifests } = await findChain(this.#manifest, current.revision, load)
      const bytes = this.#bytesOf(hops.map(({ ref }) => [deltaPath(ref.sha256), ref]))
      if (hops.length === 0 || bytes > this.#packBytes()) return undefined
      this.#kept = [...manifests, ...hops.map(({ ref }) => ref.directory.sha256)]
      this.#chain = await openChain(hops, current, tools, this.#options)
      const { last } = this.#chain
      this.#deltas.push(last)
      await this.#tools.store.admitNodes(last.nodes)
      return last.nodes
    } catch (error) {
      this.#options.signal.throwIfAborted()
      if (!isEdgeError(error) || error.code.startsWith('STORE_')) throw error
      return undefined
    }
  }

  /**
   * The delta from what we hold; else those from the nearest releases, whose bases we may hold in part.
   * Of a dataset that is new here, the newest one: other datasets may have what it was made from.
   */
  #usefulDeltas(held: number | undefined, { extents }: Missing): readonly DeltaRef[] {
    const { deltas, revision, catalog } = this.#manifest
    const exact = deltas.filter(({ from }) => from === held)
    if (!this.#hasRanges) {
      // all of a delta beside packs, of which all comes too, would be bought for nothing
      return exact.filter(ref => this.#bytesOf([[deltaPath(ref.sha256), ref]]) <= this.#packBytes())
    }
    if (exact.length > 0) return exact
    if (held !== undefined && held < revision)
      return deltas.toSorted((a, b) => Math.abs(a.from - held) - Math.abs(b.from - held)).slice(0, DELTAS_MAX)
    const { releases, store } = this.#tools
    const missingBytes = extents.reduce((sum, { sizeBytes }) => sum + sizeBytes, 0)
    const isNew =
      held === undefined || (releases.releases().length > 1 && missingBytes > catalog.itemBytes / 2)
    if (!isNew || store.usage().extents === 0) return []
    return deltas.slice(0, 1).filter(({ directory }) => directory.size < catalog.itemBytes * HEAD_SHARE_MAX)
  }

  get #hasRanges(): boolean {
    return this.#tools.upstreams[0]?.ranges ?? true
  }

  /**
   * What frames cost at the most; without ranges, where what is not needed comes too, what they cost at
   * the least: the packs that the release we hold has not.
   */
  #packBytes(): number {
    const { packs } = this.#manifest
    const known = new Set(this.#hasRanges ? [] : this.#release.current?.packs.map(({ sha256 }) => sha256))
    const needed = packs.filter(({ sha256 }) => !known.has(sha256))
    return this.#bytesOf(needed.map(ref => [packPath(ref.sha256), ref]))
  }

  /** Without those of which all is kept, where a file comes whole. */
  #bytesOf(files: readonly (readonly [path: string, PackRef])[]): number {
    const { staged } = this.#tools
    let bytes = 0
    for (const [path, { size }] of files)
      if (this.#hasRanges || bytesOf(staged.spans(path)) < size) bytes += size
    return bytes
  }

  async #openDelta(ref: DeltaRef): Promise<readonly DagNode[]> {
    const older = this.#release.current ? [this.#release.current] : []
    const tools = { ...this.#tools, dataset: this.#manifest.dataset }
    try {
      const delta = await openDelta(ref, this.#manifest, older, tools, this.#options)
      this.#deltas.push(delta)
      await this.#tools.store.admitNodes(delta.nodes)
      return delta.nodes
    } catch (error) {
      // there are full frames, too
      this.#options.signal.throwIfAborted()
      if (isEdgeError(error, 'DELTA_INVALID', 'NOT_FOUND', 'UPSTREAM_LIED')) return []
      throw error
    }
  }

  async #nameItems(delta: OpenDelta): Promise<readonly DagNode[]> {
    try {
      const nodes = await delta.nameItems(this.#options)
      await this.#tools.store.admitNodes(nodes)
      return nodes
    } catch (error) {
      if (isEdgeError(error, 'CHUNK_ABSENT', 'DELTA_INVALID')) return [] // the catalog is not here yet; or: frames
      throw error
    }
  }

  #covers({ nodes, extents }: Missing): boolean {
    const { store, staged } = this.#tools
    const { isAtHand, ...opened } = this.opened
    const isUsable = usable({
      ...opened,
      holds: cid => store.has(cid) || isAtHand(cid),
      staged: path => staged.spans(path),
    })
    const deltas = [...this.#deltas, ...opened.helpers]
    const byDelta = (cid: Cid) =>
      !this.#withoutDelta.has(cid) &&
      deltas.some(delta => {
        const bundle = delta.bundleOf(cid)
        return bundle !== undefined && isUsable(delta, bundle)
      })
    const brought = new Set(this.#packs.flatMap(pack => pack.nodes.map(({ cid }) => cid)))
    return (
      nodes.every(cid => brought.has(cid)) &&
      extents.every(
        ({ cid }) => byDelta(cid) || brought.has(cid) || this.#packs.some(pack => pack.bundleOf(cid)),
      )
    )
  }
}
