/**
 * What this node wishes to be kept, and where the content for it comes from: the current releases'
 * pin policies and the operator's pins over library and store. The catalog of a dataset of which
 * anything is pinned is pinned, too: without it an empty node would not know what it has.
 */
import { matchesGlob } from 'node:path'
import type { CatalogEntry } from '../manifests/catalog.ts'
import type { Cid } from '../manifests/cid.ts'
import { EdgeError, isEdgeError } from '../manifests/errors.ts'
import type { Abortable, DagNode } from '../manifests/extent.ts'
import type { Manifest } from '../manifests/manifest.ts'
import { extentsUnder, upperNodes } from '../node/dag-walk.ts'
import { isOperatorPin } from '../node/needs.ts'
import type { NodeLibrary } from '../node/open-library.ts'
import type { ContentStore } from '../node/store/store.ts'
import type { TrustStore } from '../node/trust-store.ts'
import type { PinItem } from './pin-target.ts'
import type { WantedPin } from './plan-pins.ts'
import type { PinSource } from './reconciler.ts'

export type PinKind = 'ipfs' | 's3'

export interface PinWorld {
  readonly store: ContentStore
  readonly library: Pick<NodeLibrary, 'releases' | 'streamEntries'>
  readonly trust: Pick<TrustStore, 'record' | 'damaged'>
}

export function librarySource(world: PinWorld, kind: PinKind): PinSource {
  const { store, library, trust } = world
  return {
    async wanted({ signal }) {
      // what is wished is not known then: letting everything go would be the worst answer
      if (trust.damaged) throw new EdgeError('TRUST_STATE_DAMAGED', trust.damaged.message)
      const pins = new Map<Cid, WantedPin>()
      let complete = true
      for (const { dataset, current } of library.releases()) {
        if (!current) {
          complete = false // accepted, its catalog not here yet
          continue
        }
        try {
          for await (const entries of library.streamEntries(dataset)) {
            signal.throwIfAborted()
            addWishes(pins, current, entries, trust.record.pins, kind)
          }
        } catch (error) {
          signal.throwIfAborted()
          if (!isEdgeError(error, 'CHUNK_ABSENT', 'CHUNK_CORRUPT', 'CATALOG_INVALID')) throw error
          complete = false
        }
      }
      return { pins: [...pins.values()], complete }
    },
    item: ({ root, sizeBytes }) => storedItem(store, root, sizeBytes),
  }
}

/** An item that is wholly here, as targets see it; undefined when it is not. */
export function storedItem(store: ContentStore, root: Cid, sizeBytes: number): PinItem | undefined {
  const { extents, unknown } = extentsUnder(store, root, sizeBytes)
  if (unknown.length > 0 || store.absentOf(extents.map(({ cid }) => cid)).size > 0) return undefined
  return {
    root,
    sizeBytes,
    extents,
    async *nodes() {
      const cids = [...upperNodes(store, root), ...extents.map(({ cid }) => cid)]
      for (const cid of cids.filter(cid => !cid.startsWith('bafk'))) yield nodeOf(store, cid)
    },
    readExtent: (cid, options: Abortable) => store.readExtent(cid, options),
  }
}

function nodeOf(store: ContentStore, cid: Cid): DagNode {
  const bytes = store.node(cid)
  if (!bytes) throw new EdgeError('CHUNK_ABSENT', `node ${cid} is not here`)
  return { cid, bytes }
}

function addWishes(
  pins: Map<Cid, WantedPin>,
  { dataset, pin, catalog }: Manifest,
  entries: readonly CatalogEntry[],
  operatorPins: readonly string[],
  kind: PinKind,
): void {
  const before = pins.size
  for (const { path, root, sizeBytes } of entries) {
    const byPolicy = pin?.[kind] && (pin.paths?.some(glob => matchesGlob(path, glob)) ?? true)
    const byOperator = operatorPins.some(wish => isOperatorPin(wish, dataset, path))
    if (!byPolicy && !byOperator) continue
    if (!pins.has(root))
      pins.set(root, { root, sizeBytes, why: `${byOperator ? 'operator' : 'policy'}: ${dataset}/${path}` })
  }
  if (pins.size === before || pins.has(catalog.root)) return
  pins.set(catalog.root, { root: catalog.root, sizeBytes: catalog.size, why: `catalog: ${dataset}` })
}
