/**
 * A release in memory, for tests and benches of deltas: items in, a ReleaseView out.
 */
import { encodeCatalog, type CatalogEntry } from '../catalog.ts'
import { cutCatalogPages } from '../catalog-page.ts'
import type { Cid } from '../cid.ts'
import { sha256Of } from '../digest.ts'
import type { ChunkRef, Extent, ExtentRef } from '../extent.ts'
import { CHUNKING, nextCut } from '../fastcdc.ts'
import { comparePaths } from '../item-path.ts'
import { ExtentCutter, itemDag } from '../unixfs.ts'
import type { ItemDag, ReleaseView } from './release-view.ts'

export interface MemoryRelease extends ReleaseView {
  readonly entries: readonly CatalogEntry[]
  readonly byCid: ReadonlyMap<Cid, Uint8Array>
  readonly all: readonly ItemDag[]
}

export function releaseOf(files: ReadonlyMap<string, Uint8Array>): MemoryRelease {
  const byCid = new Map<Cid, Uint8Array>()
  const chunks = new Map<Cid, readonly ChunkRef[]>()
  const all: ItemDag[] = []
  const entries: CatalogEntry[] = []
  for (const [path, bytes] of [...files].sort(([a], [b]) => comparePaths(a, b))) {
    const item = itemOf(path, bytes, contentEnds(bytes), byCid, chunks)
    all.push(item)
    entries.push({
      path,
      sizeBytes: bytes.length,
      sha256: item.sha256,
      root: item.root,
      mediaType: 'application/octet-stream',
    })
  }
  const catalogBytes = encodeCatalog(entries)
  const catalog = itemOf('', catalogBytes, cutCatalogPages(catalogBytes), byCid, chunks)
  return {
    entries,
    all,
    byCid,
    catalog,
    items: () => all,
    chunksOf: async ({ cid }) => chunks.get(cid)!,
    readExtent: async cid => byCid.get(cid)!,
  }
}

function itemOf(
  path: string,
  bytes: Uint8Array,
  ends: readonly number[],
  byCid: Map<Cid, Uint8Array>,
  chunksOf: Map<Cid, readonly ChunkRef[]>,
): ItemDag {
  const cutter = new ExtentCutter()
  const extents: Extent[] = []
  let from = 0
  for (const end of ends) {
    const ended = cutter.add({ digest: sha256Of(bytes.subarray(from, end)), sizeBytes: end - from })
    if (ended) extents.push(ended.extent)
    from = end
  }
  const last = cutter.end()
  if (last) extents.push(last.extent)
  let at = 0
  const refs = extents.map(({ cid, sizeBytes, dagBytes, chunks }): ExtentRef => {
    byCid.set(cid, bytes.subarray(at, at + sizeBytes))
    chunksOf.set(cid, chunks)
    at += sizeBytes
    return { cid, sizeBytes, dagBytes }
  })
  return { path, sha256: sha256Of(bytes), root: itemDag(refs).root, sizeBytes: bytes.length, extents: refs }
}

function contentEnds(bytes: Uint8Array): number[] {
  const ends: number[] = []
  for (let at = 0; at < bytes.length; ) {
    at = nextCut(bytes, at, bytes.length, CHUNKING)
    ends.push(at)
  }
  return ends
}
