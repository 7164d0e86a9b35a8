/** Which extents changed since they were last written down: each at most once, oldest change first. */
import { DIRTY, type Slots } from './slots.ts'

export class Changes {
  readonly #slots: Slots
  /** A ring. */
  #list = new Int32Array(1024)
  #first = 0
  #length = 0

  constructor(slots: Slots) {
    this.#slots = slots
  }

  get memoryBytes(): number {
    return this.#list.byteLength
  }

  note(slot: number): void {
    const { state } = this.#slots
    if (state[slot]! & DIRTY) return
    state[slot]! |= DIRTY
    if (this.#length === this.#list.length) this.#grow()
    this.#list[(this.#first + this.#length++) % this.#list.length] = slot
  }

  take(slotsMax: number): number[] {
    const taken: number[] = []
    for (; taken.length < slotsMax && this.#length > 0; this.#length--) {
      const slot = this.#list[this.#first]!
      this.#first = (this.#first + 1) % this.#list.length
      this.#slots.state[slot]! &= ~DIRTY
      taken.push(slot)
    }
    return taken
  }

  #grow(): void {
    const list = new Int32Array(Math.ceil(this.#list.length * 1.5))
    for (let n = 0; n < this.#length; n++) {
      list[n] = this.#list[(this.#first + n) % this.#list.length]!
    }
    this.#list = list
    this.#first = 0
  }
}
