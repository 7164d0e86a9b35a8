/**
 * The older release as one long line of bytes: its items' extents laid end to end in catalog
 * order. An address is a place on that line. Matches, gaps and dictionaries are ranges of
 * addresses while a delta is built; they become bases and offsets at the very end.
 */
import type { Cid } from '../cid.ts'
import type { Sha256 } from '../digest.ts'
import type { ExtentRef } from '../extent.ts'
import { comparePaths } from '../item-path.ts'
import type { AddressRange } from './part.ts'
import type { ItemDag, ReleaseView } from './release-view.ts'

export interface OldExtent extends ExtentRef {
  readonly address: number
  /** Set for what is no extent: the expanded form of the deflate stream that lies there. */
  readonly stream?: AddressRange
}

export interface OldItem {
  readonly path: string
  readonly root: Cid
  /** Its extents are `firstExtent` to `firstExtent + extentCount - 1`. */
  readonly firstExtent: number
  readonly extentCount: number
  readonly range: AddressRange
}

/** More chunks than this (64 GiB) are not indexed: memory stays bounded, moves beyond cost more. */
const CHUNKS_MAX = 1_000_000
/** So far behind the last extent that no range around an extent reaches a stream. */
const STREAMS_APART_BYTES = 2 ** 40

export class OldLayout {
  readonly extents: OldExtent[] = []
  /** By path; the catalog is not among them. */
  readonly items: OldItem[] = []
  catalog: OldItem | undefined
  readonly #roots = new Set<Cid>()
  readonly #extentOf = new Map<Cid, number>()
  readonly #addressOf = new Map<number, number>()
  readonly #streams = new Map<number, number>()
  #end = 0

  static async of(view: ReleaseView): Promise<OldLayout> {
    const layout = new OldLayout()
    layout.catalog = layout.#add(view.catalog)
    for await (const item of view.items()) layout.items.push(layout.#add(item))
    for (const extent of layout.extents) {
      if (layout.#addressOf.size > CHUNKS_MAX) break
      let { address } = extent
      for (const { digest, sizeBytes } of await view.chunksOf(extent)) {
        const key = chunkKey(digest)
        if (!layout.#addressOf.has(key)) layout.#addressOf.set(key, address)
        address += sizeBytes
      }
    }
    return layout
  }

  get sizeBytes(): number {
    return this.#end
  }

  hasRoot(root: Cid): boolean {
    return this.#roots.has(root)
  }

  /** The item that has this extent, `preferred` if it has it, too, and the extent's place among its extents. */
  ownerOf(
    index: number,
    preferred: OldItem | undefined,
  ): { readonly item: OldItem; readonly position: number } | undefined {
    const { cid } = this.extents[index]!
    if (preferred) {
      const end = preferred.firstExtent + preferred.extentCount
      for (let at = preferred.firstExtent; at < end; at++) {
        if (this.extents[at]!.cid === cid) return { item: preferred, position: at - preferred.firstExtent }
      }
    }
    let first = 0
    let last = this.items.length - 1
    while (first < last) {
      const middle = (first + last + 1) >> 1
      if (this.items[middle]!.firstExtent <= index) first = middle
      else last = middle - 1
    }
    const item = this.items[first]
    return item && index >= item.firstExtent ? { item, position: index - item.firstExtent } : undefined
  }

  /**
   * Makes a deflate stream's expanded bytes addressable, far behind all extents.
   * @returns its index among the extents.
   */
  addStream(stream: AddressRange, rawBytes: number): number {
    const known = this.#streams.get(stream.from)
    if (known !== undefined) return known
    const last = this.extents.at(-1)!
    const address = last.stream ? last.address + last.sizeBytes : this.#end + STREAMS_APART_BYTES
    const { cid } = this.extents[this.extentAt(stream.from)]!
    const index = this.extents.push({ cid, sizeBytes: rawBytes, dagBytes: 0, address, stream }) - 1
    this.#streams.set(stream.from, index)
    return index
  }

  has(cid: Cid): boolean {
    return this.#extentOf.has(cid)
  }

  extentIndexOf(cid: Cid): number | undefined {
    return this.#extentOf.get(cid)
  }

  /** Where a chunk's bytes begin: the first place that has them. */
  addressOfChunk(digest: Sha256): number | undefined {
    return this.#addressOf.get(chunkKey(digest))
  }

  /** Index of the extent that has this address; the last one for the end of the line. */
  extentAt(address: number): number {
    let first = 0
    let last = this.extents.length - 1
    while (first < last) {
      const middle = (first + last + 1) >> 1
      if (this.extents[middle]!.address <= address) first = middle
      else last = middle - 1
    }
    return first
  }

  /** Indexes of the extents that have bytes in the range, in order. */
  extentsIn({ from, to }: AddressRange): number[] {
    const found: number[] = []
    if (to <= from) return found
    for (let at = this.extentAt(Math.max(from, 0)); at < this.extents.length; at++) {
      const { address, sizeBytes } = this.extents[at]!
      if (address >= to) break
      if (address + sizeBytes > from) found.push(at)
    }
    return found
  }

  itemAt(path: string): OldItem | undefined {
    const item = this.items[this.#placeOf(path)]
    return item?.path === path ? item : undefined
  }

  /** Where an item of this path is, or would be. */
  addressOfPath(path: string): number {
    return this.items[this.#placeOf(path)]?.range.from ?? this.#end
  }

  /** Index of the first item whose path is not before `path`. */
  #placeOf(path: string): number {
    let first = 0
    let end = this.items.length
    while (first < end) {
      const middle = (first + end) >> 1
      if (comparePaths(this.items[middle]!.path, path) < 0) first = middle + 1
      else end = middle
    }
    return first
  }

  #add({ path, root, extents }: ItemDag): OldItem {
    this.#roots.add(root)
    const from = this.#end
    const firstExtent = this.extents.length
    for (const { cid, sizeBytes, dagBytes } of extents) {
      if (!this.#extentOf.has(cid)) this.#extentOf.set(cid, this.extents.length)
      this.extents.push({ cid, sizeBytes, dagBytes, address: this.#end })
      this.#end += sizeBytes
    }
    return { path, root, firstExtent, extentCount: extents.length, range: { from, to: this.#end } }
  }
}

/** 52 bits of a digest: enough for millions; what comes out is checked before it is published. */
function chunkKey(digest: Sha256): number {
  return Number.parseInt(digest.slice(0, 13), 16)
}
