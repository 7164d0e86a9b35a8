/**
 * What is known of the demand for each extent, and the rate of requests that follows from it.
 *
 * Time is counted in requests: `now` is the number of requests so far. Only a planner's
 * expectations come in requests per day; they are turned into this clock by the node's own pace.
 */
import { HazardTable } from './hazard-table.ts'
import { logRateOf, NO_PROMISE, promiseOf } from './promise.ts'
import { LIVE, type Slots } from './slots.ts'

const SAMPLES_PER_REQUEST = 2
export const SHAPE = { rows: 14, columns: 24 }
/** Rows are octaves of the count; the first one stands for a quarter of a request. */
const ROW_OF_ONE = 2
/** A newcomer is valued as if asked for this long ago, in residents; .002 to .004 are equal. */
const SOON = 0.002
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
  readonly #prior = new Float64Array(SHAPE.rows * SHAPE.columns)
  readonly #slots: Slots
  #random: number
  #refitAt = 0
  #refitLast = 0
  // requests and seconds, both decayed: their ratio is the pace
  #paceRequests = 0
  #paceSeconds = 0
  #seconds = NaN

  constructor(slots: Slots, seed: number) {
    this.#slots = slots
    this.#random = seed | 0 || 1
    this.#refit()
  }

  /**
   * One request for `slot`, before anything is decided about it.
   * @returns whether all rates have just changed.
   */
  request(slot: number, nowSeconds: number): boolean {
    if (++this.now === REBASE_AT) this.rebase()
    this.#keepPace(nowSeconds)
    const { count, last } = this.#slots
    const seen = count[slot]! > 0
    const age = this.now - last[slot]!
    if (seen) this.table.addEvent(this.#row(slot, age), Math.log2(age + 1))
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
    return this.table.logRate(this.#row(slot, age), Math.log2(age + 1))
  }

  /** The same for one just requested, looked at a moment later. */
  logRateSoon(slot: number): number {
    const row = Math.log2(this.#slots.count[slot]!) + ROW_OF_ONE
    return this.table.logRate(row, Math.log2(SOON * this.residents + 1))
  }

  /** A planner's expectation, to be put into `promise`. */
  promised(requestsPerDay: number): number {
    const pace = this.#paceSeconds > 0 ? this.#paceRequests / this.#paceSeconds : 1
    return promiseOf(Math.log2(requestsPerDay / (pace * DAY_SECONDS)))
  }

  readonly random = (): number => {
    // xorshift32 (Marsaglia 2003): good enough to sample, and the same on every machine
    let x = this.#random
    x ^= x << 13
    x ^= x >>> 17
    x ^= x << 5
    this.#random = x
    return (x >>> 0) / 0x1_0000_0000
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
      const slot = Math.floor(this.random() * used)
      if (slot === requested || !(state[slot]! & LIVE) || count[slot] === 0) continue
      const age = this.now - last[slot]!
      this.table.addExposure(this.#row(slot, age), Math.log2(age + 1), live / SAMPLES_PER_REQUEST)
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
    const interval = this.now - this.#refitLast
    this.table.fade(2 ** (-interval / (20 * Math.max(200, known))))
    this.#refitLast = this.now
    this.#refitAt = this.now + Math.max(200, Math.min(this.now / 10, 2000))
  }

  get #halfLife(): number {
    return 30 * Math.max(64, this.residents)
  }

  #row(slot: number, age: number): number {
    return Math.log2(this.#slots.count[slot]!) - age / this.#halfLife + ROW_OF_ONE
  }
}
