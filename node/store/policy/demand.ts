/**
 * What is known of the demand for each extent, and the rate of requests that follows from it: a
 * learned rate by how often and how long ago it was asked for, times a learned factor by how long it
 * waited the time before and how long ago (what comes in bursts, and what comes regularly).
 *
 * Time is counted in requests: `now` is the number of requests so far. Only a planner's
 * expectations come in requests per day; they are turned into this clock by the node's own pace.
 */
import { HazardTable } from './hazard-table.ts'
import { logRateOf, NO_PROMISE, promiseOf } from './promise.ts'
import { xorshift } from './random.ts'
import { LIVE, type Slots } from './slots.ts'

const SAMPLES_PER_REQUEST = 2
export const SHAPE = { rows: 14, columns: 24 }
/** Row 0: asked for once; then octaves of the time between the last two requests. */
export const GAP_SHAPE = { rows: 26, columns: 24, rowsApart: 1, priorEvents: 100 }
const GAP_STEPS_PER_OCTAVE = 8
/** Rows are octaves of the count; the first one stands for a quarter of a request. */
const ROW_OF_ONE = 2
/** A newcomer is valued as if asked for this long ago, in residents; .002 to .004 are equal. */
const SOON = 0.002
/** And later still by this, times the share of the capacity that it takes: .1 to 1 are about equal. */
const SOON_PER_SHARE = 0.3
const DAY_SECONDS = 86_400
const PACE_HALF_LIFE_SECONDS = 7 * DAY_SECONDS
/** `last` holds 32 bits: long before they are full, all times are moved back by this. */
const REBASE = 0x8000_0000
const REBASE_AT = 0xf000_0000

export class Demand {
  now = 0
  /** How often `now` was moved back by 2^31. */
  rebases = 0
  /** Set by the owner; the half-life of counts and the table's prior follow from it. */
  residents = 0
  readonly table = new HazardTable(SHAPE)
  readonly gaps = new HazardTable(GAP_SHAPE)
  readonly #gapPrior = new Float64Array(GAP_SHAPE.rows * GAP_SHAPE.columns).fill(1)
  readonly #prior = new Float64Array(SHAPE.rows * SHAPE.columns)
  readonly #slots: Slots
  readonly #random: () => number
  #refitAt = 0
  #refitLast = 0
  // requests and seconds, both decayed: their ratio is the pace
  #paceRequests = 0
  #paceSeconds = 0
  #seconds = NaN

  constructor(slots: Slots, seed: number) {
    this.#slots = slots
    this.#random = xorshift(seed)
    this.#refit()
  }

