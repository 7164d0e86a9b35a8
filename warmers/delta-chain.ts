/**
 * The way from a release that is several behind: a chain of deltas through those between, found by
 * the manifests that each delta names. What is only needed on the way (older catalogs, the nodes of
 * older items, bases) is rebuilt when somebody asks for it, held in memory for a while, and never
 * stored.
 */
import { LRUCache } from 'lru-cache'
import type { Cid } from '../manifests/cid.ts'
import { sha256Of, type Sha256 } from '../manifests/digest.ts'
import { EdgeError, isEdgeError } from '../manifests/errors.ts'
import type { Abortable, DagNode } from '../manifests/extent.ts'
import {
  manifestPath,
  MANIFEST_BYTES_MAX,
  parseManifest,
  type DeltaRef,
  type Manifest,
} from '../manifests/manifest.ts'
import { NodeView } from '../node/store/node-view.ts'
import { openDelta, type DeltaTools, type OpenDelta } from './delta-source.ts'
import { fetchWhole } from './fetch-whole.ts'
import { extentsOf } from './item-extents.ts'
import type { ReadBase, Source } from './plan-fill.ts'

/** One delta of a chain, and the release that it makes. */
export interface Hop {
  readonly ref: DeltaRef
  readonly to: Manifest
}

export interface DeltaChain {
  /** To the release that is wanted. */
  readonly last: OpenDelta
  /** Those before it, the newest first. */
  readonly helpers: readonly Source[]
  /** Whether an older catalog's extent is in memory. */
  has(cid: Cid): boolean
}

const HOPS_MAX = 8
/** About what a manifest weighs: one is fetched only when it may save more. */
const MANIFEST_BYTES = 3 * 1024
const KEPT_BYTES = 48 * 1024 * 1024

/**
 * The deltas from release `held` to `manifest` that are the smallest together, oldest first; none when
 * there is no way. Manifests of the releases between are loaded as far as they may help.
 */
export async function findChain(
  manifest: Manifest,
  held: number,
  load: (sha256: Sha256) => Promise<Manifest | undefined>,
): Promise<{ readonly hops: readonly Hop[]; readonly manifests: readonly Sha256[] }> {
  const manifests: Sha256[] = []
  const open = new Map<number, Way>([[manifest.revision, { bytes: 0, hops: [], manifest }]])
  const settled = new Set<number>()
  for (;;) {
    const least = [...open].reduce<[number, Way] | undefined>(
      (best, way) => (best && best[1].bytes <= way[1].bytes ? best : way),
      undefined,
    )
    if (!least) return { hops: [], manifests }
    const [revision, way] = least
    if (revision === held) return { hops: way.hops, manifests }
    open.delete(revision)
    settled.add(revision)
    const known = open.get(held)
    if (way.hops.length >= HOPS_MAX || (known && way.bytes + MANIFEST_BYTES >= known.bytes)) continue
    if (way.sha256) manifests.push(way.sha256)
    const to = way.manifest ?? (way.sha256 && (await load(way.sha256)))
    for (const ref of to?.deltas ?? []) {
      const bytes = way.bytes + ref.size
      const before = open.get(ref.from)
      if (ref.from < held || settled.has(ref.from) || (before && before.bytes <= bytes)) continue
      open.set(ref.from, { bytes, hops: [{ ref, to: to! }, ...way.hops], sha256: ref.manifest })
    }
  }
}

export interface ManifestTools extends Pick<DeltaTools, 'dataset' | 'upstreams'> {
  readonly cache: Pick<DeltaTools['cache'], 'get' | 'put'>
}

interface Way {
  readonly bytes: number
  readonly hops: readonly Hop[]
  readonly manifest?: Manifest
  readonly sha256?: Sha256 | undefined
}

/** Undefined when nobody has it any more, or it is of another kind. @throws the signal's reason */
export async function loadManifest(
  sha256: Sha256,
  { cache, dataset, upstreams }: ManifestTools,
  { signal }: Abortable,
): Promise<Manifest | undefined> {
  const kept = await cache.get(sha256)
  if (kept) return parsed(kept)
  const purpose = { dataset, reason: 'manifest' }
  for (const upstream of upstreams) {
    try {
      const path = manifestPath(dataset, sha256)
      const bytes = await fetchWhole(upstream, path, { signal, purpose, maxBytes: MANIFEST_BYTES_MAX })
      if (sha256Of(bytes) !== sha256) continue
      await cache.put(sha256, bytes)
      return parsed(bytes)
    } catch (error) {
      signal.throwIfAborted()
      if (!isEdgeError(error)) throw error
    }
  }
  return undefined
}

/** One that we do not understand is as good as none. */
function parsed(bytes: Uint8Array): Manifest | undefined {
  try {
    return parseManifest(bytes)
  } catch (error) {
    if (!isEdgeError(error, 'MANIFEST_INVALID')) throw error
    return undefined
  }
}

