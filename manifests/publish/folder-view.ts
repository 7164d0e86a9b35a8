/**
 * A release that is being published: the scanned folder with its catalog, as packing and delta
 * building see it. Bytes come from the folder, proven to be those that were hashed.
 */
import { codecOf, type Cid } from '../cid.ts'
import { cutExtent } from '../chunk-rule.ts'
import type { ItemDag, ReleaseView } from '../delta/release-view.ts'
import { sha256Of } from '../digest.ts'
import { EdgeError } from '../errors.ts'
import type { ChunkRef, DagNode, ExtentRef } from '../extent.ts'
import { ExtentCutter, itemDag, type CutExtent } from '../unixfs.ts'
import { chunksOfRaw, type FolderItems, type ReadExtent } from './folder-release.ts'

export class FolderView implements ReleaseView {
  readonly catalog: ItemDag
  /** All dag-pb blocks above extents. */
  readonly nodes: readonly DagNode[]
  readonly #folder: FolderItems
  readonly #catalogExtents: ReadonlyMap<Cid, ReadExtent>
  #places:
    | ReadonlyMap<Cid, { readonly path: string; readonly extent: ExtentRef; readonly offset: number }>
    | undefined
  #last: { readonly cid: Cid; readonly read: ReadExtent } | undefined

  /** @param catalog its encoded bytes. */
  constructor(folder: FolderItems, catalog: Uint8Array) {
    const extents = catalogExtents(catalog)
    const { root, nodes } = itemDag(extents.map(({ cut }) => cut.extent))
    this.#folder = folder
    this.#catalogExtents = new Map(extents.map(read => [read.cut.extent.cid, read]))
    this.nodes = [...folder.nodes, ...nodes]
    this.catalog = {
      path: '',
      sha256: sha256Of(catalog),
      root,
      sizeBytes: catalog.length,
      extents: extents.map(({ cut: { extent } }) => ({
        cid: extent.cid,
        sizeBytes: extent.sizeBytes,
        dagBytes: extent.dagBytes,
      })),
    }
  }

  get itemCount(): number {
    return this.#folder.count
  }

  items(): Iterable<ItemDag> {
    return this.#folder.dags()
  }

  /** Sizes of all extents, each once: those of items in path order, then the catalog's. */
  extentSizes(): Map<Cid, number> {
    const sizes = new Map<Cid, number>()
    for (const item of this.items()) for (const { cid, sizeBytes } of item.extents) sizes.set(cid, sizeBytes)
    for (const { cid, sizeBytes } of this.catalog.extents) sizes.set(cid, sizeBytes)
    return sizes
  }

  /** @throws EdgeError `PUBLISH_FILE_CHANGED` */
  async assertUnchanged(): Promise<void> {
    await this.#folder.assertUnchanged()
  }

  /** @throws EdgeError `PUBLISH_FILE_CHANGED` */
  async read(cid: Cid): Promise<ReadExtent> {
    if (this.#last?.cid === cid) return this.#last.read
    const read = await this.readOnce(cid)
    this.#last = { cid, read }
    return read
  }

  /** The same, not remembered: the caller may free it. @throws EdgeError `PUBLISH_FILE_CHANGED` */
  async readOnce(cid: Cid): Promise<ReadExtent> {
    return this.#catalogExtents.get(cid) ?? (await this.#readItem(cid))
  }

  async readExtent(cid: Cid): Promise<Uint8Array> {
    return (await this.read(cid)).bytes
  }

  async chunksOf(extent: ExtentRef): Promise<readonly ChunkRef[]> {
    return codecOf(extent.cid) === 'raw'
      ? chunksOfRaw(extent)
      : (await this.read(extent.cid)).cut.extent.chunks
  }

  async #readItem(cid: Cid): Promise<ReadExtent> {
    this.#places ??= placesOf(this.items())
    const place = this.#places.get(cid)
    if (!place) throw new EdgeError('CHUNK_ABSENT', `extent ${cid} is not in the folder`)
    return await this.#folder.readExtent(place.path, place.offset, place.extent)
  }
}

function placesOf(items: Iterable<ItemDag>) {
  const places = new Map<Cid, { path: string; extent: ExtentRef; offset: number }>()
  for (const { path, extents } of items) {
    let offset = 0
    for (const extent of extents) {
      if (!places.has(extent.cid)) places.set(extent.cid, { path, extent, offset })
      offset += extent.sizeBytes
    }
  }
  return places
}

function catalogExtents(catalog: Uint8Array): ReadExtent[] {
  const cutter = new ExtentCutter()
  const cuts: CutExtent[] = []
  for (const chunk of cutExtent(catalog, 'catalog-v1')) {
    const ended = cutter.add(chunk)
    if (ended) cuts.push(ended)
  }
  const last = cutter.end()
  if (last) cuts.push(last)
  let from = 0
  return cuts.map(cut => {
    from += cut.extent.sizeBytes
    return { cut, bytes: catalog.subarray(from - cut.extent.sizeBytes, from) }
  })
}