  /**
   * One request for `slot`, before anything is decided about it.
   * @returns whether all rates have just changed.
   */
  request(slot: number, nowSeconds: number): boolean {
    if (++this.now === REBASE_AT) this.rebase()
    this.#keepPace(nowSeconds)
    const { count, last, gap } = this.#slots
    const seen = count[slot]! > 0
    const age = this.now - last[slot]!
    if (seen) {
      const column = Math.log2(age + 1)
      this.table.addEvent(this.#row(slot, age), column)
      this.gaps.addEvent(this.#gapRow(slot), column)
      gap[slot] = Math.max(1, Math.round(column * GAP_STEPS_PER_OCTAVE))
    }
    this.#sample(slot)
    const refit = this.now >= this.#refitAt
    if (refit) this.#refit()

    count[slot] = seen ? count[slot]! * 2 ** (-age / this.#halfLife) + 1 : 1
    last[slot] = this.now
    return refit
  }

  /** Log2 of the chance that the next request is for `slot`; what a planner promised holds. */
  logRate(slot: number): number {
    const age = this.now - this.#slots.last[slot]!
    const promise = this.#slots.promise[slot]!
    if (promise !== NO_PROMISE) return logRateOf(promise)
    return this.#learned(slot, this.#row(slot, age), Math.log2(age + 1))
  }

  /**
   * The same for one just requested, looked at a moment later; the more of the capacity it takes
   * from others, the later: it has to be worth that for longer than a burst lasts.
   */
  logRateSoon(slot: number, capacityShare: number): number {
    const row = Math.log2(this.#slots.count[slot]!) + ROW_OF_ONE
    return this.#learned(slot, row, Math.log2((SOON + capacityShare * SOON_PER_SHARE) * this.residents + 1))
  }

  /** A planner's expectation, to be put into `promise`. */
  promised(requestsPerDay: number): number {
    const pace = this.#paceSeconds > 0 ? this.#paceRequests / this.#paceSeconds : 1
    return promiseOf(Math.log2(requestsPerDay / (pace * DAY_SECONDS)))
  }

  /** Moves the origin of time, so that `last` never overflows; the oldest become as old as that. */
  rebase(): void {
    const { last, used } = this.#slots
    for (let slot = 0; slot < used; slot++) last[slot] = Math.max(0, last[slot]! - REBASE)
    this.now -= REBASE
    this.#refitAt -= REBASE
    this.#refitLast -= REBASE
    this.rebases++
  }

  /** Goes on where a snapshot was taken, `requests` after the very first. */
  resume(requests: number): void {
    while (requests - this.rebases * REBASE >= REBASE_AT) this.rebase()
    this.now = Math.max(this.now, requests - this.rebases * REBASE)
    this.#refitAt = this.now + 1
    this.#refitLast = this.now
  }

  /** A clock that goes back, or stands still, adds no seconds. */
  #keepPace(nowSeconds: number): void {
    const seconds = Math.max(0, nowSeconds - this.#seconds)
    this.#seconds = nowSeconds
    const kept = seconds > 0 ? 2 ** (-seconds / PACE_HALF_LIFE_SECONDS) : 1
    this.#paceRequests = this.#paceRequests * kept + 1
    if (seconds > 0) this.#paceSeconds = this.#paceSeconds * kept + seconds
  }

  /** Exposure, by sampling: every extent asked for before was at risk of being asked for now. */
  #sample(requested: number): void {
    const { live, used, state, last, count } = this.#slots
    for (let n = 0; n < SAMPLES_PER_REQUEST; n++) {
      const slot = Math.floor(this.#random() * used)
      if (slot === requested || !(state[slot]! & LIVE) || count[slot] === 0) continue
      const age = this.now - last[slot]!
      const row = this.#row(slot, age)
      const column = Math.log2(age + 1)
      const exposure = live / SAMPLES_PER_REQUEST
      this.table.addExposure(row, column, exposure)
      this.gaps.addExposure(this.#gapRow(slot), column, exposure * 2 ** this.table.logRate(row, column))
    }
  }

  #refit(): void {
    const known = this.#slots.live
    const soon = 0.2 * Math.max(64, this.residents)
    for (let cell = 0; cell < this.#prior.length; cell++) {
      const requests = 2 ** (Math.floor(cell / SHAPE.columns) - ROW_OF_ONE)
      const age = 2 ** (cell % SHAPE.columns)
      this.#prior[cell] = requests / Math.sqrt((age + soon) * Math.max(100, known))
    }
    this.table.refit(this.#prior)
    this.gaps.refit(this.#gapPrior)
    const kept = 2 ** (-(this.now - this.#refitLast) / (20 * Math.max(200, known)))
    this.table.fade(kept)
    this.gaps.fade(kept)
    this.#refitLast = this.now
    this.#refitAt = this.now + Math.max(200, Math.min(this.now / 10, 2000))
  }

  #learned(slot: number, row: number, column: number): number {
    return this.table.logRate(row, column) + this.gaps.logRate(this.#gapRow(slot), column)
  }

  #gapRow(slot: number): number {
    const gap = this.#slots.gap[slot]!
    return gap === 0 ? 0 : 1 + gap / GAP_STEPS_PER_OCTAVE
  }

  get #halfLife(): number {
    return 30 * Math.max(64, this.residents)
  }

  #row(slot: number, age: number): number {
    return Math.log2(this.#slots.count[slot]!) - age / this.#halfLife + ROW_OF_ONE
  }
}
