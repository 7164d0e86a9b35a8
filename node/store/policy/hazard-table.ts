/**
 * A learned table of request rates: how often is an object asked for that had so many requests
 * (decayed) and was last asked for so long ago? Rate = events / exposure, per cell, learned online
 * from everything known, so the same code leans on recency where recency pays and on frequency
 * where frequency does.
 *
 * Time is counted in requests. Rates are log2 of the chance that the next request is for one given
 * object of that cell. Look-ups and additions are bilinear over the four neighbouring cells.
 */

const ROWS = 14
const COLUMNS = 24
export const CELLS = ROWS * COLUMNS
/** Weight of the prior, in events. Chosen on five traces; 40 is a little worse. */
const PRIOR_EVENTS = 20

export class HazardTable {
  readonly #events = new Float64Array(CELLS)
  readonly #exposure = new Float64Array(CELLS)
  readonly #logRate = new Float64Array(CELLS)
  readonly #correction = new Float64Array(CELLS)
  readonly #logPrior = new Float64Array(CELLS)
  // the cell found last, and how far into it
  #cell = 0
  #row = 0
  #column = 0

  constructor() {
    this.refit(1, 1)
  }

  addEvent(logCount: number, age: number): void {
    this.#find(logCount, age)
    this.#add(this.#events, 1)
  }

  addExposure(logCount: number, age: number, amount: number): void {
    this.#find(logCount, age)
    this.#add(this.#exposure, amount)
  }

  logRate(logCount: number, age: number): number {
    this.#find(logCount, age)
    const at = this.#cell
    const row = this.#row
    const column = this.#column
    const rate = this.#logRate
    const above = rate[at]! + (rate[at + 1]! - rate[at]!) * column
    const below = rate[at + COLUMNS]! + (rate[at + COLUMNS + 1]! - rate[at + COLUMNS]!) * column
    return above + (below - above) * row
  }

  /** The evidence itself, for snapshots. */
  get evidence(): readonly Float64Array[] {
    return [this.#events, this.#exposure]
  }

  /** Old evidence fades: both tables, so that rates stay. */
  fade(factor: number): void {
    for (let cell = 0; cell < CELLS; cell++) {
      this.#events[cell]! *= factor
      this.#exposure[cell]! *= factor
    }
  }

  /** Evidence to rates: shrunk towards a prior where there is little, smoothed over neighbours. */
  refit(known: number, residents: number): void {
    const logPrior = this.#logPrior
    const correction = this.#correction
    const soon = 0.2 * Math.max(64, residents)
    for (let row = 0; row < ROWS; row++) {
      for (let column = 0; column < COLUMNS; column++) {
        const cell = row * COLUMNS + column
        const prior = 2 ** (row - 2) / Math.sqrt((2 ** column + soon) * Math.max(100, known))
        const events = this.#events[cell]! + PRIOR_EVENTS
        const exposure = this.#exposure[cell]! + PRIOR_EVENTS / prior
        logPrior[cell] = Math.log2(prior)
        correction[cell] = Math.log2(events / exposure / prior)
      }
    }
    for (let row = 0; row < ROWS; row++) {
      for (let column = 0; column < COLUMNS; column++) {
        let sum = 0
        let weights = 0
        for (let r = Math.max(0, row - 1); r <= Math.min(ROWS - 1, row + 1); r++) {
          for (let c = Math.max(0, column - 1); c <= Math.min(COLUMNS - 1, column + 1); c++) {
            const near = r * COLUMNS + c
            const weight = (r === row && c === column ? 1 : 0.25) * (this.#events[near]! + 1)
            sum += weight * correction[near]!
            weights += weight
          }
        }
        const cell = row * COLUMNS + column
        this.#logRate[cell] = logPrior[cell]! + sum / weights
      }
    }
  }

  #find(logCount: number, age: number): void {
    const row = Math.min(Math.max(logCount + 2, 0), ROWS - 1.001)
    const column = Math.min(Math.log2(age + 1), COLUMNS - 1.001)
    const r = Math.floor(row)
    const c = Math.floor(column)
    this.#cell = r * COLUMNS + c
    this.#row = row - r
    this.#column = column - c
  }

  #add(table: Float64Array, amount: number): void {
    const at = this.#cell
    const below = amount * this.#row
    const above = amount - below
    const right = this.#column
    table[at]! += above * (1 - right)
    table[at + 1]! += above * right
    table[at + COLUMNS]! += below * (1 - right)
    table[at + COLUMNS + 1]! += below * right
  }
}
