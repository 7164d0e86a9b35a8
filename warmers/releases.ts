/**
 * What filling needs to know of datasets: which release is served, which is wanted, and what of it
 * is not here. Implemented beside the library, over the store and the trust record.
 */
import type { Cid } from '../manifests/cid.ts'
import type { ChunkRule } from '../manifests/extent.ts'
import type { Manifest } from '../manifests/manifest.ts'
import type { PriorityClass } from '../node/library.ts'

export interface MissingExtent {
  readonly cid: Cid
  /** Bytes of content. */
  readonly sizeBytes: number
  readonly rule: ChunkRule
  readonly priority: PriorityClass
  /** An item that needs it; empty for the catalog. */
  readonly path: string
}

export interface Missing {
  /** Blocks that must be nodes above extents: until they are here, the extents below cannot be named. */
  readonly nodes: readonly Cid[]
  /**
   * In the order in which they should come: the catalog's, then items' by path. A dag-pb block of at
   * most 8 MiB that is not here is listed as an extent; if it is a node after all, a directory has it.
   */
  readonly extents: readonly MissingExtent[]
}

export interface DatasetReleases {
  readonly dataset: string
  /** What is served. */
  readonly current?: Manifest | undefined
  /** Accepted, and not whole yet. */
  readonly next?: Manifest | undefined
}

export interface Releases {
  releases(): readonly DatasetReleases[]
  /**
   * Takes a manifest whose bytes are what TUF says they are.
   * @throws EdgeError `MANIFEST_INVALID`, `TRUST_ROLLBACK` (a revision below one accepted before)
   */
  acceptRelease(dataset: string, manifestBytes: Uint8Array): Promise<void>
  /** Of the newest accepted release. Only the catalog's own extents until the catalog is here. */
  missing(dataset: string): Missing | Promise<Missing>
  /** Makes `next` the current release when all that must be here is (I5). @returns whether it did. */
  activateIfWhole(dataset: string): Promise<boolean>
}
