/**
 * Finds, for one new extent, which of its bytes the older release has and where: chunks with equal
 * digests anchor it, and between the anchors bytes are compared one by one with the old bytes that
 * lie between the same anchors, with those of the same path, or with whatever else looks alike.
 *
 * Old bytes are compared in a pool of bounded size. What the older release has and the new one has
 * not ("gone" bytes) is loaded at once where it fits; otherwise place by place.
 */
import type { ChunkRef } from '../extent.ts'
import { type Match, type Matches, MatchPool } from './match-pool.ts'
import type { OldBytes } from './old-bytes.ts'
import type { OldItem, OldLayout } from './old-layout.ts'
import type { AddressRange } from './part.ts'

const POOL_BYTES_MAX = 48 * 1024 * 1024
/** A gap between anchors that is longer than this is looked at from both its ends only. */
const GAP_BYTES_MAX = 16 * 1024 * 1024
const MARGIN_BYTES = 64 * 1024

export class ExtentMatcher {
  readonly #layout: OldLayout
  readonly #old: OldBytes
  readonly #pool: MatchPool
  #inPool = new Set<number>()

  /** @param gone indexes of old extents that the new release does not have as they were. */
  constructor(layout: OldLayout, old: OldBytes, gone: readonly number[]) {
    this.#layout = layout
    this.#old = old
    const goneBytes = gone.reduce((sum, index) => sum + layout.extents[index]!.sizeBytes, 0)
    // Neighbours of what has gone are looked at, too, hence some more.
    this.#pool = new MatchPool(Math.min(goneBytes + 16 * 1024 * 1024, POOL_BYTES_MAX))
    this.#gone = goneBytes <= (POOL_BYTES_MAX * 3) / 4 ? gone : []
  }
  #gone: readonly number[]

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
  async find(bytes: Uint8Array, anchors: readonly Match[], expected: number, item: OldItem | undefined): Promise<Matches> {
    const runs = runsBetween(bytes.length, anchors, expected)
    await this.#load(runs.flatMap(run => this.#placesOf(run, item)))
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
      if (next >= expected && next - expected <= GAP_BYTES_MAX) return [{ from: expected - MARGIN_BYTES, to: next + MARGIN_BYTES }]
      ends.push({ from: next - length - MARGIN_BYTES, to: next + MARGIN_BYTES })
    }
    if (item && item.range.to - item.range.from <= MARGIN_BYTES * 16) ends.push(item.range)
    return ends
  }

  async #load(places: readonly AddressRange[]): Promise<void> {
    const gone = this.#gone
    this.#gone = []
    const wanted = [...new Set([...gone, ...places.flatMap(place => this.#layout.extentsIn(place))])]
    const missing = wanted.filter(index => !this.#inPool.has(index)).sort((a, b) => a - b)
    const bytes = missing.reduce((sum, index) => sum + this.#layout.extents[index]!.sizeBytes, 0)
    if (bytes > this.#pool.freeBytes) {
      this.#pool.clear()
      this.#inPool.clear()
    }
    for (const index of this.#inPool.size === 0 ? wanted.sort((a, b) => a - b) : missing) {
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
