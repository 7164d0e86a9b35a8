/**
 * Everything that must be known before a dataset can be planned exactly: the directories of its
 * packs and deltas, the nodes that they bring, and the catalog. All of it is small, is fetched once,
 * and stays.
 */
import type { Cid } from '../manifests/cid.ts'
import type { Abortable } from '../manifests/extent.ts'
import type { DeltaRef, Manifest } from '../manifests/manifest.ts'
import type { ContentStore } from '../node/store/store.ts'
import { openDelta, type OpenDelta } from './delta-source.ts'
import { planFill, BATCH_BYTES, type FillPlan, type PlanInput, type Want } from './plan-fill.ts'
import type { DatasetReleases, Missing, Releases } from './releases.ts'
import { runBatch, type BatchStore } from './run-batch.ts'
import { openPack, type DigestCache, type OpenPack } from './sources.ts'
import type { FetchTools } from './fetch-spans.ts'

export interface PrepareTools extends FetchTools {
  readonly cache: DigestCache
  readonly store: BatchStore & Pick<ContentStore, 'admitNodes'>
  readonly releases: Releases
  readonly requestBytes: number
}

export interface Prepared {
  readonly dataset: string
  readonly revision: number
  readonly missing: Missing
  readonly packs: readonly OpenPack[]
  readonly deltas: readonly OpenDelta[]
}

/** From how many older revisions' deltas to choose, when none is from exactly ours. */
const DELTAS_MAX = 2
const ROUNDS_MAX = 64

/**
 * @param withoutDelta extents whose patch has failed before: packs are opened for them.
 * @throws EdgeError `PACK_INVALID`, `DELTA_INVALID`, `UPSTREAM_…`, `STORE_…`
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
  let missing = tools.releases.missing(dataset)
  for (let round = 0; round < ROUNDS_MAX && isAny(missing); round++) {
    const unknown = await sources.cover(missing)
    const catalog = wantsOf(missing).filter(({ priority }) => priority === -1)
    if (catalog.length > 0) await fetchCatalog(dataset, catalog, sources, tools, options)
    const before = missing
    missing = tools.releases.missing(dataset)
    if (catalog.length === 0 && (missing.nodes.length === 0 || missing.nodes.length === before.nodes.length || unknown)) break
  }
  const { packs, deltas } = sources
  return { dataset, revision: manifest.revision, missing, packs, deltas }
}

/** @param withoutDelta extents whose patch has failed before. */
export function planPrepared(prepared: Prepared, tools: PrepareTools, withoutDelta: ReadonlySet<Cid> = new Set()): FillPlan {
  return planFill(inputOf(prepared, wantsOf(prepared.missing), tools, withoutDelta))
}

function inputOf(
  { dataset, revision, packs, deltas }: Omit<Prepared, 'missing'>,
  wants: readonly Want[],
  { store, staged, upstreams, requestBytes }: PrepareTools,
  withoutDelta: ReadonlySet<Cid>,
): PlanInput {
  return {
    dataset,
    revision,
    wants,
    packs,
    deltas: deltas.map(delta => ({ ...delta, recipeOf: cid => (withoutDelta.has(cid) ? undefined : delta.recipeOf(cid)) })),
    holds: cid => store.has(cid),
    staged: path => staged.spans(path),
    cost: upstreams[0]!.cost,
    batchBytes: BATCH_BYTES,
    requestBytes,
  }
}

function wantsOf(missing: Missing): Want[] {
  return missing.extents.map(({ cid, sizeBytes, rule, priority, path }, order) => ({
    cid,
    sizeBytes,
    rule,
    order,
    priority: rule === 'catalog-v1' ? -1 : priority,
    why: path || 'catalog',
  }))
}

function isAny({ nodes, extents }: Missing): boolean {
  return nodes.length + extents.length > 0
}

/** Small and needed to go on: done here and now, by whatever is cheapest, frames if a patch fails. */
async function fetchCatalog(dataset: string, wants: readonly Want[], sources: Sources, tools: PrepareTools, options: Abortable): Promise<void> {
  const withoutDelta = new Set<Cid>()
  for (let lacking = wants; lacking.length > 0; ) {
    const { packs, deltas, revision } = sources
    const plan = planFill(inputOf({ dataset, revision, packs, deltas }, lacking, tools, withoutDelta))
    if (plan.batches.length === 0) return
    const results = []
    for (const batch of plan.batches) results.push(await runBatch(batch, tools, options))
    lacking = results.flatMap(({ fallbacks }) => fallbacks.map(({ want }) => want))
    for (const { cid } of lacking) withoutDelta.add(cid)
    if (lacking.length > 0) await sources.openAllPacks()
  }
}

/** Opens packs and deltas as they turn out to be needed. */
class Sources {
  readonly packs: OpenPack[] = []
  readonly deltas: OpenDelta[] = []
  readonly revision: number
  readonly #manifest: Manifest
  readonly #tools: PrepareTools
  readonly #options: Abortable
  readonly #withoutDelta: ReadonlySet<Cid>
  #deltasToOpen: readonly DeltaRef[]

  constructor(
    { current }: DatasetReleases,
    manifest: Manifest,
    tools: PrepareTools,
    options: Abortable,
    withoutDelta: ReadonlySet<Cid>,
  ) {
    this.revision = manifest.revision
    this.#manifest = manifest
    this.#tools = tools
    this.#options = options
    this.#withoutDelta = withoutDelta
    this.#deltasToOpen = usefulDeltas(manifest, current?.revision)
  }

  /** Opens sources, cheapest first, until each thing missing has one. @returns whether something has none. */
  async cover(missing: Missing): Promise<boolean> {
    for (const ref of this.#deltasToOpen) {
      const delta = await openDelta(ref, this.#sourceTools(), this.#options)
      this.deltas.push(delta)
      await this.#tools.store.admitNodes(delta.nodes)
    }
    this.#deltasToOpen = []
    while (!this.#covers(missing) && this.packs.length < this.#manifest.packs.length) await this.#openNextPack()
    return !this.#covers(missing)
  }

  async openAllPacks(): Promise<void> {
    while (this.packs.length < this.#manifest.packs.length) await this.#openNextPack()
  }

  #covers({ nodes, extents }: Missing): boolean {
    const { store } = this.#tools
    const brought = new Set([...this.packs, ...this.deltas].flatMap(source => source.nodes.map(({ cid }) => cid)))
    const patched = (cid: Cid) =>
      !this.#withoutDelta.has(cid) && this.deltas.some(delta => delta.recipeOf(cid)?.bases.every(base => store.has(base)))
    return (
      nodes.every(cid => brought.has(cid)) && extents.every(({ cid }) => patched(cid) || this.packs.some(pack => pack.frameOf(cid)))
    )
  }

  async #openNextPack(): Promise<void> {
    const ref = this.#manifest.packs.at(-1 - this.packs.length)!
    const pack = await openPack(ref, this.#sourceTools(), this.#options)
    this.packs.push(pack)
    await this.#tools.store.admitNodes(pack.nodes)
  }

  #sourceTools() {
    return { ...this.#tools, dataset: this.#manifest.dataset }
  }
}

/** The delta from what we hold; else those from the nearest older revisions, whose bases we may hold in part. */
function usefulDeltas({ deltas, revision }: Manifest, held: number | undefined): readonly DeltaRef[] {
  if (held === undefined || held >= revision) return []
  const exact = deltas.filter(({ from }) => from === held)
  if (exact.length > 0) return exact
  return deltas.toSorted((a, b) => Math.abs(a.from - held) - Math.abs(b.from - held)).slice(0, DELTAS_MAX)
}
