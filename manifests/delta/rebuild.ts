/**
 * Applies one part of a static delta: the extents that it rebuilds, from literals and old bytes.
 *
 * Nothing here is believed: lengths are bounded by signed sizes before anything is allocated, and
 * what comes out is chunked again and compared with its CID. An old byte that is not here is
 * taken as 0 in a dictionary, since most extents of the part will not need it.
 */
import { LRUCache } from 'lru-cache'
import { extentOf } from '../chunk-rule.ts'
import { codecOf, type Cid } from '../cid.ts'
import { isEdgeError } from '../errors.ts'
import type { ChunkRule } from '../extent.ts'
import { inflate } from './deflate.ts'
import { deflate } from './exact-deflate.ts'
import { type AddressRange, type DecodedPart, decodePart } from './part.ts'
import type { BaseStream, ExtentStream } from './part-streams.ts'
import { invalid, unpack } from './section.ts'

/**
 * Bytes of one of the part's bases, numbered as in `DeltaPart.bases`; exactly as many as asked for.
 * @throws EdgeError `DELTA_BASE_ABSENT`
 */
export type ReadPartBase = (base: number, offset: number, length: number) => Promise<Uint8Array>

/** Copies jump; bases are read in windows of this size, and some are kept. */
const WINDOW_BYTES = 512 * 1024
const KEPT_BYTES = 16 * 1024 * 1024

export class PartReader {
  readonly #decoded: DecodedPart
  readonly #literals: Buffer
  readonly #differences: Uint8Array
  /** Where each extent's literals and differences begin. */
  readonly #starts: readonly { readonly literal: number; readonly difference: number }[]
  readonly #bases: BaseSpace

  private constructor(decoded: DecodedPart, literals: Buffer, differences: Uint8Array, bases: BaseSpace) {
    this.#decoded = decoded
    this.#literals = literals
    this.#differences = differences
    this.#bases = bases
    let literal = 0
    let difference = 0
    this.#starts = decoded.extents.map(operations => {
      const own = { literal, difference }
      for (const { literalBytes, copyBytes, alike } of operations) {
        literal += literalBytes
        if (alike) difference += copyBytes
      }
      return own
    })
  }

  /**
   * @param stored the part as it lies in the file.
   * @param extentSizes bytes of its extents, signed.
   * @param baseSizes bytes of its bases.
   * @throws EdgeError `DELTA_INVALID`
   */
  static async open(
    stored: Uint8Array,
    extentSizes: readonly number[],
    baseSizes: readonly number[],
    readBase: ReadPartBase,
  ): Promise<PartReader> {
    const decoded = await decodePart(
      stored,
      extentSizes,
      baseSizes.reduce((sum, size) => sum + size, 0),
    )
    const bases = new BaseSpace(baseSizes, decoded.streams.ofBases, readBase)
    const frames: Uint8Array[] = []
    for (const { section, dictionary } of decoded.frames)
      frames.push(await unpack(section, await bases.readLeniently(dictionary)))
    return new PartReader(
      decoded,
      Buffer.concat(frames),
      await unpack(decoded.differences, new Uint8Array(0)),
      bases,
    )
  }

  /**
   * Bytes of the part's extent number `at`: not yet verified.
   * @throws EdgeError `DELTA_BASE_ABSENT`
   */
  async rebuild(at: number): Promise<Buffer> {
    const operations = this.#decoded.extents[at]!
    const bytes = Buffer.allocUnsafe(
      operations.reduce((sum, { literalBytes, copyBytes }) => sum + literalBytes + copyBytes, 0),
    )
    let { literal, difference } = this.#starts[at]!
    let to = 0
    for (const { literalBytes, copyBytes, address, alike } of operations) {
      this.#literals.copy(bytes, to, literal, literal + literalBytes)
      literal += literalBytes
      to += literalBytes
      await this.#bases.copy({ from: address, to: address + copyBytes }, bytes, to)
      if (alike) {
        addTo(bytes, to, this.#differences.subarray(difference, difference + copyBytes))
        difference += copyBytes
      }
      to += copyBytes
    }
    return deflated(
      bytes,
      this.#decoded.streams.ofExtents.filter(({ extent }) => extent === at),
    )
  }

  /** @throws EdgeError `DELTA_INVALID` when the bytes are not those of `cid`; `DELTA_BASE_ABSENT` */
  async verified(at: number, cid: Cid, rule: ChunkRule): Promise<Buffer> {
    const bytes = await this.rebuild(at)
    const { extent } = extentOf(bytes, rule, codecOf(cid) === 'raw')
    if (extent.cid !== cid) throw invalid(`rebuilding ${cid} gave other bytes`)
    return bytes
  }
}

