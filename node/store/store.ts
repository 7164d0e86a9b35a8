/**
 * The store: every verified byte that this node keeps, on disk, named by what it is.
 *
 * Content comes as extents (runs of chunks, `manifests/extent.ts`); the dag-pb nodes that name their
 * chunks are kept beside them. The store says *where* bytes are. What they must be is proven at each
 * read, against a chunk's digest that the caller took from a verified node (I1).
 *
 * What was admitted is durable once the promise resolves (I3). One process owns a store; others may
 * open it to read.
 */
import type { Cid } from '../../manifests/cid.ts'
import type { Abortable, ChunkRef, ChunkRule, DagNode } from '../../manifests/extent.ts'
import type { NodeView } from './node-view.ts'
import type { TierPolicy } from './policy/policy.ts'
import type { Reservation } from './reservations.ts'

/** Why an extent may not be evicted (I4). */
export type Hold = 'pinned' | 'mustHave'
export type DiskTier = 'hot' | 'warm'
/** Why an extent is admitted that somebody waits for: it is kept if the tier policy wants it. */
export const ASKED_FOR = 'demand'

export interface ContentStore extends AsyncDisposable {
  /** The data folder. */
  readonly folder: string
  /** Another text when the database was made anew: what was derived from it (holds) has to be done again. */
  readonly generation: string
  /** Whether the extent is here: says where, proves nothing. One that is known to be damaged is not. */
  has(cid: Cid): boolean
  /** Those of `cids` that are not here; one question to the database for all of them. */
  absentOf(cids: readonly Cid[]): Set<Cid>
  tierOf(cid: Cid): DiskTier | null
  /** What is here, extent or node, with a digest that begins with `key` (16 hex digits): how deltas name things. */
  cidOfKey(key: string): Cid | undefined
  /** When all of the extent's bytes were last proven, at admission or by the scrubber; ms since 1970. */
  verifiedAtOf(cid: Cid): number | undefined
  /** Somebody asked for the extent, here or not: what the tier policy learns from. Once a request. */
  touch(cid: Cid, sizeBytes: number): void

  /**
   * A planner's view of things, in place of that before: requests per day that it expects of extents,
   * here or on their way; 0 for those that should leave first.
   */
  expect(expected: Iterable<Expected>): Promise<void>

  /** A dag-pb block, hashed again when the last time is more than a second ago. */
  node(cid: Cid): Uint8Array | undefined
  /** The same, with its links at hand. @throws EdgeError `CATALOG_INVALID` when it is no node of our form. */
  view(cid: Cid): NodeView | undefined
  /** Nodes in the order in which they came, from after number `after` on; numbers are of this generation. */
  nodesAfter(after: number, limit: number): readonly NumberedNode[]
  nodeNumbered(number: number): Cid | undefined
  /** @throws EdgeError `CHUNK_CORRUPT` when a block is not what its CID says; none is stored then. */
  admitNodes(nodes: Iterable<DagNode>): Promise<void>

  /**
   * Keeps an extent: proven against `cid` first, durable when resolved. Its node is kept, too.
   * The same extent again changes nothing, unless the one here is damaged: then it is replaced.
   *
   * @param rule how to cut the bytes when the extent's node is not here.
   * @param why for the operator who asks (I10): `fill`, `heal`, …; see `ASKED_FOR`.
   * @throws EdgeError `CHUNK_CORRUPT`, `STORE_FULL`, `STORE_READ_ONLY`
   */
  admitExtent(cid: Cid, bytes: Uint8Array, rule: ChunkRule, why: string): Promise<void>

  /**
   * The chunk at `offset` of the extent, read into `buffer` (at least `chunk.sizeBytes` long) and
   * proven, synchronously. Bytes in `buffer` must not be used when this throws.
   * @throws EdgeError `CHUNK_ABSENT`, `CHUNK_CORRUPT` (quarantined already)
   */
  readChunkInto(extent: Cid, offset: number, chunk: ChunkRef, buffer: Buffer): void
  /** The same off the event loop's thread, for disks that may be slow. */
  readChunk(extent: Cid, offset: number, chunk: ChunkRef, buffer: Buffer, options: Abortable): Promise<void>
  /** All of an extent, every chunk proven. @throws EdgeError `CHUNK_ABSENT` (its node, too), `CHUNK_CORRUPT` */
  readExtent(cid: Cid, options: Abortable): Promise<Buffer>
  /** Bytes `offset` to `offset + length` of an extent, every chunk that they touch proven. */
  readRange(cid: Cid, offset: number, length: number, options: Abortable): Promise<Buffer>

  /**
   * Sets bytes aside so that nobody reads them again: a chunk, or the whole extent when `chunk` is
   * not given. The extent counts as missing until it is healed or filled again.
   */
  quarantine(cid: Cid, why: string, chunk?: { readonly offset: number; readonly sizeBytes: number }): void
  /**
   * The chunk from wherever it can be had; proven, and the extent mended, before it resolves.
   * Single flight per extent and bounded in time; one caller leaving does not stop it for others.
   * @throws EdgeError `CHUNK_ABSENT` when no source has it in time.
   */
  healChunk(extent: Cid, offset: number, chunk: ChunkRef, options: Abortable): Promise<Buffer>
  /** The same for a dag-pb node. @throws EdgeError `CHUNK_ABSENT` */
  healNode(cid: Cid, options: Abortable): Promise<Uint8Array>
  /** Adds a place to heal from; asked in the order in which they were added. */
  onHeal(source: HealSource): void