/**
 * @param hops at least one, oldest first; the first starts from `current`.
 * @throws EdgeError `DELTA_INVALID`, `DELTA_BASE_ABSENT`, `CHUNK_…`, `CATALOG_INVALID`, `UPSTREAM_…`, `NOT_FOUND`
 */
export async function openChain(
  hops: readonly Hop[],
  current: Manifest,
  tools: DeltaTools,
  options: Abortable,
): Promise<DeltaChain> {
  const between = new Between(tools.store, options)
  const overlay = { ...tools, store: between }
  let older = current
  for (const { ref, to } of hops.slice(0, -1)) {
    const delta = await openDelta(ref, to, [older], overlay, options, between.bases())
    between.addNodes(delta.nodes)
    await between.addCatalog(delta, to, options)
    between.addNodes(await delta.nameItems(options))
    between.add(delta)
    older = to
  }
  const { ref, to } = hops.at(-1)!
  const last = await openDelta(ref, to, [older], overlay, options, between.bases())
  return { last, helpers: between.newestFirst(), has: cid => between.has(cid) }
}

/** The releases between: what is in the store, and what their deltas add. */
class Between {
  readonly #store: DeltaTools['store']
  readonly #readHere: ReadBase
  readonly #nodes = new Map<Cid, NodeView>()
  readonly #catalogs = new Map<Cid, Buffer>()
  /** Oldest first. */
  readonly #deltas: OpenDelta[] = []
  readonly #kept = new LRUCache<Cid, Uint8Array>({
    maxSize: KEPT_BYTES,
    sizeCalculation: bytes => bytes.length + 1,
  })
  readonly #flights = new Map<Cid, Promise<Uint8Array>>()

  constructor(store: DeltaTools['store'], options: Abortable) {
    this.#store = store
    this.#readHere = (cid, offset, length) => store.readRange(cid, offset, length, options)
  }

  view(cid: Cid): NodeView | undefined {
    return this.#nodes.get(cid) ?? this.#store.view(cid)
  }

  readExtent(cid: Cid, options: Abortable): Promise<Buffer> {
    const catalog = this.#catalogs.get(cid)
    return catalog ? Promise.resolve(catalog) : this.#store.readExtent(cid, options)
  }

  readRange(cid: Cid, offset: number, length: number, options: Abortable): Promise<Buffer> {
    const catalog = this.#catalogs.get(cid)
    if (catalog) return Promise.resolve(catalog.subarray(offset, offset + length))
    return this.#store.readRange(cid, offset, length, options)
  }

  cidOfKey(key: string): Cid | undefined {
    return this.#store.cidOfKey(key)
  }

  has(cid: Cid): boolean {
    return this.#catalogs.has(cid)
  }

  add(delta: OpenDelta): void {
    this.#deltas.push(delta)
  }

  addNodes(nodes: readonly DagNode[]): void {
    for (const { cid, bytes } of nodes) this.#nodes.set(cid, new NodeView(bytes))
  }

  /** Out of the delta's head and the catalog before it. */
  async addCatalog(delta: OpenDelta, { catalog }: Manifest, options: Abortable): Promise<void> {
    const extents = extentsOf(this, catalog.root, catalog.size)
    if (!extents)
      throw new EdgeError('DELTA_BASE_ABSENT', `the nodes of catalog ${catalog.root} are not here`)
    const readBase: ReadBase = (cid, offset, length) => this.readRange(cid, offset, length, options)
    for (const { cid } of extents) {
      if (delta.bundleOf(cid) === undefined) continue // it has not changed
      const bytes = await delta.rebuild(cid, readBase)
      this.#catalogs.set(cid, Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength))
    }
  }

  newestFirst(): readonly Source[] {
    return this.#deltas.toReversed()
  }

  /** What the deltas so far can make; later ones are not asked. */
  bases(): ReadBase {
    const count = this.#deltas.length
    return async (cid, offset, length) =>
      Uint8Array.prototype.slice.call(await this.#extent(cid, count), offset, offset + length)
  }

  async #extent(cid: Cid, count: number): Promise<Uint8Array> {
    const kept = this.#catalogs.get(cid) ?? this.#kept.get(cid)
    if (kept) return kept
    const flight =
      this.#flights.get(cid) ?? this.#rebuild(cid, count).finally(() => this.#flights.delete(cid))
    this.#flights.set(cid, flight)
    const bytes = await flight
    this.#kept.set(cid, bytes)
    return bytes
  }

  /** What cannot be made is as good as absent: extents that do without it are not lost. */
  async #rebuild(cid: Cid, count: number): Promise<Uint8Array> {
    let cause: unknown
    for (let at = count - 1; at >= 0; at--) {
      const delta = this.#deltas[at]!
      if (!delta.bundleOf(cid)) continue
      try {
        return await delta.rebuild(cid, this.#readHere)
      } catch (error) {
        if (!isEdgeError(error, 'DELTA_BASE_ABSENT', 'DELTA_INVALID', 'CHUNK_ABSENT')) throw error
        cause = error
      }
    }
    throw new EdgeError('DELTA_BASE_ABSENT', `no delta makes the base ${cid}`, { cause })
  }
}
