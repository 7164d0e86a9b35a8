/**
 * Old bytes held in memory, indexed so that equal stretches in new bytes are found fast.
 *
 * Every 32nd place of the pool is entered in a table by the rolling hash of the 32 bytes there; new
 * bytes are tried at every place, so every common stretch of 63 bytes is found, shorter ones by
 * luck. After an edit, most new bytes go on where the old ones went on: that place is tried first,
 * which is also what keeps copies in order. About 150 MB/s.
 */
import assert from 'node:assert'
import type { AddressRange } from './part.ts'

export interface Match {
  /** Where in the new bytes. */
  readonly at: number
  readonly length: number
  /** Where in the older release. */
  readonly address: number
}

const WINDOW_BYTES = 32
const PRIME = 0x01000193
const OLDEST_FACTOR = Array.from({ length: WINDOW_BYTES }).reduce((power: number) => Math.imul(power, PRIME), 1)

interface PoolSegment extends AddressRange {
  readonly start: number
}

export class MatchPool {
  readonly #bytes: Buffer
  readonly #table: Int32Array
  readonly #shift: number
  #segments: PoolSegment[] = []
  #used = 0

  /** @param capacityBytes below 2^31. */
  constructor(capacityBytes: number) {
    this.#bytes = Buffer.allocUnsafeSlow(Math.max(capacityBytes, WINDOW_BYTES))
    const bits = Math.min(Math.max(Math.ceil(Math.log2(capacityBytes / WINDOW_BYTES + 1)) + 1, 8), 24)
    this.#table = new Int32Array(2 ** bits).fill(-1)
    this.#shift = 32 - bits
  }

  get freeBytes(): number {
    return this.#bytes.length - this.#used
  }

  clear(): void {
    this.#table.fill(-1)
    this.#segments = []
    this.#used = 0
  }

  /** @param bytes at most `freeBytes`. */
  add(address: number, bytes: Uint8Array): void {
    assert(bytes.length <= this.freeBytes)
    const start = this.#used
    this.#bytes.set(bytes, start)
    this.#used += bytes.length
    const last = this.#segments.at(-1)
    if (last && last.to === address) this.#segments[this.#segments.length - 1] = { ...last, to: address + bytes.length }
    else this.#segments.push({ start, from: address, to: address + bytes.length })
    for (let at = start; at + WINDOW_BYTES <= this.#used; at += WINDOW_BYTES) {
      const slot = this.#slotOf(hashAt(this.#bytes, at))
      if (this.#table[slot] === -1) this.#table[slot] = at
    }
  }

  /** The bytes of a range if all of it is here: a view. */
  read({ from, to }: AddressRange): Buffer | undefined {
    const segment = this.#segments.find(segment => segment.from <= from && to <= segment.to)
    return segment && this.#bytes.subarray(segment.start + from - segment.from, segment.start + to - segment.from)
  }

  /**
   * Stretches of `bytes[from..to)` that are in the pool, in order and apart from each other.
   *
   * @param expected the address at which `bytes[from]` would be if nothing had changed.
   */
  matches(bytes: Uint8Array, from: number, to: number, expected: number): Match[] {
    const pool = this.#bytes
    const used = this.#used
    const found: Match[] = []
    let free = from
    /** Pool place minus new place of the last match, when there is one. */
    const start = this.#placeOf(expected)
    let diagonal = start === undefined ? Number.NaN : start - from
    let hash = 0
    let hashedAt = -1
    for (let at = from; at + WINDOW_BYTES <= to; ) {
      let length = 0
      let place = at + diagonal
      if (place >= 0 && place < used) length = commonBytes(bytes, at, to, pool, place, used)
      if (length < WINDOW_BYTES) {
        hash = hashedAt === at - 1 && hashedAt >= 0 ? roll(hash, bytes[at - 1]!, bytes[at + WINDOW_BYTES - 1]!) : hashAt(bytes, at)
        hashedAt = at
        const candidate = this.#table[this.#slotOf(hash)]!
        if (candidate >= 0) {
          const other = commonBytes(bytes, at, to, pool, candidate, used)
          if (other >= WINDOW_BYTES && other > length + 8) {
            length = other
            place = candidate
          }
        }
      }
      if (length < WINDOW_BYTES / 2) {
        at++
        continue
      }
      let back = 0
      while (at - back > free && place - back > 0 && bytes[at - back - 1] === pool[place - back - 1]) back++
      this.#push(found, at - back, place - back, length + back)
      diagonal = place - at
      at += length
      free = at
    }
    return found
  }

  /** Cut where the pool's neighbours are not neighbours in the release. */
  #push(found: Match[], at: number, place: number, length: number): void {
    while (length > 0) {
      const segment = this.#segmentAt(place)
      const here = Math.min(length, segment.start + (segment.to - segment.from) - place)
      found.push({ at, length: here, address: segment.from + place - segment.start })
      at += here
      place += here
      length -= here
    }
  }

  #segmentAt(place: number): PoolSegment {
    let first = 0
    let last = this.#segments.length - 1
    while (first < last) {
      const middle = (first + last + 1) >> 1
      if (this.#segments[middle]!.start <= place) first = middle
      else last = middle - 1
    }
    return this.#segments[first]!
  }

  #placeOf(address: number): number | undefined {
    const segment = this.#segments.find(({ from, to }) => from <= address && address < to)
    return segment && segment.start + address - segment.from
  }

  #slotOf(hash: number): number {
    return Math.imul(hash, 0x9e3779b1) >>> this.#shift
  }
}

function hashAt(bytes: Uint8Array, at: number): number {
  let hash = 0
  for (let end = at + WINDOW_BYTES; at < end; at++) hash = (Math.imul(hash, PRIME) + bytes[at]!) | 0
  return hash
}

function roll(hash: number, oldest: number, newest: number): number {
  return (Math.imul(hash, PRIME) + newest - Math.imul(OLDEST_FACTOR, oldest)) | 0
}

function commonBytes(a: Uint8Array, from: number, to: number, b: Uint8Array, start: number, end: number): number {
  const limit = Math.min(to - from, end - start)
  let length = 0
  while (length < limit && a[from + length] === b[start + length]) length++
  return length
}
