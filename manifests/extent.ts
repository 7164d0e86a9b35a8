/**
 * Shapes that everything shares: chunks, extents and the tree (DAG) that makes an item of them.
 *
 * An item of at most one chunk is a single raw block: its one extent *is* that chunk, `cid` is raw.
 * Otherwise every extent is a dag-pb node over its chunks, and an item of several extents has
 * upper nodes of at most 174 links above them. See docs/formats.md.
 */
import type { Cid } from './cid.ts'
import type { Sha256 } from './digest.ts'

export interface ChunkRef {
  readonly digest: Sha256
  readonly sizeBytes: number
}

/** What names an extent: enough to fetch it, and to build the nodes above it. */
export interface ExtentRef {
  readonly cid: Cid
  /** Bytes of content. */
  readonly sizeBytes: number
  /** Bytes of content plus all blocks below and including this node: dag-pb's `Tsize`. */
  readonly dagBytes: number
}

export interface Extent extends ExtentRef {
  /** In order; their sizes add up to `sizeBytes`. One chunk when `cid` is raw. */
  readonly chunks: readonly ChunkRef[]
}

/** A dag-pb block. */
export interface DagNode {
  readonly cid: Cid
  readonly bytes: Uint8Array
}

/** Which rule cut an item's bytes into chunks: content has `fastcdc-v1`, catalogs `catalog-v1`. */
export type ChunkRule = 'fastcdc-v1' | 'catalog-v1'

/** Inclusive, as in RFC 9110 §14.1.2. */
export interface ByteRange {
  readonly first: number
  readonly last: number
}

/** What waits takes this last; the caller composes signals. */
export interface Abortable {
  readonly signal: AbortSignal
}
