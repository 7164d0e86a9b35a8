/**
 * A pin target keeps items for good: Kubo, an S3 server. What it says of itself is never proof; a
 * read that verifies is (`prove`). Every target is also a source to heal from.
 */
import type { Cid } from '../manifests/cid.ts'
import type { Abortable, DagNode, ExtentRef } from '../manifests/extent.ts'

/** An item as pin targets see it: a tree of blocks that can be walked, extent by extent. */
export interface PinItem {
  readonly root: Cid
  readonly sizeBytes: number
  /** Upper nodes and extent nodes, no particular order. Empty for an item of one raw block. */
  nodes(options: Abortable): AsyncIterable<DagNode>
  readonly extents: readonly ExtentRef[]
  /** The extent's content, verified (I1). @throws EdgeError `CHUNK_ABSENT`, `CHUNK_CORRUPT` */
  readExtent(cid: Cid, options: Abortable): Promise<Uint8Array>
}

export interface PinTarget {
  /** For people, metrics and the ledger: `kubo`, `s3`. */
  readonly name: string
  /**
   * Keeps these items, whole. Pinning again changes nothing and transfers what is missing only.
   * @returns an entry per item that is pinned now; the rest failed, with the reason.
   * @throws EdgeError `PIN_TARGET_DOWN`
   */
  pin(items: readonly PinItem[], options: Abortable): Promise<readonly PinOutcome[]>
  /** Lets an item go; blocks that another pinned item needs stay. */
  unpin(root: Cid, options: Abortable): Promise<void>
  /** The roots that the target says it keeps. @throws EdgeError `PIN_TARGET_DOWN` */
  list(options: Abortable): AsyncIterable<Cid>
  /** Reads the whole item back and verifies it. @throws EdgeError `CHUNK_ABSENT`, `CHUNK_CORRUPT`, `PIN_TARGET_DOWN` */
  prove(item: Pick<PinItem, 'root' | 'extents'>, options: Abortable): Promise<{ readonly bytesRead: number }>
  /** Bytes that it can still take; undefined when it does not tell. */
  roomBytes(options: Abortable): Promise<number | undefined>
  /**
   * To heal from; *not* verified: whoever heals verifies. Undefined when it is not there.
   * @throws EdgeError `PIN_TARGET_DOWN`
   */
  fetchExtent(
    extent: Pick<ExtentRef, 'cid' | 'sizeBytes'>,
    options: Abortable,
  ): Promise<Uint8Array | undefined>
  fetchNode(cid: Cid, options: Abortable): Promise<Uint8Array | undefined>
}

export interface PinOutcome {
  readonly root: Cid
  /** Undefined when pinned. */
  readonly error?: Error
}
