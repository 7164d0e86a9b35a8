/**
 * An item's tree, walked as far as its nodes are here.
 *
 * Extents are the nodes over chunks. Whether a link leads to an extent can be told without having
 * what it leads to: levels are filled in order, so the first link of a node above another level
 * covers 174 extents and is larger than any extent can be.
 */
import { codecOf, type Cid } from '../manifests/cid.ts'
import type { ExtentRef } from '../manifests/extent.ts'
import { EXTENT_BYTES_MAX } from '../manifests/unixfs.ts'
import type { ContentStore } from './store/store.ts'

export interface WalkedItem {
  /** In order. */
  readonly extents: readonly ExtentRef[]
  /** Nodes above extents that are not here: what is below them is not in `extents`. */
  readonly unknown: readonly Cid[]
}

type Nodes = Pick<ContentStore, 'view'>

/** @param sizeBytes of the item's content. */
export function extentsUnder(store: Nodes, root: Cid, sizeBytes: number): WalkedItem {
  if (codecOf(root) === 'raw')
    return { extents: [{ cid: root, sizeBytes, dagBytes: sizeBytes }], unknown: [] }
  const extents: ExtentRef[] = []
  const unknown: Cid[] = []
  walk(store, { cid: root, sizeBytes, dagBytes: 0 }, sizeBytes > EXTENT_BYTES_MAX, extents, unknown)
  return { extents, unknown }
}

/** The nodes above extents that are here, lower ones first. */
export function upperNodes(store: Nodes, root: Cid): Cid[] {
  const view = codecOf(root) === 'raw' ? undefined : store.view(root)
  if (!view || view.over === 'chunks') return []
  const below: Cid[] = []
  if (view.sizeOf(0) > EXTENT_BYTES_MAX) {
    for (let link = 0; link < view.links; link++) below.push(...upperNodes(store, view.cidAt(link)))
  }
  return [...below, root]
}

function walk(store: Nodes, ref: ExtentRef, isUpper: boolean, extents: ExtentRef[], unknown: Cid[]): void {
  const view = store.view(ref.cid)
  if (!view && isUpper) {
    unknown.push(ref.cid)
    return
  }
  if (!view || view.over === 'chunks') {
    extents.push(ref)
    return
  }
  const overNodes = view.sizeOf(0) > EXTENT_BYTES_MAX
  for (let link = 0; link < view.links; link++) {
    const below = { cid: view.cidAt(link), sizeBytes: view.sizeOf(link), dagBytes: view.dagBytesOf(link) }
    if (overNodes) walk(store, below, true, extents, unknown)
    else extents.push(below)
  }
}
