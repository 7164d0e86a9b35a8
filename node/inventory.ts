/**
 * What of catalogued items is here: one question to the store for many items at once.
 */
import { codecOf, type Cid } from '../manifests/cid.ts'
import type { CatalogEntry } from '../manifests/catalog.ts'
import type { ExtentRef } from '../manifests/extent.ts'
import { extentsUnder } from './dag-walk.ts'
import type { ContentStore } from './store/store.ts'

export interface ItemInventory {
  readonly entry: CatalogEntry
  readonly presentBytes: number
  /** In order. */
  readonly missing: readonly ExtentRef[]
  /** Nodes above extents that are not here. */
  readonly unknown: readonly Cid[]
}

const NOTHING: readonly never[] = []

/** In the order of `entries`. */
export function inventoryOf(store: ContentStore, entries: readonly CatalogEntry[]): ItemInventory[] {
  const walked = entries.map(({ root, sizeBytes }) =>
    codecOf(root) === 'raw' ? undefined : extentsUnder(store, root, sizeBytes),
  )
  const asked: Cid[] = []
  for (const [at, entry] of entries.entries()) {
    const item = walked[at]
    if (item) for (const { cid } of item.extents) asked.push(cid)
    else asked.push(entry.root)
  }
  const absent = store.absentOf(asked)
  return entries.map((entry, at) => {
    const item = walked[at]
    if (!item) {
      const here = !absent.has(entry.root)
      const missing = here
        ? NOTHING
        : [{ cid: entry.root, sizeBytes: entry.sizeBytes, dagBytes: entry.sizeBytes }]
      return { entry, presentBytes: here ? entry.sizeBytes : 0, missing, unknown: NOTHING }
    }
    let presentBytes = 0
    const missing: ExtentRef[] = []
    for (const extent of item.extents) {
      if (absent.has(extent.cid)) missing.push(extent)
      else presentBytes += extent.sizeBytes
    }
    return { entry, presentBytes, missing, unknown: item.unknown }
  })
}

export function isWhole({ missing, unknown }: ItemInventory): boolean {
  return missing.length === 0 && unknown.length === 0
}