/** An extent's inside, with its streams made again. */
function deflated(inside: Buffer, streams: readonly ExtentStream[]): Buffer {
  if (streams.length === 0) return inside
  const pieces: Uint8Array[] = []
  let at = 0
  for (const { from, rawBytes, skippedBytes, storedBytes, level, memLevel } of streams) {
    const whole = deflate(inside.subarray(from, from + rawBytes), { level, memLevel })
    const stream = whole.subarray(skippedBytes, skippedBytes + storedBytes)
    if (stream.length !== storedBytes) throw invalid(`a stream came out with ${whole.length} bytes`)
    pieces.push(inside.subarray(at, from), stream)
    at = from + rawBytes
  }
  pieces.push(inside.subarray(at))
  return Buffer.concat(pieces)
}

function addTo(bytes: Uint8Array, at: number, differences: Uint8Array): void {
  for (let index = 0; index < differences.length; index++) bytes[at + index]! += differences[index]!
}

/** A part's bases laid end to end, and after them the expanded streams of theirs. */
class BaseSpace {
  readonly #starts: readonly number[]
  readonly #sizes: readonly number[]
  readonly #streams: readonly BaseStream[]
  readonly #readBase: ReadPartBase
  readonly #windows = new LRUCache<number, Uint8Array>({
    maxSize: KEPT_BYTES,
    sizeCalculation: bytes => bytes.length + 1,
  })

  constructor(baseSizes: readonly number[], streams: readonly BaseStream[], readBase: ReadPartBase) {
    this.#sizes = [...baseSizes, ...streams.map(({ rawBytes }) => rawBytes)]
    this.#streams = streams
    let start = 0
    this.#starts = this.#sizes.map(size => {
      start += size
      return start - size
    })
    this.#readBase = readBase
  }

  /** The bytes of a range, put into `target` at `at`. @throws EdgeError `DELTA_BASE_ABSENT` */
  async copy(range: AddressRange, target: Buffer, at: number): Promise<void> {
    for (let { from } = range; from < range.to; ) {
      const { base, offset, length } = this.#pieceAt(from, range.to)
      const bytes = await this.#read(base, offset, length)
      target.set(bytes, at)
      at += bytes.length
      from += bytes.length
    }
  }

  /** The ranges' bytes, joined; those of bases that are absent are 0. */
  async readLeniently(ranges: readonly AddressRange[]): Promise<Buffer> {
    const bytes = Buffer.alloc(ranges.reduce((sum, { from, to }) => sum + to - from, 0))
    let at = 0
    for (const { from, to } of ranges) {
      for (let next = from; next < to; ) {
        const { base, offset, length } = this.#pieceAt(next, to)
        const read = await this.#read(base, offset, length).catch(error => {
          if (isEdgeError(error, 'DELTA_BASE_ABSENT')) return { length }
          throw error
        })
        if (read instanceof Uint8Array) bytes.set(read, at)
        at += read.length
        next += read.length
      }
    }
    return bytes
  }

  #pieceAt(address: number, to: number): { base: number; offset: number; length: number } {
    let first = 0
    let last = this.#starts.length - 1
    while (first < last) {
      const middle = (first + last + 1) >> 1
      if (this.#starts[middle]! <= address) first = middle
      else last = middle - 1
    }
    const offset = address - this.#starts[first]!
    return { base: first, offset, length: Math.min(to - address, this.#sizes[first]! - offset) }
  }

  /** At least one byte of what is asked for, at most `length`. */
  async #read(base: number, offset: number, length: number): Promise<Uint8Array> {
    const stream = this.#streams[base - (this.#sizes.length - this.#streams.length)]
    const windowFrom = stream ? 0 : Math.floor(offset / WINDOW_BYTES) * WINDOW_BYTES
    const windowBytes = stream ? stream.rawBytes : Math.min(WINDOW_BYTES, this.#sizes[base]! - windowFrom)
    const key = this.#starts[base]! + windowFrom
    let window = this.#windows.get(key)
    if (!window) {
      window = stream ? await this.#expand(stream) : await this.#readBase(base, windowFrom, windowBytes)
      if (window.length !== windowBytes)
        throw invalid(`a base gave ${window.length} bytes instead of ${windowBytes}`)
      this.#windows.set(key, window)
    }
    return window.subarray(offset - windowFrom, offset - windowFrom + length)
  }
  async #expand({ address, storedBytes, rawBytes }: BaseStream): Promise<Uint8Array> {
    const stored = Buffer.allocUnsafe(storedBytes)
    await this.copy({ from: address, to: address + storedBytes }, stored, 0)
    return inflate(stored, rawBytes)
  }
}
