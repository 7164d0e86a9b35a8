/**
 * What an item is worth: the one notion of value that the planner (what to fetch) and the tiers (what
 * to keep) share. Value = expected requests per day × weight of its class / size^exponent.
 *
 * What is expected is learned, in wall time, from all items of the catalogs: how often is an item
 * asked for that was asked for so often (decayed) and so long ago, or never, and was published so
 * long ago? Neighbours' demand counts as a part of our own, where they share it (counts only).
 * Pure: who asked for what, and the time, are handed in.
 */
import { HazardTable } from '../node/store/policy/hazard-table.ts'

/** Requests for one item; counts are decayed to the time of the last one. */
export interface Asked {
  readonly requests: number
  readonly lastSeconds: number
}

export interface Prospect {
  readonly publishedSeconds: number
  /** Undefined: nobody ever asked for it. */
  readonly asked: Asked | undefined
}

/**
 * What a request of classes P0 to P3 is worth beside others: 16 : 4 : 1 : ¼, to the power that serves the
 * first class nearly as if it stood alone (docs/tiers.md).
 */
export const CLASS_WEIGHTS = [leaned(16), leaned(4), 1, leaned(0.25)] as const
/**
 * 1 counts requests, 0 counts bytes. Where bytes come through windows, .6 keeps most of both (docs/tiers.md).
 */
export const SIZE_EXPONENT = 0.6

const DAY_SECONDS = 86_400
/** Large ones looked at a second time, per plan. */
const EXCHANGES_MAX = 200
const HALF_LIFE_SECONDS = 7 * DAY_SECONDS
/** What a neighbour's request says, in requests of our own. More is worse: a third costs 1 to 2 points. */
const NEARBY = 0.1

export function leaned(weight: number): number {
  return weight ** 1.5
}

export function asked(before: Asked | undefined, nowSeconds: number, times = 1): Asked {
  if (before === undefined) return { requests: times, lastSeconds: nowSeconds }
  const age = nowSeconds - before.lastSeconds
  // reports may come late, and clocks go back: the count decays only forward
  const kept = before.requests * 2 ** (-Math.max(0, age) / HALF_LIFE_SECONDS)
  const late = 2 ** (Math.min(0, age) / HALF_LIFE_SECONDS)
  return { requests: kept + times * late, lastSeconds: Math.max(nowSeconds, before.lastSeconds) }
}

/** The same for requests at a neighbour. */
export function askedNearby(before: Asked | undefined, nowSeconds: number, times: number): Asked {
  return asked(before, nowSeconds, times * NEARBY)
}

export function valueOf(requestsPerDay: number, sizeBytes: number, weight: number): number {
  return (requestsPerDay * weight) / Math.max(1, sizeBytes) ** SIZE_EXPONENT
}

export interface Candidate {
  readonly key: number
  readonly sizeBytes: number
  readonly value: number
}

/**
 * What to hold when the next window ends, of all that is here or could be fetched: greedy by value,
 * then each large one that did not fit takes the place of several that are worth less together.
 * @returns keys in the order in which to fetch them, most valuable per byte first.
 */
export function planKeep(candidates: readonly Candidate[], capacityBytes: number): Set<number> {
  const kept = new Set<Candidate>()
  const skipped: Candidate[] = []
  let room = capacityBytes
  for (const candidate of candidates.toSorted((a, b) => b.value - a.value)) {
    if (candidate.sizeBytes <= room) {
      room -= candidate.sizeBytes
      kept.add(candidate)
    } else if (candidate.sizeBytes <= capacityBytes) skipped.push(candidate)
  }
  const lowestFirst = [...kept].toReversed()
  for (const candidate of skipped.slice(0, EXCHANGES_MAX)) {
    const out = exchangeFor(candidate, lowestFirst, kept, room)
    if (out === undefined) continue
    for (const { sizeBytes } of out) room += sizeBytes
    for (const one of out) kept.delete(one)
    room -= candidate.sizeBytes
    kept.add(candidate)
  }
  return new Set([...kept].sort((a, b) => b.value - a.value).map(({ key }) => key))
}

