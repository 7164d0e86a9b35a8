/**
 * An item of the current release, open for reading. Everything that says what its bytes must be is
 * taken from the proven tree at the moment it is used.
 */
import { codecOf, digestOf, type Cid } from '../manifests/cid.ts'
import type { CatalogEntry } from '../manifests/catalog.ts'
import { EdgeError } from '../manifests/errors.ts'
import type { Abortable, ByteRange } from '../manifests/extent.ts'
import { EXTENT_BYTES_MAX } from '../manifests/unixfs.ts'
import type { ChunkSlice, Freshness, OpenItem, PriorityClass, Tier } from './library.ts'
import type { NodeView } from './store/node-view.ts'
import type { ContentStore } from './store/store.ts'

export interface ItemOrigin {
  readonly dataset: string
  readonly revision: number
  readonly publishedAtMs: number
  readonly priority: PriorityClass
  readonly freshness: () => Freshness
  readonly onRead: () => void
  /** Fetches the item until `isHere`, or bytes from `position` on are. @throws EdgeError `ITEM_ABSENT` */
  readonly bring?:
    | ((wish: Omit<BringWish, 'dataset' | 'path'>, options: Abortable) => Promise<Buffer | undefined>)
    | undefined
}

/** What somebody waits for. */
export interface BringWish {
  readonly dataset: string
  readonly path: string
  isHere(): boolean
  /** Of the first byte that is waited for, when its extent can be named. */
  position?(): { readonly extent: Cid; readonly offset: number } | undefined
}

const REMEMBERED_BYTES_MAX = 1024 * 1024

/** An extent of the item that a range touches; without a CID where a node above it is not here yet. */
interface Touched {
  readonly cid: Cid | undefined
  /** Where it begins in the item. */
  readonly start: number
  readonly sizeBytes: number
}

export class StoredItem implements OpenItem {
  readonly dataset: string
  readonly path: string
  readonly revision: number
  readonly sizeBytes: number
  readonly sha256: CatalogEntry['sha256']
  readonly root: Cid
  readonly mediaType: string
  readonly publishedAtMs: number
  readonly priority: PriorityClass
  readonly #store: ContentStore
  readonly #origin: ItemOrigin
  /** The last short range, all nodes above which are here: names of content, so they cannot go stale. */
  #walked: (ByteRange & { readonly extents: readonly Touched[] }) | undefined

  constructor(store: ContentStore, origin: ItemOrigin, entry: CatalogEntry) {
    this.#store = store
    this.#origin = origin
    this.dataset = origin.dataset
    this.revision = origin.revision
    this.publishedAtMs = origin.publishedAtMs
    this.priority = entry.priority ?? origin.priority
    this.path = entry.path
    this.sizeBytes = entry.sizeBytes
    this.sha256 = entry.sha256
    this.root = entry.root
    this.mediaType = entry.mediaType
  }

  get freshness(): Freshness {
    return this.#origin.freshness()
  }

  residency(range: ByteRange): {
    readonly state: 'present' | 'partial' | 'absent'
    readonly tier: Tier | null
  } {
    if (this.sizeBytes === 0) return { state: 'present', tier: 'hot' }
    let here = false
    let missing = false
    let tier: Tier | null = null
    const extents = this.#extentsOnce(range)
    for (const { cid } of extents) {
      const place = cid === undefined ? null : this.#store.tierOf(cid)
      if (place === null) missing = true
      else here = true
      if (place !== null && tier !== 'warm') tier = place
      if (here && missing && tier === 'warm') break
    }
    return { state: missing ? (here ? 'partial' : 'absent') : 'present', tier }
  }

  slices(range: ByteRange): Iterable<ChunkSlice> {
    if (this.sizeBytes === 0) return []
    if (range.first < 0 || range.first >= this.sizeBytes || range.last < range.first) {
      throw new EdgeError('RANGE_OUTSIDE_ITEM', `${range.first} of ${this.sizeBytes}`)
    }
    return this.#slices(range.first, Math.min(range.last + 1, this.sizeBytes))
  }

  used(ranges: readonly ByteRange[] = [{ first: 0, last: this.sizeBytes - 1 }]): void {
    if (this.sizeBytes === 0) return
    const touched = new Set<Cid>()
    for (const range of ranges) {
      for (const { cid, sizeBytes } of this.#extentsOnce(range)) {
        if (cid === undefined || touched.has(cid)) continue
        touched.add(cid)
        this.#store.touch(cid, sizeBytes)
      }
    }
  }