  /** Keeps extents from eviction, or ends that (I4). Those that are not here yet are held as they come. */
  hold(cids: Iterable<Cid>, why: Hold): Promise<void>
  release(cids: Iterable<Cid>, why: Hold): Promise<void>
  /** Deletes extents and their nodes. Held ones stay. @returns bytes freed. */
  remove(cids: Iterable<Cid>, why: string): Promise<number>
  /** Deletes every extent and node that nobody uses, and ends holds that nobody wants. @returns bytes freed. */
  retain(wanted: Wanted, why: string): Promise<number>

  /**
   * Promises room for `bytes`, evicting what is worth least. Until it is disposed of, nobody else
   * gets them; what is admitted meanwhile is taken off by `Reservation.use`.
   * @throws EdgeError `STORE_FULL`; the message gives the shortfall in bytes (I7).
   */
  reserve(bytes: number, why: string): Promise<Reservation>

  /**
   * Proves everything, in rotation from where the last call ended; damage is quarantined.
   * Ends after one round, or when aborted; the position is remembered.
   */
  verify(options: VerifyOptions): AsyncGenerator<VerifyProgress>
  usage(): StoreUsage
  /** The last things that were quarantined, healed, evicted or removed, newest first (I10). */
  events(limit: number): readonly StoreEvent[]
  /** Tells of every extent that came or went and every node that came, after it is durable. */
  watch(watcher: StoreWatcher): void
  /** Resolves when what start-up left for the background is done: tables, stray files, salvage. */
  settled(): Promise<void>
}

export interface Expected {
  readonly cid: Cid
  readonly sizeBytes: number
  readonly requestsPerDay: number
}

export interface NumberedNode {
  readonly number: number
  readonly cid: Cid
}

/** Where lost blocks may be had: another tier, MinIO, Kubo, a peer, the upstream. Bytes are not trusted. */
export interface HealSource {
  readonly name: string
  /** A block: a chunk (raw) or a node (dag-pb). Undefined when it is not there. */
  fetchChunk?(cid: Cid, options: Abortable): Promise<Uint8Array | undefined>
  /** An extent's content. */
  fetchExtent?(cid: Cid, options: Abortable): Promise<Uint8Array | undefined>
}

export interface Wanted {
  isUsed(cid: Cid): boolean
  isHeld(cid: Cid): boolean
}

export interface StoreWatcher {
  extentCame?(cid: Cid, sizeBytes: number): void
  /** Evicted, removed or quarantined. */
  extentWent?(cid: Cid, sizeBytes: number): void
  nodeCame?(cid: Cid): void
  /** The database was replaced: what was here has to be asked again. */
  begunAnew?(): void
}

export interface StoreUsage {
  readonly extents: number
  readonly hotBytes: number
  readonly hotBytesMax: number
  readonly warmBytes: number
  readonly warmBytesMax: number
  /** What both may hold together now: less than their maxima where the disk has less. */
  readonly capacityBytes: number
  readonly heldBytes: number
  readonly reservedBytes: number
  readonly quarantined: number
  readonly healed: number
  /** By the name of the source; `here` is another tier. */
  readonly healedBy: Readonly<Record<string, number>>
  readonly heals: readonly HealCount[]
  /** Free bytes of the file system that the data folder is on. */
  readonly freeBytes: number
  /** Free space that content never takes. */
  readonly reserveBytes: number
  /** The oldest proof among the extents here, ms since 1970: "every byte was verified since". */
  readonly verifiedSince: number | undefined
}

export interface HealCount {
  /** What was wrong: `wrong bytes`, `too short`, `gone`, … */
  readonly cause: string
  readonly source: string
  readonly heals: number
}

export interface StoreEvent {
  readonly atMs: number
  readonly what: 'quarantined' | 'healed' | 'evicted' | 'removed' | 'demoted' | 'promoted' | 'damaged'
  /** An extent's CID, or the name of a file. */
  readonly subject: string
  readonly why: string
}

export interface VerifyOptions extends Abortable {
  /** Mend what is damaged, from the heal sources. */
  readonly heal: boolean
  /** Bytes a second at most; unbounded when absent. */
  readonly rateBytesPerSecond?: number
}

export interface VerifyProgress {
  readonly extents: number
  readonly extentsTotal: number
  readonly bytes: number
  readonly damaged: number
  readonly healed: number
  /** The last extent looked at, and what was wrong with it, if anything was. */
  readonly last?: { readonly cid: Cid; readonly finding?: string; readonly healed?: boolean }
}

export type HealElsewhere = (
  extent: Cid,
  offset: number,
  chunk: ChunkRef,
  options: Abortable,
) => Promise<Buffer>

export interface StoreOptions {
  readonly folder: string
  /** Where the warm tier is, when not inside `folder`. */
  readonly warmFolder?: string
  readonly hotBytesMax: number
  readonly warmBytesMax: number
  /** Free space that content never takes (I7). */
  readonly reserveBytes: number
  /** `reader`: another process owns the store; nothing is written. */
  readonly mode?: 'owner' | 'reader'
  /** The learned one (docs/tiers.md), when not given. Called again if the database had to be replaced. */
  readonly policy?: (capacityBytes: number, hotBytesMax: number) => TierPolicy
  /** What is fetched for somebody and not kept stays up to so many bytes, beside the capacities. */
  readonly passingBytesMax?: number
  /** Files held open for reading. */
  readonly openFilesMax?: number
  /** How long a heal may take. */
  readonly healMs?: number
  /** For a reader: asks the owner for a chunk that failed here. What it gives is proven again. */
  readonly healElsewhere?: HealElsewhere
  readonly now?: () => number
}
