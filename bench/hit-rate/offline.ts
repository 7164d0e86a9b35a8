/**
 * What an offline cache that knows the trace could reach: two figures after Berger, Beckmann and
 * Harchol-Balter, "Practical Bounds on Optimal Caching with Variable Object Sizes" (2018).
 *
 * Every hit is an interval between two requests for an object, and occupies its size for so long.
 * Cheapest first (size × time per hit):
 * - `bound`: as many as the space × time of the whole trace can hold. No cache can exceed it.
 * - `feasible`: only those that fit beside the ones already taken, at every moment. A real offline
 *   schedule, so the best cache lies between the two.
 */
import type { Trace } from '../trace.ts'
import { rounded, type Ratios } from './tally.ts'

interface Interval {
  readonly first: number
  /** The request that would be the hit. */
  readonly last: number
  readonly sizeBytes: number
}

/** Hits of the set that is best by requests, and of the one that is best by bytes. */
export function offlineLimits(trace: Trace, capacityBytes: number): { bound: Ratios; feasible: Ratios } {
  const intervals = intervalsOf(trace).filter(({ sizeBytes }) => sizeBytes <= capacityBytes)
  const bySpaceTime = intervals.toSorted((a, b) => spaceTimeOf(a) - spaceTimeOf(b))
  const byTime = intervals.toSorted((a, b) => a.last - a.first - (b.last - b.first))
  const bytes = trace.size.reduce((sum, size) => sum + size, 0)
  const ratios = (choose: (sorted: readonly Interval[]) => readonly Interval[]): Ratios => ({
    objectHit: rounded(choose(bySpaceTime).length / trace.key.length),
    byteHit: rounded(choose(byTime).reduce((sum, { sizeBytes }) => sum + sizeBytes, 0) / bytes),
  })
  return {
    bound: ratios(sorted => withinSpaceTime(sorted, capacityBytes * trace.key.length)),
    feasible: ratios(sorted => withinCapacity(sorted, capacityBytes, trace.key.length)),
  }
}

function intervalsOf(trace: Trace): Interval[] {
  const intervals: Interval[] = []
  const previous = new Map<number, number>()
  for (const [n, key] of trace.key.entries()) {
    const first = previous.get(key)
    if (first !== undefined) intervals.push({ first, last: n, sizeBytes: trace.size[n]! })
    previous.set(key, n)
  }
  return intervals
}

function spaceTimeOf({ first, last, sizeBytes }: Interval): number {
  return (last - first) * sizeBytes
}

function withinSpaceTime(sorted: readonly Interval[], spaceTime: number): readonly Interval[] {
  let left = spaceTime
  const end = sorted.findIndex(interval => (left -= spaceTimeOf(interval)) < 0)
  // the one that no longer fits counts whole, so that this stays a bound
  return end < 0 ? sorted : sorted.slice(0, end + 1)
}

function withinCapacity(
  sorted: readonly Interval[],
  capacityBytes: number,
  length: number,
): readonly Interval[] {
  const usage = new UsageTree(length)
  return sorted.filter(({ first, last, sizeBytes }) => {
    if (usage.highest(first, last) + sizeBytes > capacityBytes) return false
    usage.add(first, last, sizeBytes)
    return true
  })
}

/** Bytes in use at each request; ranges are half open. A segment tree without pushing down. */
class UsageTree {
  readonly #leaves: number
  readonly #added: Float64Array
  readonly #highest: Float64Array

  constructor(length: number) {
    this.#leaves = 2 ** Math.ceil(Math.log2(Math.max(2, length)))
    this.#added = new Float64Array(2 * this.#leaves)
    this.#highest = new Float64Array(2 * this.#leaves)
  }

  highest(first: number, last: number): number {
    return this.#query(1, 0, this.#leaves, first, last)
  }

  add(first: number, last: number, bytes: number): void {
    this.#update(1, 0, this.#leaves, first, last, bytes)
  }

  #query(node: number, from: number, to: number, first: number, last: number): number {
    if (last <= from || to <= first) return 0
    if (first <= from && to <= last) return this.#highest[node]!
    const middle = (from + to) / 2
    const left = this.#query(2 * node, from, middle, first, last)
    const right = this.#query(2 * node + 1, middle, to, first, last)
    return this.#added[node]! + Math.max(left, right)
  }

  #update(node: number, from: number, to: number, first: number, last: number, bytes: number): void {
    if (last <= from || to <= first) return
    if (first <= from && to <= last) {
      this.#added[node]! += bytes
      this.#highest[node]! += bytes
      return
    }
    const middle = (from + to) / 2
    this.#update(2 * node, from, middle, first, last, bytes)
    this.#update(2 * node + 1, middle, to, first, last, bytes)
    const below = Math.max(this.#highest[2 * node]!, this.#highest[2 * node + 1]!)
    this.#highest[node] = this.#added[node]! + below
  }
}