  readInto(slice: ChunkSlice, buffer: Buffer): void {
    this.#store.readChunkInto(slice.extent, slice.offset, slice, buffer)
  }

  async read(slice: ChunkSlice, buffer: Buffer, options: Abortable): Promise<void> {
    await this.#store.readChunk(slice.extent, slice.offset, slice, buffer, options)
  }

  async recover(slice: ChunkSlice, options: Abortable): Promise<Buffer> {
    return this.#store.healChunk(slice.extent, slice.offset, slice, options)
  }

  async bring(range: ByteRange, options: Abortable): Promise<void> {
    const isHere = () => this.#extents(range).every(({ cid }) => cid !== undefined && this.#store.has(cid))
    if (isHere()) return
    if (!this.#origin.bring) throw new EdgeError('ITEM_ABSENT', `${this.path} is not here`)
    await this.#origin.bring({ isHere }, options)
  }

  async bringFrom(at: number, options: Abortable): Promise<Buffer | undefined> {
    const extent = () => this.#extents({ first: at, last: at }).next().value as Touched | undefined
    const isHere = () => {
      const cid = extent()?.cid
      return cid !== undefined && this.#store.has(cid)
    }
    if (isHere()) return undefined
    if (!this.#origin.bring) throw new EdgeError('ITEM_ABSENT', `${this.path} is not here`)
    const position = () => {
      const { cid, start = 0 } = extent() ?? {}
      return cid && { extent: cid, offset: at - start }
    }
    return await this.#origin.bring({ isHere, position }, options)
  }

  *#slices(first: number, end: number): Generator<ChunkSlice> {
    for (const { cid, start, sizeBytes } of this.#extentsOnce({ first, last: end - 1 })) {
      if (cid === undefined) throw new EdgeError('CHUNK_ABSENT', `a node of ${this.path} is not here`)
      this.#origin.onRead()
      if (codecOf(cid) === 'raw') {
        yield { extent: cid, offset: 0, digest: digestOf(cid), sizeBytes, from: first, to: end }
        continue
      }
      const view = this.#store.view(cid)
      if (view?.over !== 'chunks' || view.sizeBytes !== sizeBytes) {
        throw new EdgeError('CHUNK_ABSENT', `node ${cid} of ${this.path} is not here`)
      }
      for (let link = view.linkAt(Math.max(0, first - start)); link < view.links; link++) {
        const offset = view.startOf(link)
        if (start + offset >= end) return
        const length = view.sizeOf(link)
        yield {
          extent: cid,
          offset,
          digest: view.digestAt(link),
          sizeBytes: length,
          from: Math.max(0, first - start - offset),
          to: Math.min(length, end - start - offset),
        }
      }
    }
  }

  /** Where a range is looked for, it is read next: the walk down the tree is not made twice. */
  #extentsOnce(range: ByteRange): Iterable<Touched> {
    if (range.last - range.first > REMEMBERED_BYTES_MAX) return this.#extents(range)
    const before = this.#walked
    if (before?.first === range.first && before.last === range.last) return before.extents
    const extents = [...this.#extents(range)]
    this.#walked = extents.every(({ cid }) => cid !== undefined) ? { ...range, extents } : undefined
    return extents
  }

  /** The extents that `range` touches, in order. */
  *#extents({ first, last }: ByteRange): Generator<Touched> {
    if (codecOf(this.root) === 'raw') yield { cid: this.root, start: 0, sizeBytes: this.sizeBytes }
    else yield* this.#below(this.root, 0, this.sizeBytes, first, Math.min(last, this.sizeBytes - 1))
  }

  *#below(cid: Cid, start: number, sizeBytes: number, first: number, last: number): Generator<Touched> {
    const view = this.#store.view(cid)
    if (!view && sizeBytes > EXTENT_BYTES_MAX) yield { cid: undefined, start, sizeBytes }
    else if (!view || view.over === 'chunks') yield { cid, start, sizeBytes }
    else {
      const overExtents = isOverExtents(view)
      for (let link = view.linkAt(Math.max(0, first - start)); link < view.links; link++) {
        const from = start + view.startOf(link)
        if (from > last) return
        const below = view.cidAt(link)
        if (overExtents) yield { cid: below, start: from, sizeBytes: view.sizeOf(link) }
        else yield* this.#below(below, from, view.sizeOf(link), first, last)
      }
    }
  }
}

function isOverExtents(view: NodeView): boolean {
  return view.sizeOf(0) <= EXTENT_BYTES_MAX
}
