/**
 * Where old content lies, roughly: about every 2 KiB a place is picked by the bytes there, and
 * entered by a hash of them. New content picks the same places wherever it has moved to, so a few
 * hits tell which old extents to look at. For releases that are too large to be compared whole.
 */

const WINDOW_BYTES = 32
/** A place is picked when these bits of a rolling hash are zero. */
const PICK_MASK = 0x7ff << 21
/** Of a rolling hash that sees 32 bytes. */
export const GEAR = Int32Array.from({ length: 256 }, (_, value) =>
  Math.imul(Math.imul(value + 1, 0x9e3779b1) ^ 0x5bd1e995, 0x85ebca6b),
)
/** 48 MB of tables at most; beyond about 6 GiB of content, the first places are kept. */
const PLACES_MAX = 3_000_000

export class LikenessIndex {
  /** Open addressing, by hash; 0 is empty, and no hash is 0. */
  readonly #hashes: Uint32Array
  readonly #addresses: Float64Array
  #left: number

  /** @param sizeBytes of all that will be added. */
  constructor(sizeBytes: number) {
    this.#left = Math.min(Math.ceil(sizeBytes / 1024) + 16, PLACES_MAX)
    const slots = 2 ** Math.ceil(Math.log2(this.#left * 1.3))
    this.#hashes = new Uint32Array(slots)
    this.#addresses = new Float64Array(slots)
  }

  add(address: number, bytes: Uint8Array): void {
    for (const { hash, at } of picked(bytes, 0, bytes.length)) {
      if (this.#left === 0) return
      const slot = this.#slotOf(hash)
      if (this.#hashes[slot] !== 0) continue
      this.#hashes[slot] = hash
      this.#addresses[slot] = address + at
      this.#left -= 1
    }
  }

  /** Addresses of old places that are like places of `bytes[from..to)`. */
  lookUp(bytes: Uint8Array, from: number, to: number): number[] {
    const found: number[] = []
    for (const { hash } of picked(bytes, from, to)) {
      const slot = this.#slotOf(hash)
      if (this.#hashes[slot] === hash) found.push(this.#addresses[slot]!)
    }
    return found
  }

  /** Where the hash is, or would be. */
  #slotOf(hash: number): number {
    const mask = this.#hashes.length - 1
    let slot = Math.imul(hash, 0x9e3779b1) & mask
    while (this.#hashes[slot] !== 0 && this.#hashes[slot] !== hash) slot = (slot + 1) & mask
    return slot
  }
}

function* picked(
  bytes: Uint8Array,
  from: number,
  to: number,
): Generator<{ readonly hash: number; readonly at: number }> {
  let rolling = 0
  for (let at = from; at < to; at++) {
    rolling = ((rolling << 1) + GEAR[bytes[at]!]!) | 0
    if ((rolling & PICK_MASK) !== 0 || at - from < WINDOW_BYTES - 1) continue
    const start = at - WINDOW_BYTES + 1
    let hash = 0
    for (let byte = start; byte <= at; byte++) hash = (Math.imul(hash, 0x01000193) + bytes[byte]!) | 0
    yield { hash: hash >>> 0 || 1, at: start }
  }
}
