/**
 * What building a delta needs to see of a release: its items, their extents, and their bytes.
 */
import type { Cid } from '../cid.ts'
import type { Sha256 } from '../digest.ts'
import type { ChunkRef, ExtentRef } from '../extent.ts'

export interface ItemDag {
  readonly path: string
  readonly sha256: Sha256
  readonly root: Cid
  readonly sizeBytes: number
  /** In order, at least one; a single one is the root itself. */
  readonly extents: readonly ExtentRef[]
}

export interface ReleaseView {
  /** The catalog itself; its `path` is empty. */
  readonly catalog: ItemDag
  /** In catalog order; may be called more than once. */
  items(): Iterable<ItemDag> | AsyncIterable<ItemDag>
  chunksOf(extent: ExtentRef): Promise<readonly ChunkRef[]>
  readExtent(cid: Cid): Promise<Uint8Array>
}
