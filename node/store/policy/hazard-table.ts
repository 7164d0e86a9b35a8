/**
 * A learned table of request rates: how often is a thing asked for that looks like this? A row says
 * how often it was asked for before, a column how long ago; rate = events / exposure per cell,
 * learned online, so the same code leans on recency where recency pays and on frequency where
 * frequency does.
 *
 * The unit of time is the caller's. Look-ups and additions are bilinear over the four cells around
 * (row, column), which need not be whole and are clamped to the table.
 */

export interface HazardShape {
  readonly rows: number
  readonly columns: number
  /** Rows below this are another kind: they are not smoothed with the rest. */
  readonly rowsApart?: number
  /** Weight of the prior, in events. 20 was chosen on five traces; 40 is a little worse. */
  readonly priorEvents?: number
}

export class HazardTable {
  readonly rows: number
  readonly columns: number
  readonly #rowsApart: number
  readonly #priorEvents: number
  readonly #rowMax: number
  readonly #columnMax: number
  readonly #events: Float64Array
  readonly #exposure: Float64Array
  readonly #logRate: Float64Array
  readonly #correction: Float64Array
  // the cell found last, and how far into it
  #cell = 0
  #below = 0
  #right = 0

  constructor({ rows, columns, rowsApart = 0, priorEvents = 20 }: HazardShape) {
    this.rows = rows
    this.columns = columns
    this.#rowsApart = rowsApart
    this.#priorEvents = priorEvents
    this.#rowMax = rows - 1.001
    this.#columnMax = columns - 1.001
    this.#events = new Float64Array(rows * columns)
    this.#exposure = new Float64Array(rows * columns)
    this.#logRate = new Float64Array(rows * columns)
    this.#correction = new Float64Array(rows * columns)
  }

  addEvent(row: number, column: number): void {
    this.#find(row, column)
    this.#add(this.#events, 1)
  }

  addExposure(row: number, column: number, amount: number): void {
    this.#find(row, column)
    this.#add(this.#exposure, amount)
  }

  /** Log2 of the rate: events per unit of exposure. */
  logRate(row: number, column: number): number {
    this.#find(row, column)
    const at = this.#cell
    const rate = this.#logRate
    const next = at + this.columns
    const above = rate[at]! + (rate[at + 1]! - rate[at]!) * this.#right
    if (this.#below === 0) return above
    const below = rate[next]! + (rate[next + 1]! - rate[next]!) * this.#right
    return above + (below - above) * this.#below
  }

  /** The evidence itself, for snapshots. */
  get evidence(): readonly Float64Array[] {
    return [this.#events, this.#exposure]
  }

  /** Old evidence fades: both tables, so that rates stay. */
  fade(factor: number): void {
    for (const table of this.evidence) {
      for (let cell = 0; cell < table.length; cell++) table[cell]! *= factor
    }
  }

  /** Evidence to rates: shrunk towards `prior` where there is little, smoothed over neighbours. */
  refit(prior: Float64Array): void {
    const correction = this.#correction
    for (let cell = 0; cell < prior.length; cell++) {
      const events = this.#events[cell]! + this.#priorEvents
      const expected = this.#exposure[cell]! * prior[cell]! + this.#priorEvents
      correction[cell] = Math.log2(events / expected)
    }
    for (let row = 0; row < this.rows; row++) {
      for (let column = 0; column < this.columns; column++) {
        const cell = row * this.columns + column
        this.#logRate[cell] = Math.log2(prior[cell]!) + this.#smoothed(row, column)
      }
    }
  }

  /** The correction, averaged over the 3 × 3 cells around, each as far as it is founded. */
  #smoothed(row: number, column: number): number {
    const apart = row < this.#rowsApart
    const firstRow = Math.max(apart ? 0 : this.#rowsApart, row - 1)
    const lastRow = Math.min((apart ? this.#rowsApart : this.rows) - 1, row + 1)
    const lastColumn = Math.min(this.columns - 1, column + 1)
    let sum = 0
    let weights = 0
    for (let r = firstRow; r <= lastRow; r++) {
      for (let c = Math.max(0, column - 1); c <= lastColumn; c++) {
        const near = r * this.columns + c
        const weight = (r === row && c === column ? 1 : 0.25) * (this.#events[near]! + 1)
        sum += weight * this.#correction[near]!
        weights += weight
      }
    }
    return sum / weights
  }

  #find(row: number, column: number): void {
    const atRow = Math.min(Math.max(row, 0), this.#rowMax)
    const atColumn = Math.min(Math.max(column, 0), this.#columnMax)
    const r = Math.floor(atRow)
    const c = Math.floor(atColumn)
    this.#cell = r * this.columns + c
    this.#below = atRow - r
    this.#right = atColumn - c
  }

  #add(table: Float64Array, amount: number): void {
    const at = this.#cell
    const next = at + this.columns
    const below = amount * this.#below
    const above = amount - below
    table[at]! += above * (1 - this.#right)
    table[at + 1]! += above * this.#right
    table[next]! += below * (1 - this.#right)
    table[next + 1]! += below * this.#right
  }
}
