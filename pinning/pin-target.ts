/**
 * A pin target keeps items for good: Kubo, an S3 server. What it says of itself is never proof; a
 * read that verifies is (`prove`). Every target is also a source to heal from, and keeps a few small
 * named files: the repository view, and snapshots of the node's own records.
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
  /** For people, metrics and the ledger: `kubo@10.0.0.2:5001`, `s3`. */
  readonly name: string
  /**
   * Keeps these items, whole. Pinning again changes nothing and transfers what is missing only.
   * @returns an entry per item that is pinned now; the rest failed, with the reason.
   * @throws EdgeError `PIN_TARGET_DOWN`
   */
  pin(items: readonly PinItem[], options: PinOptions): Promise<readonly PinOutcome[]>
  /** What was pinned before lies on its disk when this returns, where that is not so anyway. */
  settle?(options: Abortable): Promise<void>
  /** Lets items go; blocks that another pinned item needs stay. Those that are not pinned are passed over. */
  unpin(roots: readonly Cid[], options: Abortable): Promise<void>
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
  /** Any block; a chunk only where it is a block of its own. */
  fetchBlock(cid: Cid, options: Abortable): Promise<Uint8Array | undefined>
  readonly files: PinFiles
}

export interface PinOptions extends Abortable {
  /** Transfers everything again, whatever seems to be there: what is there was found damaged. */
  readonly anew?: boolean
}

export interface PinOutcome {
  readonly root: Cid
  /** Undefined when pinned. */
  readonly error?: Error
}

/** Small files by name (`a/b.json`), replaced whole. All throw `PIN_TARGET_DOWN`. */
export interface PinFiles {
  /** Undefined when it is not there. @throws EdgeError `UPSTREAM_LIED` when it is longer than `maxBytes`. */
  read(path: string, maxBytes: number, options: Abortable): Promise<Uint8Array | undefined>
  write(path: string, bytes: Uint8Array, options: Abortable): Promise<void>
  /** Names below a folder, `repo-v1/`. */
  list(folder: string, options: Abortable): Promise<readonly string[]>
  remove(paths: readonly string[], options: Abortable): Promise<void>
}