/** Those to give up for `candidate`, worth less than it; undefined when there are none. */
function exchangeFor(
  candidate: Candidate,
  lowestFirst: readonly Candidate[],
  kept: ReadonlySet<Candidate>,
  room: number,
): Candidate[] | undefined {
  const worth = candidate.value * candidate.sizeBytes
  const out: Candidate[] = []
  let spare = room - candidate.sizeBytes
  let lost = 0
  for (const one of lowestFirst) {
    if (spare >= 0) break
    if (!kept.has(one)) continue
    out.push(one)
    spare += one.sizeBytes
    lost += one.value * one.sizeBytes
    if (lost > worth) return undefined
  }
  if (spare < 0) return undefined
  // the last ones may have freed more than was needed
  return out.toReversed().filter(({ sizeBytes }) => {
    if (sizeBytes > spare) return true
    spare -= sizeBytes
    return false
  })
}

/** An item just asked for is asked for again in a burst that no fetch can catch up with. */
const AHEAD_SECONDS = 6 * 3600
const SHAPE = { rows: 13, columns: 18, rowsApart: 1 }
/** Row 0: never asked for. From row 1 on, octaves of the count, beginning at a quarter. */
const ROW_OF_ONE = 3
const COLUMN_SECONDS = 900
/** Before anything is learned: never asked for is like this many requests. */
const NEVER = 0.3

export class Forecast {
  readonly #table = new HazardTable(SHAPE)
  readonly #prior = new Float64Array(SHAPE.rows * SHAPE.columns)

  constructor() {
    this.refit()
  }

  /** One request of our own; `prospect` as it was before it. */
  requested(prospect: Prospect, nowSeconds: number): void {
    this.#table.addEvent(rowOf(prospect, nowSeconds), columnOf(prospect, nowSeconds))
  }

  /**
   * Time passed in which an item could have been asked for. A sample of the catalogs will do, each
   * item standing for several.
   */
  exposed(prospect: Prospect, nowSeconds: number, itemDays: number): void {
    this.#table.addExposure(rowOf(prospect, nowSeconds), columnOf(prospect, nowSeconds), itemDays)
  }

  /** For the time until there is another chance to fetch: looked at from its middle. */
  requestsPerDay(prospect: Prospect, nowSeconds: number): number {
    const then = nowSeconds + AHEAD_SECONDS
    return 2 ** this.#table.logRate(rowOf(prospect, then), columnOf(prospect, then))
  }

  /** Takes in what was learned since the last time: at each plan. */
  refit(): void {
    const prior = this.#prior
    for (let cell = 0; cell < prior.length; cell++) {
      const row = Math.floor(cell / SHAPE.columns)
      const ageDays = (2 ** (cell % SHAPE.columns) * COLUMN_SECONDS) / DAY_SECONDS
      prior[cell] = (row === 0 ? NEVER : 2 ** (row - ROW_OF_ONE)) / (ageDays + 0.5)
    }
    const [events, exposure] = this.#table.evidence
    let happened = 1
    let expected = 1
    for (let cell = 0; cell < prior.length; cell++) {
      happened += events![cell]!
      expected += exposure![cell]! * prior[cell]!
    }
    for (let cell = 0; cell < prior.length; cell++) prior[cell]! *= happened / expected
    this.#table.refit(prior)
  }

  /** What was learned, to be kept across restarts. */
  save(): Float32Array {
    return Float32Array.from(this.#table.evidence.flatMap(column => [...column]))
  }

  /** @returns false when `saved` is of another form; nothing is changed then. */
  load(saved: Float32Array): boolean {
    const cells = SHAPE.rows * SHAPE.columns
    if (saved.length !== 2 * cells || !saved.every(n => n >= 0 && n < Infinity)) return false
    for (const [n, column] of this.#table.evidence.entries()) {
      column.set(saved.subarray(n * cells, (n + 1) * cells))
    }
    this.refit()
    return true
  }
}

function rowOf({ asked: demand }: Prospect, nowSeconds: number): number {
  if (demand === undefined) return 0
  const age = Math.max(0, nowSeconds - demand.lastSeconds)
  return Math.max(1, Math.log2(demand.requests) - age / HALF_LIFE_SECONDS + ROW_OF_ONE)
}

function columnOf({ asked: demand, publishedSeconds }: Prospect, nowSeconds: number): number {
  const since = demand?.lastSeconds ?? publishedSeconds
  return Math.log2(Math.max(0, nowSeconds - since) / COLUMN_SECONDS + 1)
}
