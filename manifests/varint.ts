/**
 * Reading and writing of our binary formats: unsigned LEB128 varints below 2^53, and runs of bytes.
 *
 * The reader never goes past its end and accepts only the shortest form of a number, so that a
 * format has one encoding; its failures carry the error code of the format that is being read.
 */
import { EdgeError, type EdgeErrorCode } from './errors.ts'

export class ByteWriter {
  #bytes = Buffer.allocUnsafe(1024)
  #length = 0

  get length(): number {
    return this.#length
  }

  /** @param value an integer, 0 to 2^53 - 1. */
  varint(value: number): this {
    this.#reserve(8)
    while (value >= 0x80) {
      this.#bytes[this.#length++] = (value % 0x80) | 0x80
      value = Math.floor(value / 0x80)
    }
    this.#bytes[this.#length++] = value
    return this
  }

  bytes(bytes: Uint8Array): this {
    this.#reserve(bytes.length)
    this.#bytes.set(bytes, this.#length)
    this.#length += bytes.length
    return this
  }

  /** What was written so far; valid until the next write. */
  done(): Buffer {
    return this.#bytes.subarray(0, this.#length)
  }

  #reserve(more: number): void {
    if (this.#length + more <= this.#bytes.length) return
    const larger = Buffer.allocUnsafe(Math.max(this.#bytes.length * 2, this.#length + more))
    larger.set(this.done())
    this.#bytes = larger
  }
}

export class ByteReader {
  readonly #bytes: Uint8Array
  readonly #code: EdgeErrorCode
  #at = 0

  /** @param code of the error thrown for whatever is wrong with `bytes`. */
  constructor(bytes: Uint8Array, code: EdgeErrorCode) {
    this.#bytes = bytes
    this.#code = code
  }

  get left(): number {
    return this.#bytes.length - this.#at
  }

  /** @param max the largest value that makes sense here. */
  varint(max: number = Number.MAX_SAFE_INTEGER): number {
    let value = 0
    let scale = 1
    for (let count = 1; count <= 8; count++) {
      const byte = this.#bytes[this.#at++]
      if (byte === undefined) throw this.invalid('ends inside a number')
      value += (byte & 0x7f) * scale
      if (byte < 0x80) {
        if (byte === 0 && count > 1) throw this.invalid('a number is not in its shortest form')
        if (value > max) throw this.invalid(`${value} is more than ${max}`)
        return value
      }
      scale *= 0x80
    }
    throw this.invalid('a number is too long')
  }

  /** A view, not a copy. */
  bytes(length: number): Uint8Array {
    if (length > this.left) throw this.invalid(`${length} bytes expected, ${this.left} left`)
    this.#at += length
    return this.#bytes.subarray(this.#at - length, this.#at)
  }

  end(): void {
    if (this.left !== 0) throw this.invalid(`${this.left} bytes too many`)
  }

  invalid(what: string): EdgeError {
    return new EdgeError(this.#code, `${what}, at byte ${this.#at} of ${this.#bytes.length}`)
  }
}
