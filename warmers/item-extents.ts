/**
 * What the store's nodes say: the extents of an item, and the entries of a catalog. For deltas,
 * which name bases and older items by the first bytes of their digests.
 */
import { codecOf, digestOf, type Cid } from '../manifests/cid.ts'
import { parsePage, type CatalogEntry } from '../manifests/catalog.ts'
import { EdgeError } from '../manifests/errors.ts'
import type { Abortable, ExtentRef } from '../manifests/extent.ts'
import type { Manifest } from '../manifests/manifest.ts'
import type { ContentStore } from '../node/store/store.ts'

export type NodeStore = Pick<ContentStore, 'view' | 'readExtent' | 'cidOfKey'>

/** Below this an item has one extent: extents have at least 16 chunks of at least 16 KiB. */
const ONE_EXTENT_BYTES = 16 * 16 * 1024

/** In order; undefined when nodes above them are not here. */
export function extentsOf(
  store: Pick<ContentStore, 'view'>,
  root: Cid,
  sizeBytes: number,
): ExtentRef[] | undefined {
  if (codecOf(root) === 'raw') return [{ cid: root, sizeBytes, dagBytes: sizeBytes }]
  const view = store.view(root)
  if (!view) return undefined
  if (view.over === 'chunks') {
    let dagBytes = view.bytes.length
    for (let link = 0; link < view.links; link++) dagBytes += view.dagBytesOf(link)
    return [{ cid: root, sizeBytes: view.sizeBytes, dagBytes }]
  }
  const extents: ExtentRef[] = []
  for (let link = 0; link < view.links; link++) {
    const cid = view.cidAt(link)
    const below = store.view(cid)
    if (below?.over === 'nodes') {
      const deeper = extentsOf(store, cid, view.sizeOf(link))
      if (!deeper) return undefined
      extents.push(...deeper)
    } else extents.push({ cid, sizeBytes: view.sizeOf(link), dagBytes: view.dagBytesOf(link) })
  }
  return extents
}

/**
 * All entries, in order.
 * @throws EdgeError `CHUNK_ABSENT` when the catalog is not wholly here, `CHUNK_CORRUPT`, `CATALOG_INVALID`
 */
export async function readCatalog(
  store: NodeStore,
  { catalog }: Manifest,
  options: Abortable,
): Promise<CatalogEntry[]> {
  const extents = extentsOf(store, catalog.root, catalog.size)
  if (!extents) throw new EdgeError('CHUNK_ABSENT', 'the catalog is not here yet')
  const entries: CatalogEntry[] = []
  for (const { cid } of extents)
    for (const entry of parsePage(await store.readExtent(cid, options))) entries.push(entry)
  return entries
}

/** First 8 bytes of the digest, in hex: how deltas name what a node should have. */
export function keyOf(cid: Cid): string {
  return digestOf(cid).slice(0, 16)
}

/** An older release's items and extents, by key; and whatever else is in the store, of any dataset. */
export interface OlderContent {
  extentsOfRoot(rootKey: string): readonly ExtentRef[] | undefined
  extentOfKey(key: string, sizeBytes: number): Cid | undefined
}

/** @param wanted keys of extents that will be asked for: items are only looked into for these. */
export function olderContent(
  store: Pick<ContentStore, 'view' | 'cidOfKey'>,
  items: readonly { readonly root: Cid; readonly sizeBytes: number }[],
  wanted: ReadonlySet<string>,
): OlderContent {
  const byKey = new Map<string, Cid | undefined>()
  const roots = new Map(items.map(item => [keyOf(item.root), item]))
  for (const [key, { root }] of roots) if (wanted.has(key)) byKey.set(key, root)
  const parts = items.filter(({ sizeBytes }) => sizeBytes > ONE_EXTENT_BYTES)
  for (const { root, sizeBytes } of byKey.size < wanted.size ? parts : []) {
    for (const { cid } of extentsOf(store, root, sizeBytes) ?? []) {
      const key = keyOf(cid)
      if (wanted.has(key)) byKey.set(key, cid)
    }
  }
  return {
    extentsOfRoot(rootKey) {
      const item = roots.get(rootKey)
      if (item) return extentsOf(store, item.root, item.sizeBytes)
      const root = store.cidOfKey(rootKey)
      return root && extentsOf(store, root, store.view(root)?.sizeBytes ?? 0)
    },
    extentOfKey(key) {
      if (!byKey.has(key)) byKey.set(key, store.cidOfKey(key))
      return byKey.get(key)
    },
  }
}
