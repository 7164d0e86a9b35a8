/**
 * A published release, read back from its repository: what a delta is built from, and what tells
 * a publisher which content is there already.
 *
 * Everything it gives is verified against the manifest that it was opened with.
 */
import { parsePage, type CatalogEntry } from '../catalog.ts'
import { codecOf, digestOf, type Cid } from '../cid.ts'
import type { ItemDag, ReleaseView } from '../delta/release-view.ts'
import { EdgeError } from '../errors.ts'
import type { ChunkRef, ExtentRef } from '../extent.ts'
import type { Manifest } from '../manifest.ts'
import { parseNode } from '../unixfs.ts'
import { FrameCache } from './frame-cache.ts'
import { PackReader } from './pack-reader.ts'
import type { RepositoryStorage } from './storage.ts'

/** Levels of nodes above extents: 174^4 of them are more than any item has. */
const DEPTH_MAX = 5

export class ReleaseReader implements ReleaseView {
  readonly manifest: Manifest
  readonly packs: readonly PackReader[]
  readonly catalog: ItemDag
  readonly #upper: ReadonlyMap<Cid, Uint8Array>

  private constructor(
    manifest: Manifest,
    packs: readonly PackReader[],
    upper: ReadonlyMap<Cid, Uint8Array>,
    catalog: ItemDag,
  ) {
    this.manifest = manifest
    this.packs = packs
    this.#upper = upper
    this.catalog = catalog
  }

  /** @throws EdgeError `PACK_INVALID` when a pack is missing or damaged. */
  static async open(
    storage: RepositoryStorage,
    manifest: Manifest,
    cache: FrameCache = new FrameCache(),
  ): Promise<ReleaseReader> {
    const packs: PackReader[] = []
    for (const ref of manifest.packs) packs.push(await PackReader.open(storage, cache, ref))
    const upper = new Map(
      packs.flatMap(pack => pack.directory.nodes.map(node => [node.cid, node.bytes] as const)),
    )
    const { root, sha256, size: sizeBytes } = manifest.catalog
    const extents = await extentsOf({ root, sizeBytes }, packs, upper)
    return new ReleaseReader(manifest, packs, upper, { path: '', sha256, root, sizeBytes, extents })
  }

  /** The catalog, in path order. @throws EdgeError `CATALOG_INVALID`, `PACK_INVALID` */
  async *entries(): AsyncGenerator<CatalogEntry> {
    for (const { cid } of this.catalog.extents) yield* parsePage(await this.readExtent(cid))
  }

  async *items(): AsyncGenerator<ItemDag> {
    for await (const { path, sha256, root, sizeBytes } of this.entries()) {
      yield {
        path,
        sha256,
        root,
        sizeBytes,
        extents: await extentsOf({ root, sizeBytes }, this.packs, this.#upper),
      }
    }
  }

  async chunksOf({ cid, sizeBytes }: ExtentRef): Promise<readonly ChunkRef[]> {
    if (codecOf(cid) === 'raw') return [{ digest: digestOf(cid), sizeBytes }]
    const { links } = parseNode(await nodeOf(cid, this.packs))
    return links.map(link => ({ digest: digestOf(link.cid), sizeBytes: link.sizeBytes }))
  }

  async readExtent(cid: Cid): Promise<Uint8Array> {
    for (const pack of this.packs) {
      const bytes = await pack.extent(cid)
      if (bytes) return bytes
    }
    throw new EdgeError(
      'PACK_INVALID',
      `no pack of revision ${this.manifest.revision} has extent ${cid}, or it is damaged`,
    )
  }
}

async function extentsOf(
  item: { readonly root: Cid; readonly sizeBytes: number },
  packs: readonly PackReader[],
  upper: ReadonlyMap<Cid, Uint8Array>,
  depth = 0,
): Promise<readonly ExtentRef[]> {
  const { root, sizeBytes } = item
  if (codecOf(root) === 'raw') return [{ cid: root, sizeBytes, dagBytes: sizeBytes }]
  const above = upper.get(root)
  if (!above) return [{ cid: root, sizeBytes, dagBytes: parseNode(await nodeOf(root, packs)).dagBytes }]

  if (depth === DEPTH_MAX) throw new EdgeError('PACK_INVALID', `the tree of ${root} is too deep`)
  const node = parseNode(above)
  if (node.sizeBytes !== sizeBytes)
    throw new EdgeError('CATALOG_INVALID', `${root} has another size than the catalog says`)
  const extents: ExtentRef[] = []
  for (const link of node.links) {
    if (!upper.has(link.cid)) extents.push(link)
    else
      for (const extent of await extentsOf(
        { root: link.cid, sizeBytes: link.sizeBytes },
        packs,
        upper,
        depth + 1,
      ))
        extents.push(extent)
  }
  return extents
}

async function nodeOf(cid: Cid, packs: readonly PackReader[]): Promise<Uint8Array> {
  for (const pack of packs) {
    const bytes = await pack.nodeOf(cid)
    if (bytes) return bytes
  }
  throw new EdgeError('PACK_INVALID', `no pack has the node ${cid}`)
}
