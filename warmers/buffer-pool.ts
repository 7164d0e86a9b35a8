/**
 * Buffers that are used again: megabytes allocated for each frame make the collector run all the
 * time (a fifth of a fill's CPU), since it counts memory outside its heap, too.
 */
export interface Lease extends Disposable {
  /** Exactly as long as asked for; old bytes in it. Must not be used after the lease. */
  readonly bytes: Buffer
}

const KEPT_BYTES_MAX = 32 * 1024 * 1024
/** Sizes are rounded up, so that one fits many. */
const STEP_BYTES = 1024 * 1024

const free: Buffer[] = []
let freeBytes = 0

export function leaseBuffer(sizeBytes: number): Lease {
  const at = free.findIndex(buffer => buffer.length >= sizeBytes)
  const whole =
    at >= 0
      ? free.splice(at, 1)[0]!
      : Buffer.allocUnsafeSlow(Math.ceil(Math.max(sizeBytes, 1) / STEP_BYTES) * STEP_BYTES)
  if (at >= 0) freeBytes -= whole.length
  let isOver = false
  return {
    bytes: whole.subarray(0, sizeBytes),
    [Symbol.dispose]() {
      if (isOver || freeBytes + whole.length > KEPT_BYTES_MAX) return
      isOver = true
      free.push(whole)
      freeBytes += whole.length
    },
  }
}
