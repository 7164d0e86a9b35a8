/**
 * Reused read buffers, in steps of 32 KiB up to 256 KiB: a chunk is read into one, hashed there, and
 * written to the socket from there.
 *
 * A buffer comes back only once the kernel has all its bytes (a *successful* write callback).
 * Whoever is unsure drops it: reuse before that would send bytes that nobody verified (I1).
 * Last in, first out keeps the bytes in the CPU's cache; a fresh allocation per read costs as much
 * as hashing (bench/read, 64 KiB: 134 µs against 74).
 */

const STEP_BYTES = 32 * 1024
const STEPS = 8
/** The longest chunk of `fastcdc-v1`. */
export const POOLED_BYTES_MAX = STEPS * STEP_BYTES

export class BufferPool {
  /** By length, in steps. */
  readonly #free: readonly Buffer[][] = Array.from({ length: STEPS + 1 }, () => [])
  readonly #keptBytesMax: number
  #keptBytes = 0

  /** @param keptBytesMax how much may lie idle here; more is left to the garbage collector. */
  constructor(keptBytesMax: number) {
    this.#keptBytesMax = keptBytesMax
  }

  /** At least `sizeBytes` long; what is in it is somebody's old bytes. */
  take(sizeBytes: number): Buffer {
    const steps = Math.ceil(sizeBytes / STEP_BYTES)
    for (let longer = steps; longer <= STEPS; longer++) {
      const buffer = this.#free[longer]!.pop()
      if (buffer === undefined) continue
      this.#keptBytes -= buffer.length
      return buffer
    }
    return Buffer.allocUnsafeSlow(Math.max(1, steps) * STEP_BYTES)
  }

  give(buffer: Buffer): void {
    if (this.#keptBytes + buffer.length > this.#keptBytesMax) return
    const free = buffer.length % STEP_BYTES === 0 ? this.#free[buffer.length / STEP_BYTES] : undefined
    if (!free) return
    free.push(buffer)
    this.#keptBytes += buffer.length
  }

  get keptBytes(): number {
    return this.#keptBytes
  }
}
