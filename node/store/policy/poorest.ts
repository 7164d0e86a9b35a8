/**
 * The poorest slots that samples met so far, lowest value first. Remembering a few of them makes a few
 * new samples each time do (Redis does the same for its keys). By now they may be worth more, or be
 * gone: so the lowest is valued again before it is believed.
 */

const NONE = -1

export class Poorest {
  readonly #slots: Int32Array
  readonly #values: Float64Array
  #length = 0

  constructor(slotsMax: number) {
    this.#slots = new Int32Array(slotsMax)
    this.#values = new Float64Array(slotsMax)
  }

  /** Of the one that `lowest` found last; Infinity when it found none. */
  get lowestValue(): number {
    return this.#length === 0 ? Infinity : this.#values[0]!
  }

  /** Forgets the least poor for it when there is no room; keeps one entry per slot, the older one. */
  remember(slot: number, value: number): void {
    const slots = this.#slots
    const values = this.#values
    const isFull = this.#length === slots.length
    if (isFull && values[this.#length - 1]! <= value) return
    for (let n = 0; n < this.#length; n++) if (slots[n] === slot) return

    let at = isFull ? this.#length - 1 : this.#length++
    for (; at > 0 && value < values[at - 1]!; at--) {
      slots[at] = slots[at - 1]!
      values[at] = values[at - 1]!
    }
    slots[at] = slot
    values[at] = value
  }

  forget(slot: number): void {
    for (let n = 0; n < this.#length; n++) if (this.#slots[n] === slot) return this.#removeAt(n)
  }

  /**
   * @param valueOf its value by now; NaN when it may not be taken any more.
   * @returns -1 when there is none.
   */
  lowest(valueOf: (slot: number) => number): number {
    while (this.#length > 0) {
      const slot = this.#slots[0]!
      const value = valueOf(slot)
      if (value <= (this.#length === 1 ? Infinity : this.#values[1]!)) {
        this.#values[0] = value
        return slot
      }
      this.#removeAt(0)
      if (!Number.isNaN(value)) this.remember(slot, value)
    }
    return NONE
  }

  #removeAt(n: number): void {
    this.#slots.copyWithin(n, n + 1, this.#length)
    this.#values.copyWithin(n, n + 1, this.#length)
    this.#length--
  }
}
