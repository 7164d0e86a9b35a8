/**
 * What serving, listing and planning see of the content: datasets, their catalogs, and items whose
 * bytes come out verified or not at all (I1). Implemented over the store in `open-library.ts`.
 */
import type { Cid } from '../manifests/cid.ts'
import type { Sha256 } from '../manifests/digest.ts'
import type { Abortable, ByteRange } from '../manifests/extent.ts'

export type Tier = 'memory' | 'hot' | 'warm'
/** P0 health, P1 education, P2 other, P3 bulk. */
export type PriorityClass = 0 | 1 | 2 | 3

/** *authentic* is a precondition of being here at all; this is the other verdict. */
export interface Freshness {
  readonly fresh: boolean
  /** When the upstream last confirmed this metadata; ISO 8601. */
  readonly confirmedAt: string
  /** When the confirmation expires; ISO 8601. */
  readonly expiresAt: string
}

export interface DatasetView {
  readonly dataset: string
  readonly title: string
  readonly revision: number
  readonly publishedAt: string
  readonly items: number
  /** Sizes in bytes of the current revision's items: all of them, and what of them is here. */
  readonly expected: number
  readonly present: number
  readonly priority: PriorityClass
  readonly freshness: Freshness
  /** A newer revision under way. */
  readonly next?: { readonly revision: number; readonly expected: number; readonly present: number }
}

/** One row of `GET /api/v1/items`. Sizes in bytes. */
export interface ItemView {
  readonly dataset: string
  readonly path: string
  readonly size: number
  readonly sha256: Sha256
  readonly cid: Cid
  readonly mediaType: string
  readonly priority: PriorityClass
  readonly revision: number
  readonly present: number
  readonly expected: number
  readonly tier: Tier | null
  readonly verifiedAt: string | null
  readonly pinned: boolean
  readonly url: string
}

/** Part of one chunk: bytes `from` to `to` (exclusive) of the chunk are wanted. */
export interface ChunkSlice {
  readonly extent: Cid
  /** Where the chunk begins in its extent. */
  readonly offset: number
  readonly digest: Sha256
  readonly sizeBytes: number
  readonly from: number
  readonly to: number
}

export interface OpenItem {
  readonly dataset: string
  readonly path: string
  readonly revision: number
  readonly sizeBytes: number
  readonly sha256: Sha256
  readonly root: Cid
  readonly mediaType: string
  readonly publishedAtMs: number
  readonly priority: PriorityClass
  readonly freshness: Freshness

  /** Whether all bytes of `range` are here, some, or none; the slowest tier among those here. */
  residency(range: ByteRange): {
    readonly state: 'present' | 'partial' | 'absent'
    readonly tier: Tier | null
  }

  /**
   * The slices that together are `range`, in order, found lazily.
   * @throws EdgeError `RANGE_OUTSIDE_ITEM`; while iterating, `CHUNK_ABSENT` where the nodes that
   * name the chunks are not here yet.
   */
  slices(range: ByteRange): Iterable<ChunkSlice>

  /**
   * Somebody asked for `ranges` (all of it when absent), whether or not they are here: what the tiers
   * learn from. Once a request, when the bytes have been given or refused.
   */
  used(ranges?: readonly ByteRange[]): void

  /**
   * Reads the slice's whole chunk into `buffer` (at least `sizeBytes` long), synchronously, and
   * verifies it. Bytes in `buffer` must not be used when this throws.
   * @throws EdgeError `CHUNK_ABSENT`, `CHUNK_CORRUPT` (already quarantined): then ask `recover`.
   */
  readInto(slice: ChunkSlice, buffer: Buffer): void

  /** The same off the event loop's thread, for disks that may be slow. */
  read(slice: ChunkSlice, buffer: Buffer, options: Abortable): Promise<void>

  /**
   * The chunk from wherever it can be had: another tier, a pin target, the upstream. Single flight,
   * bounded in time; verified and stored again before it resolves.
   * @throws EdgeError `CHUNK_ABSENT`, `CHUNK_CORRUPT`, `ITEM_ABSENT`.
   */
  recover(slice: ChunkSlice, options: Abortable): Promise<Buffer>

  /**
   * Has what `range` lacks fetched at once, if that may be; resolves when all of it is here.
   * @throws EdgeError `ITEM_ABSENT` when it cannot be had now; the signal's reason.
   */
  bring?(range: ByteRange, options: Abortable): Promise<void>

  /**
   * Has the byte `at` fetched at once, if that may be, and what follows it.
   * @returns verified bytes from `at` on, to the end of their chunk, that came ahead of the rest of
   * their extent; undefined when the extent is here, to be read like others.
   * @throws EdgeError as `bring`.
   */
  bringFrom?(at: number, options: Abortable): Promise<Buffer | undefined>
}

export interface Library {
  datasets(): readonly DatasetView[]
  /** @throws EdgeError `DATASET_UNKNOWN`, `ITEM_UNKNOWN`, `ITEM_DENIED`, `CHUNK_ABSENT` (catalog page not here yet) */
  open(dataset: string, path: string): OpenItem
  /** By digest, in any dataset. @throws EdgeError `ITEM_UNKNOWN`, `ITEM_DENIED` */
  openDigest(sha256: Sha256): OpenItem
  /**
   * Items by dataset and path, from after the cursor on.
   * @param query words that must occur in the path, any case.
   * @throws EdgeError `DATASET_UNKNOWN`, `REQUEST_INVALID` (a cursor that we did not give)
   */
  list(request: {
    readonly dataset?: string
    readonly prefix?: string
    readonly query?: string
    readonly after?: string
    readonly limit: number
  }): { readonly items: readonly ItemView[]; readonly next: string | null }
  /** Catalogs that were just met damaged are being healed; resolves when that has ended, well or not. */
  mending?(): Promise<unknown> | undefined
  /** Seconds until a missing item may be here: for `Retry-After`. */
  retryAfterSeconds(item: OpenItem): number
}
