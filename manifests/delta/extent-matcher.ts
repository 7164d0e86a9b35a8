/**
 * Finds, for one new extent, which of its bytes the older release has and where: chunks with equal
 * digests anchor it, and between the anchors bytes are compared one by one with the old bytes that
 * lie between the same anchors, with those of the same path, or with whatever else looks alike.
 *
 * Old bytes are compared in a pool of bounded size. What the older release has and the new one has
 * not ("gone" bytes) is loaded at once where it fits; otherwise place by place.
 */
import type { ChunkRef } from '../extent.ts'
import { LikenessIndex } from './likeness-index.ts'
import { type Match, type Matches, MatchPool } from './match-pool.ts'
import type { OldBytes } from './old-bytes.ts'
import type { OldItem, OldLayout } from './old-layout.ts'
import type { AddressRange } from './part.ts'

const POOL_BYTES_MAX = 48 * 1024 * 1024
/** A gap between anchors that is longer than this is looked at from both its ends only. */
const GAP_BYTES_MAX = 16 * 1024 * 1024
const MARGIN_BYTES = 64 * 1024
/** How many extents, found by what they are like, are looked at for one new extent. */
const ALIKE_EXTENTS_MAX = 4

export class ExtentMatcher {
  readonly #layout: OldLayout
  readonly #old: OldBytes
  readonly #pool: MatchPool
  readonly #index: LikenessIndex | undefined
  #inPool = new Set<number>()
  /** To be loaded first. */
  #gone: readonly number[]

  /** @param gone indexes of old extents that the new release does not have as they were, ascending. */
  static async over(layout: OldLayout, old: OldBytes, gone: readonly number[]): Promise<ExtentMatcher> {
    const goneBytes = gone.reduce((sum, index) => sum + layout.extents[index]!.sizeBytes, 0)
    // Neighbours of what has gone are looked at, too, hence some more.
    const pool = new MatchPool(Math.min(goneBytes + POOL_BYTES_MAX / 4, POOL_BYTES_MAX))
    if (goneBytes <= pool.freeBytes - POOL_BYTES_MAX / 4)
      return new ExtentMatcher(layout, old, pool, gone, undefined)
    const index = new LikenessIndex(goneBytes)
    for (const extent of gone) index.add(layout.extents[extent]!.address, await old.extent(extent))
    return new ExtentMatcher(layout, old, pool, [], index)
  }

  private constructor(
    layout: OldLayout,
    old: OldBytes,
    pool: MatchPool,
    gone: readonly number[],
    index: LikenessIndex | undefined,
  ) {
    this.#layout = layout
    this.#old = old
    this.#pool = pool
    this.#gone = gone
    this.#index = index
  }

  /** Chunks of the extent that the older release has. Neighbours are joined. */
  anchors(chunks: readonly ChunkRef[]): Match[] {
    const found: Match[] = []
    let at = 0
    for (const { digest, sizeBytes } of chunks) {
      const last = found.at(-1)
      const next = last && last.at + last.length === at ? last.address + last.length : undefined
      const address = this.#layout.addressOfChunk(digest)
      if (address !== undefined) {
        if (last && next === address) found[found.length - 1] = { ...last, length: last.length + sizeBytes }
        else found.push({ at, length: sizeBytes, address })
      }
      at += sizeBytes
    }
    return found
  }

  /**
   * All that was found, the anchors included.
   *
   * @param expected where the extent's first byte would be if nothing had changed.
   * @param item the old item of the same path, if there is one.
   */
  async find(
    bytes: Uint8Array,
    anchors: readonly Match[],
    expected: number,
    item: OldItem | undefined,
  ): Promise<Matches> {
    const runs = runsBetween(bytes.length, anchors, expected)
    const alike = runs.flatMap(run => this.#index?.lookUp(bytes, run.from, run.to) ?? [])
    await this.#load(
      runs.flatMap(run => this.#placesOf(run, item)),
      alike,
    )
    const found: Matches = { equal: [], alike: [] }
    for (const [at, run] of runs.entries()) {
      const { equal, alike } = this.#pool.matches(bytes, run.from, run.to, run.expected)
      for (const match of equal) found.equal.push(match)
      for (const likeness of alike) found.alike.push(likeness)
      const anchor = anchors[at]
      if (!anchor) continue
      found.equal.push(anchor)
      found.alike.push({ ...anchor, equalBytes: anchor.length })
    }
    return found
  }

  /** Where bytes like those of the run may be. */
  #placesOf(run: Run, item: OldItem | undefined): AddressRange[] {
    if (run.to === run.from) return []
    const length = run.to - run.from
    const { expected, next } = run
    const ends = [{ from: expected - MARGIN_BYTES, to: expected + length + MARGIN_BYTES }]
    if (next !== undefined) {
      if (next >= expected && next - expected <= GAP_BYTES_MAX)
        return [{ from: expected - MARGIN_BYTES, to: next + MARGIN_BYTES }]
      ends.push({ from: next - length - MARGIN_BYTES, to: next + MARGIN_BYTES })
    }
    if (item && item.range.to - item.range.from <= MARGIN_BYTES * 16) ends.push(item.range)
    return ends
  }

  /** Makes sure that the places are in the pool; of the extents that hold what is alike, the most alike. */
  async #load(places: readonly AddressRange[], alike: readonly number[]): Promise<void> {
    const hits = new Map<number, number>()
    for (const address of alike) {
      const index = this.#layout.extentAt(address)
      hits.set(index, (hits.get(index) ?? 0) + 1)
    }
    const most = [...hits]
      .sort(([a, some], [b, others]) => others - some || a - b)
      .slice(0, ALIKE_EXTENTS_MAX)
    const wanted = [
      ...new Set([
        ...this.#gone,
        ...places.flatMap(place => this.#layout.extentsIn(place)),
        ...most.map(([index]) => index),
      ]),
    ]
    this.#gone = []
    const missing = wanted.filter(index => !this.#inPool.has(index))
    const bytes = missing.reduce((sum, index) => sum + this.#layout.extents[index]!.sizeBytes, 0)
    const fits = bytes <= this.#pool.freeBytes
    if (!fits) {
      this.#pool.clear()
      this.#inPool.clear()
    }
    for (const index of (fits ? missing : wanted).sort((a, b) => a - b)) {
      const { address, sizeBytes } = this.#layout.extents[index]!
      if (sizeBytes > this.#pool.freeBytes) break
      this.#pool.add(address, await this.#old.extent(index))
      this.#inPool.add(index)
    }
  }
}

interface Run {
  readonly from: number
  readonly to: number
  /** The address that follows what is before the run. */
  readonly expected: number
  /** The address of what is after it. */
  readonly next?: number
}

/** What lies before, between and after the anchors: one run more than anchors, some of them empty. */
function runsBetween(sizeBytes: number, anchors: readonly Match[], expected: number): Run[] {
  const runs: Run[] = []
  let from = 0
  for (const { at, length, address } of anchors) {
    runs.push({ from, to: at, expected, next: address })
    from = at + length
    expected = address + length
  }
  runs.push({ from, to: sizeBytes, expected })
  return runs
}
