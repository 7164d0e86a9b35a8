/**
 * Reused read buffers of 64, 128 and 256 KiB: a chunk is read into one, hashed there, and written
 * to the socket from there.
 *
 * A buffer comes back only once the kernel has all its bytes (a *successful* write callback).
 * Whoever is unsure drops it: reuse before that would send bytes that nobody verified (I1).
 * Last in, first out keeps the bytes in the CPU's cache; a fresh allocation per read costs as much
 * as hashing (bench/read, 64 KiB: 134 µs against 74).
 */

const CLASSES: readonly [number, number, number] = [64 * 1024, 128 * 1024, 256 * 1024]
/** The longest chunk of `fastcdc-v1` and of a catalog page with its last line is below this. */
export const BUFFER_BYTES_MAX = CLASSES[2]

export class BufferPool {
  readonly #free: [Buffer[], Buffer[], Buffer[]] = [[], [], []]
  readonly #keptBytesMax: number
  #keptBytes = 0

  /** @param keptBytesMax how much may lie idle here; more is left to the garbage collector. */
  constructor(keptBytesMax: number) {
    this.#keptBytesMax = keptBytesMax
  }

  /** At least `sizeBytes` long; what is in it is somebody's old bytes. */
  take(sizeBytes: number): Buffer {
    const index = sizeBytes <= CLASSES[0] ? 0 : sizeBytes <= CLASSES[1] ? 1 : 2
    const buffer = this.#free[index].pop()
    if (buffer === undefined) return Buffer.allocUnsafeSlow(Math.max(CLASSES[index], sizeBytes))
    this.#keptBytes -= buffer.length
    return buffer
  }

  give(buffer: Buffer): void {
    if (this.#keptBytes + buffer.length > this.#keptBytesMax) return
    const index = CLASSES.indexOf(buffer.length)
    if (index < 0) return
    this.#free[index as 0 | 1 | 2].push(buffer)
    this.#keptBytes += buffer.length
  }

  get keptBytes(): number {
    return this.#keptBytes
  }
}
