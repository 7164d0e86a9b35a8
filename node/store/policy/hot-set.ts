/**
 * Which residents live on NVMe. A question of speed only: what leaves here stays on the node.
 *
 * An extent enters when its requests per byte beat the worst of a few sampled ones by a margin, so
 * that bytes are not copied back and forth between equals (each copy costs NVMe writes). A large
 * extent must have been asked for repeatedly first. Sampling needs no second set of links: the list
 * may hold stale entries, which go when a sample meets them. The worst that samples met so far are
 * remembered (`poorest.ts`); and who is worth less than the worst one lately is mostly turned away
 * unsampled.
 */
import { Poorest } from './poorest.ts'
import { xorshift } from './random.ts'
import { HOT, LISTED_HOT, type Slots } from './slots.ts'

const NONE = -1
const SAMPLES = 4
const POOL = 16
/** Of those that look too poor, one in so many is compared with fresh samples all the same. */
const LOOK_AGAIN = 3
/** In octaves of requests per byte. */
const MARGIN = 0.5
/** Larger than this share of the hot tier is large. */
const LARGE_SHARE = 1 / 256
const LARGE_REQUESTS = 1.7
const DEMOTIONS_MAX = 64

export class HotSet {
  usedBytes = 0
  bytesMax: number
  readonly #slots: Slots
  readonly #random: () => number
  /** Log2 of the rate of requests per byte. */
  readonly #density: (slot: number) => number
  #list = new Int32Array(256)
  #listed = 0
  readonly #poorest = new Poorest(POOL)
  /** The density that was not poor enough lately. */
  #threshold = -Infinity
  #turnedAway = 0

  constructor(slots: Slots, bytesMax: number, density: (slot: number) => number, seed: number) {
    this.#slots = slots
    this.bytesMax = bytesMax
    this.#density = density
    this.#random = xorshift(seed)
  }

  get memoryBytes(): number {
    return this.#list.byteLength
  }

  /**
   * Takes `slot` in when it is worth it; appends the slots that must leave to `demoted`.
   * @param density of `slot`: log2 of its requests per byte.
   */
  offer(slot: number, density: number, demoted: number[]): boolean {
    const size = this.#slots.size[slot]!
    if (size > this.bytesMax) return false
    const large = size > this.bytesMax * LARGE_SHARE
    if (large && this.#slots.count[slot]! < LARGE_REQUESTS) return false

    const first = demoted.length
    let missing = size - (this.bytesMax - this.usedBytes)
    const limit = density - MARGIN
    if (missing > 0 && limit < this.#threshold && ++this.#turnedAway % LOOK_AGAIN !== 0) return false
    while (missing > 0) {
      const victim = this.#worst()
      const worst = this.#poorest.lowestValue
      if (victim === NONE || worst > limit || demoted.length - first === DEMOTIONS_MAX) {
        this.#threshold = worst
        for (const back of demoted.splice(first)) this.add(back)
        return false
      }
      this.delete(victim)
      demoted.push(victim)
      missing -= this.#slots.size[victim]!
    }
    this.add(slot)
    return true
  }

  /** Entries that must leave because the tier has become smaller. */
  shrink(demoted: number[]): void {
    while (this.usedBytes > this.bytesMax) {
      const victim = this.#worst()
      if (victim === NONE) break
      this.delete(victim)
      demoted.push(victim)
    }
  }

  add(slot: number): void {
    const { state, size } = this.#slots
    this.usedBytes += size[slot]!
    if (state[slot]! & LISTED_HOT) {
      state[slot]! |= HOT
      return
    }
    if (this.#listed === this.#list.length) {
      const list = new Int32Array(Math.ceil(this.#listed * 1.5))
      list.set(this.#list)
      this.#list = list
    }
    this.#list[this.#listed++] = slot
    state[slot]! |= HOT | LISTED_HOT
  }

  delete(slot: number): void {
    this.usedBytes -= this.#slots.size[slot]!
    this.#slots.state[slot]! &= ~HOT
  }

  /** -1 when there is none. */
  #worst(): number {
    this.#sample()
    return this.#poorest.lowest(this.#densityIfHot)
  }

  readonly #densityIfHot = (slot: number): number =>
    this.#slots.state[slot]! & HOT ? this.#density(slot) : NaN

  #sample(): void {
    const { state } = this.#slots
    for (let n = 0; n < SAMPLES && this.#listed > 0; ) {
      const at = Math.floor(this.#random() * this.#listed)
      const slot = this.#list[at]!
      if (state[slot]! & HOT) {
        n++
        this.#poorest.remember(slot, this.#density(slot))
        continue
      }
      state[slot]! &= ~LISTED_HOT
      this.#list[at] = this.#list[--this.#listed]!
    }
  }
}
