/**
 * Old bytes held in memory, indexed so that equal stretches in new bytes are found fast.
 *
 * Every 16th place of the pool is entered in a table by the rolling hash of the 32 bytes there; new
 * bytes are tried at every place, so every common stretch of 47 bytes is found. After an edit most
 * new bytes go on where the old ones went on (the same diagonal), so that place is tried first, and
 * it is left only for one that explains clearly more bytes, as bsdiff does. Of several candidates
 * the longest wins, then the nearest.
 */
import assert from 'node:assert'
import type { AddressRange } from './part.ts'

/** Equal bytes. */
export interface Match {
  /** Where in the new bytes. */
  readonly at: number
  readonly length: number
  /** Where in the older release. */
  readonly address: number
}

/** Bytes of which most are equal: matches on one diagonal with short differences between them. */
export interface Likeness extends Match {
  readonly equalBytes: number
}

export interface Matches {
  /** Equal stretches of at least 64 bytes, in order, apart from each other. */
  readonly equal: Match[]
  /** All that is alike, in order, apart from each other; what is in `equal` is in here, too. */
  readonly alike: Likeness[]
}

const WINDOW_BYTES = 32
const STRIDE_BYTES = 16
const CANDIDATES_MAX = 16
/** A match this long is good enough to stop looking. */
const LONG_BYTES = 4096
/** On the diagonal even short matches are meant. */
const DIAGONAL_BYTES_MIN = 8
/** Another place must explain this many bytes more than the diagonal. */
const LEAP_BYTES = 5
const DIFFERENCE_BYTES_MAX = 64
const EQUAL_BYTES_MIN = 64
const PRIME = 0x01000193
const OLDEST_FACTOR = Array.from({ length: WINDOW_BYTES }).reduce(
  (power: number) => Math.imul(power, PRIME),
  1,
)

interface PoolSegment extends AddressRange {
  readonly start: number
}

export class MatchPool {
  readonly #bytes: Buffer
  /** By hash: the last place entered; by place: the one before with that hash. In strides; −1 for none. */
  readonly #latest: Int32Array
  readonly #earlier: Int32Array
  readonly #shift: number
  #segments: PoolSegment[] = []
  #used = 0

  /** @param capacityBytes below 2^31. */
  constructor(capacityBytes: number) {
    this.#bytes = Buffer.allocUnsafeSlow(Math.max(capacityBytes, WINDOW_BYTES))
    const strides = Math.ceil(capacityBytes / STRIDE_BYTES) + 1
    const bits = Math.min(Math.max(Math.ceil(Math.log2(strides)), 8), 22)
    this.#latest = new Int32Array(2 ** bits).fill(-1)
    this.#earlier = new Int32Array(strides)
    this.#shift = 32 - bits
  }

  get freeBytes(): number {
    return this.#bytes.length - this.#used
  }

  clear(): void {
    this.#latest.fill(-1)
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
    if (last && last.to === address)
      this.#segments[this.#segments.length - 1] = { ...last, to: address + bytes.length }
    else this.#segments.push({ start, from: address, to: address + bytes.length })
    // A window may reach over the end of what was there before: enter those places now.
    const first = Math.max(0, start - WINDOW_BYTES + 1)
    for (
      let stride = Math.ceil(first / STRIDE_BYTES);
      stride * STRIDE_BYTES + WINDOW_BYTES <= this.#used;
      stride++
    ) {
      const slot = this.#slotOf(hashAt(this.#bytes, stride * STRIDE_BYTES))
      this.#earlier[stride] = this.#latest[slot]!
      this.#latest[slot] = stride
    }
  }

  /**
   * What of `bytes[from..to)` is in the pool.
   *
   * @param expected the address at which `bytes[from]` would be if nothing had changed.
   */
  matches(bytes: Uint8Array, from: number, to: number, expected: number): Matches {
    const pool = this.#bytes
    const used = this.#used
    const found: Matches = { equal: [], alike: [] }
    let free = from
    const start = this.#placeOf(expected)
    /** Pool place minus new place. */
    let diagonal = start === undefined ? Number.NaN : start - from
    let hash = 0
    let hashedAt = -2
    for (let at = from; at + DIAGONAL_BYTES_MIN <= to; ) {
      const onDiagonal = at + diagonal
      const possible = onDiagonal >= 0 && onDiagonal < used
      let length = possible ? commonBytes(bytes, at, to, pool, onDiagonal, used) : 0
      let place = onDiagonal
      if (length < WINDOW_BYTES && at + WINDOW_BYTES <= to) {
        hash =
          hashedAt === at - 1 ? roll(hash, bytes[at - 1]!, bytes[at + WINDOW_BYTES - 1]!) : hashAt(bytes, at)
        hashedAt = at
        const leap = this.#longest(bytes, at, to, hash, onDiagonal)
        if (leap && leap.length > length + LEAP_BYTES) {
          const stays = possible
            ? equalBytes(bytes, at, pool, onDiagonal, Math.min(leap.length, used - onDiagonal))
            : 0
          if (stays < leap.length - LEAP_BYTES) ({ length, place } = leap)
        }
      }
      if (length < DIAGONAL_BYTES_MIN) {
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
    return { ...found, alike: found.alike.filter(({ equalBytes }) => equalBytes >= STRIDE_BYTES) }
  }

  #longest(
    bytes: Uint8Array,
    at: number,
    to: number,
    hash: number,
    near: number,
  ): { place: number; length: number } | undefined {
    const pool = this.#bytes
    let length = 0
    let place = -1
    let stride = this.#latest[this.#slotOf(hash)]!
    for (
      let tried = 0;
      stride >= 0 && tried < CANDIDATES_MAX && length < LONG_BYTES;
      tried++, stride = this.#earlier[stride]!
    ) {
      const candidate = stride * STRIDE_BYTES
      if (length > 0 && bytes[at + length] !== pool[candidate + length] && at + length < to) continue
      const common = commonBytes(bytes, at, to, pool, candidate, this.#used)
      if (common > length || (common === length && Math.abs(candidate - near) < Math.abs(place - near))) {
        length = common
        place = candidate
      }
    }
    return length >= WINDOW_BYTES ? { place, length } : undefined
  }

  /** Cut where the pool's neighbours are not neighbours in the release. */
  #push(found: Matches, at: number, place: number, length: number): void {
    while (length > 0) {
      const segment = this.#segmentAt(place)
      const here = Math.min(length, segment.start + (segment.to - segment.from) - place)
      const address = segment.from + place - segment.start
      if (here >= EQUAL_BYTES_MIN) found.equal.push({ at, length: here, address })
      const last = found.alike.at(-1)
      const gap = last ? at - (last.at + last.length) : -1
      if (last && gap <= DIFFERENCE_BYTES_MAX && address - last.address === at - last.at) {
        found.alike[found.alike.length - 1] = {
          ...last,
          length: last.length + gap + here,
          equalBytes: last.equalBytes + here,
        }
      } else found.alike.push({ at, length: here, address, equalBytes: here })
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

/** How many bytes are equal from there on, up to the first that is not. */
function commonBytes(
  a: Uint8Array,
  from: number,
  to: number,
  b: Uint8Array,
  start: number,
  end: number,
): number {
  const limit = Math.min(to - from, end - start)
  let length = 0
  while (length < limit && a[from + length] === b[start + length]) length++
  return length
}

/** How many of `length` bytes are equal. */
function equalBytes(a: Uint8Array, from: number, b: Uint8Array, start: number, length: number): number {
  let equal = 0
  for (let at = 0; at < length; at++) if (a[from + at] === b[start + at]) equal++
  return equal
}
