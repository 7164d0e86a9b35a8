/**
 * What became of requests for items: hits by tier, misses by kind, each by dataset and class, in
 * requests and bytes; and whether the hit rate has drifted from what it was.
 *
 * A miss is one of content (`fetched` while the client waited; `absent`) or of health (`unhealthy`:
 * the bytes should have been here, and could not be read or sent). Drift compares the last hours with
 * the last weeks, both decayed, and speaks up only where chance alone would hardly explain the gap.
 */
import type { OpenItem, PriorityClass } from '../library.ts'

export const OUTCOMES = ['memory', 'hot', 'warm', 'fetched', 'absent', 'unhealthy'] as const
export type ReadOutcome = (typeof OUTCOMES)[number]

export interface ReadCount {
  readonly dataset: string
  readonly priority: PriorityClass
  readonly outcome: ReadOutcome
  requests: number
  bytes: number
}

export interface Drift {
  /** Share of requests that were hits, in the last hours and in the last weeks. */
  readonly recent: number
  readonly baseline: number
  readonly alert: boolean
}

export interface ReadReport {
  readonly requests: number
  readonly objectHit: number
  readonly byteHit: number
  readonly drift: Drift
  readonly byOutcome: readonly Omit<ReadCount, 'dataset' | 'priority'>[]
  readonly byDataset: readonly ReadShare[]
  readonly byClass: readonly ReadShare[]
}

export interface ReadShare {
  readonly name: string
  readonly requests: number
  readonly objectHit: number
  readonly byteHit: number
}

/** Datasets with series of their own; the rest are counted together. */
const DATASETS_MAX = 200
const OTHERS = 'others'
/** Half-lives. */
const RECENT_MS = 3 * 3600_000
const BASELINE_MS = 14 * 24 * 3600_000
const DRIFT_REQUESTS_MIN = 200
const DRIFT_SIGMAS = 4
const DRIFT_MIN = 0.05

export class Reads {
  readonly #counts = new Map<string, ReadCount>()
  readonly #datasets = new Set<string>()
  #last: ReadCount | undefined
  readonly #recent: Decayed
  readonly #baseline: Decayed

  constructor(now: () => number) {
    this.#recent = new Decayed(RECENT_MS, now)
    this.#baseline = new Decayed(BASELINE_MS, now)
  }

  count(
    { dataset, priority }: Pick<OpenItem, 'dataset' | 'priority'>,
    outcome: ReadOutcome,
    bytes: number,
  ): void {
    let count = this.#last
    if (count?.outcome !== outcome || count.dataset !== dataset || count.priority !== priority) {
      count = this.#countOf(dataset, priority, outcome)
      this.#last = count
    }
    count.requests++
    count.bytes += bytes
    const hit = isHit(outcome)
    this.#recent.add(hit)
    this.#baseline.add(hit)
  }

  get all(): Iterable<ReadCount> {
    return this.#counts.values()
  }

  get drift(): Drift {
    const { requests, share: recent } = this.#recent
    const baseline = this.#baseline.share
    const sigma = Math.sqrt((baseline * (1 - baseline)) / Math.max(1, requests))
    const gap = Math.max(DRIFT_MIN, DRIFT_SIGMAS * sigma)
    return { recent, baseline, alert: requests >= DRIFT_REQUESTS_MIN && baseline - recent > gap }
  }

  report(): ReadReport {
    const counts = [...this.#counts.values()]
    const { requests, objectHit, byteHit } = shareOf('', counts)
    return {
      requests,
      objectHit,
      byteHit,
      drift: this.drift,
      byOutcome: OUTCOMES.map(outcome => {
        const some = counts.filter(count => count.outcome === outcome)
        return { outcome, requests: sum(some, 'requests'), bytes: sum(some, 'bytes') }
      }),
      byDataset: sharesBy(counts, ({ dataset }) => dataset),
      byClass: sharesBy(counts, ({ priority }) => `P${priority}`),
    }
  }

  #countOf(dataset: string, priority: PriorityClass, outcome: ReadOutcome): ReadCount {
    const isNew = !this.#datasets.has(dataset)
    const name = isNew && this.#datasets.size >= DATASETS_MAX ? OTHERS : dataset
    const key = `${outcome} ${priority} ${name}`
    let count = this.#counts.get(key)
    if (!count) {
      this.#datasets.add(name)
      count = { dataset: name, priority, outcome, requests: 0, bytes: 0 }
      this.#counts.set(key, count)
    }
    return count
  }
}

export function isHit(outcome: ReadOutcome): boolean {
  return outcome === 'memory' || outcome === 'hot' || outcome === 'warm'
}

/** Requests and hits that fade with time. A clock that goes back fades nothing. */
class Decayed {
  requests = 0
  #hits = 0
  #atMs = Number.NaN
  readonly #halfLifeMs: number
  readonly #now: () => number

  constructor(halfLifeMs: number, now: () => number) {
    this.#halfLifeMs = halfLifeMs
    this.#now = now
  }

  get share(): number {
    return this.requests > 0 ? this.#hits / this.requests : 1
  }

  add(hit: boolean): void {
    const now = this.#now()
    const passed = now - this.#atMs
    this.#atMs = now
    const kept = passed > 0 ? 2 ** (-passed / this.#halfLifeMs) : 1
    this.requests = this.requests * kept + 1
    this.#hits = this.#hits * kept + (hit ? 1 : 0)
  }
}

function sharesBy(counts: readonly ReadCount[], nameOf: (count: ReadCount) => string): ReadShare[] {
  const groups = Map.groupBy(counts, nameOf)
  return [...groups].map(([name, some]) => shareOf(name, some)).sort((a, b) => b.requests - a.requests)
}

function shareOf(name: string, counts: readonly ReadCount[]): ReadShare {
  const hits = counts.filter(({ outcome }) => isHit(outcome))
  const share = (what: 'requests' | 'bytes') => rounded(sum(hits, what) / Math.max(1, sum(counts, what)))
  return { name, requests: sum(counts, 'requests'), objectHit: share('requests'), byteHit: share('bytes') }
}

function sum(counts: readonly ReadCount[], what: 'requests' | 'bytes'): number {
  return counts.reduce((total, count) => total + count[what], 0)
}

function rounded(share: number): number {
  return Math.round(share * 1e4) / 1e4
}
