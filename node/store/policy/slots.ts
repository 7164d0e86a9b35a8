/**
 * Everything known of an extent in about 40 bytes: one column per property, one row (slot) per
 * known key, and a hash index from key to slot. Residents and ghosts (evicted, still remembered)
 * share the table.
 *
 * Columns grow by a tenth once they are large, one at a time, so that growing never holds two
 * copies of everything. Slots of forgotten keys are used again.
 */

/** Bits of `state`. Exemptions take the bits from `EXEMPT_SHIFT` on. */
export const LIVE = 1
export const RESIDENT = 2
export const HOT = 4
/** The slot has an entry in the hot set's list, possibly a stale one. */
export const LISTED_HOT = 8
export const EXEMPT_SHIFT = 4
export const EXEMPT_MASK = 7 << EXEMPT_SHIFT
/** The slot is in the list of changes not yet drained. */
export const DIRTY = 128
/** What belongs to the slot and not to the key that is in it. */
const STICKY = LISTED_HOT | DIRTY

const NONE = -1
/** Sparse enough for short probes, dense enough for memory. */
const LOAD_MAX = 0.8
/** Columns are merely copied; every key has to be entered anew into a new index. */
const COLUMN_GROWTH = 1.1
const INDEX_GROWTH = 1.25

export class Slots {
  key = new Uint32Array(1024)
  /** Exact bytes. */
  size = new Float64Array(1024)
  /** Requests, decayed to the time of the last one. */
  count = new Float32Array(1024)
  /** When it was last asked for, in requests since `base` of the clock's owner. */
  last = new Uint32Array(1024)
  /** Time between its last two requests, in eighths of an octave; 0: it was asked for once at most. */
  gap = new Uint8Array(1024)
  state = new Uint8Array(1024)
  /** What a planner expects of it, coded (`promise.ts`); 0: nothing. */
  promise = new Uint8Array(1024)
  /** Links of the one queue that the slot is in. */
  prev = new Int32Array(1024)
  next = new Int32Array(1024)
  queue = new Uint16Array(1024)

  /** Slots below this were used at some time. */
  used = 0
  live = 0
  #free = NONE
  #index = new Int32Array(1280).fill(NONE)

  find(key: number): number {
    const index = this.#index
    const { length } = index
    for (let at = bucketOf(key, length); ; at = at + 1 === length ? 0 : at + 1) {
      const slot = index[at]!
      if (slot === NONE || this.key[slot] === key) return slot
    }
  }

  /** A slot for a key that is not known yet. */
  add(key: number, sizeBytes: number): number {
    if (this.live + 1 > this.#index.length * LOAD_MAX) this.#reindex(grown(this.#index.length, INDEX_GROWTH))

    let slot = this.#free
    if (slot !== NONE) this.#free = this.next[slot]!
    else {
      if (this.used === this.key.length) this.#grow()
      slot = this.used++
    }
    this.live++
    this.key[slot] = key
    this.size[slot] = sizeBytes
    this.count[slot] = 0
    this.last[slot] = 0
    this.gap[slot] = 0
    this.promise[slot] = 0
    this.state[slot] = LIVE | (this.state[slot]! & STICKY)
    this.#enter(key, slot)
    return slot
  }

  forget(slot: number): void {
    this.#leave(this.key[slot]!)
    this.live--
    this.state[slot]! &= STICKY
    this.next[slot] = this.#free
    this.#free = slot
  }

  get memoryBytes(): number {
    return this.key.length * (4 + 8 + 4 + 4 + 1 + 1 + 1 + 4 + 4 + 2) + this.#index.length * 4
  }

  #enter(key: number, slot: number): void {
    const index = this.#index
    const { length } = index
    let at = bucketOf(key, length)
    while (index[at] !== NONE) at = at + 1 === length ? 0 : at + 1
    index[at] = slot
  }

  /** Deletion by backward shift: no tombstones, so probes stay short for ever (Knuth 6.4 R). */
  #leave(key: number): void {
    const index = this.#index
    const { length } = index
    let hole = bucketOf(key, length)
    while (this.key[index[hole]!] !== key) hole = hole + 1 === length ? 0 : hole + 1
    for (let at = hole; ; ) {
      at = at + 1 === length ? 0 : at + 1
      const slot = index[at]!
      if (slot === NONE) break
      const home = bucketOf(this.key[slot]!, length)
      const stays = hole < at ? hole < home && home <= at : hole < home || home <= at
      if (stays) continue
      index[hole] = slot
      hole = at
    }
    index[hole] = NONE
  }

  #reindex(length: number): void {
    this.#index = new Int32Array(length).fill(NONE)
    for (let slot = 0; slot < this.used; slot++) {
      if (this.state[slot]! & LIVE) this.#enter(this.key[slot]!, slot)
    }
  }

  #grow(): void {
    const length = grown(this.key.length, COLUMN_GROWTH)
    this.key = longer(new Uint32Array(length), this.key)
    this.size = longer(new Float64Array(length), this.size)
    this.count = longer(new Float32Array(length), this.count)
    this.last = longer(new Uint32Array(length), this.last)
    this.gap = longer(new Uint8Array(length), this.gap)
    this.state = longer(new Uint8Array(length), this.state)
    this.promise = longer(new Uint8Array(length), this.promise)
    this.prev = longer(new Int32Array(length), this.prev)
    this.next = longer(new Int32Array(length), this.next)
    this.queue = longer(new Uint16Array(length), this.queue)
  }
}

/** Multiplicative hashing, then the range by multiplication: any length will do, not only 2^n. */
function bucketOf(key: number, length: number): number {
  return Math.floor(((Math.imul(key, 0x9e3779b1) >>> 0) * length) / 0x1_0000_0000)
}

function grown(length: number, onceLarge: number): number {
  return length < 1 << 20 ? length * 2 : Math.ceil(length * onceLarge)
}

interface Column<T> {
  set(from: T): void
}

function longer<T extends Column<T>>(to: T, from: T): T {
  to.set(from)
  return to
}
