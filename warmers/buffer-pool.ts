/**
 * Buffers that are used again: megabytes allocated for each frame make the collector run all the
 * time (a fifth of a fill's CPU), since it counts memory outside its heap, too. And no more of them at
 * once than keep two cores and the disk busy, however many connections there are: what waits for
 * its turn is on disk, not in memory.
 */
export interface Lease extends Disposable {
  /** Exactly as long as asked for; old bytes in it. Must not be used after the lease. */
  readonly bytes: Buffer
}

/** Leased at once; a single bigger buffer is alone. */
const LEASED_BYTES_MAX = 12 * 1024 * 1024
/** Kept for so long after the last lease. */
const KEPT_MS = 5000
/** Sizes are rounded up, so that one fits many. */
const STEP_BYTES = 1024 * 1024

/** The smallest first; all and those on lease are `LEASED_BYTES_MAX` at most, or one. */
let free: Buffer[] = []
let freeBytes = 0
let forgetting: NodeJS.Timeout | undefined
let leasedBytes = 0
const waiting: { readonly heldBytes: number; readonly start: () => void }[] = []

/**
 * In the order of asking. Whoever holds a lease must not wait for another one.
 * @param besidesBytes what the holder is going to allocate beside the buffer.
 */
export async function leaseBuffer(sizeBytes: number, besidesBytes = 0): Promise<Lease> {
  const heldBytes = sizeBytes + besidesBytes
  if (waiting.length > 0 || !fits(heldBytes)) {
    const { promise, resolve } = Promise.withResolvers<void>()
    waiting.push({ heldBytes, start: resolve })
    await promise
  } else {
    leasedBytes += heldBytes
  }
  const whole = take(sizeBytes)
  let isOver = false
  return {
    bytes: whole.subarray(0, sizeBytes),
    [Symbol.dispose]() {
      if (isOver) return
      isOver = true
      give(whole)
      leasedBytes -= heldBytes
      while (waiting[0] && fits(waiting[0].heldBytes)) {
        leasedBytes += waiting[0].heldBytes
        waiting.shift()!.start()
      }
    },
  }
}

function fits(heldBytes: number): boolean {
  return leasedBytes === 0 || leasedBytes + heldBytes <= LEASED_BYTES_MAX
}

function take(sizeBytes: number): Buffer {
  const at = free.findIndex(buffer => buffer.length >= sizeBytes)
  if (at < 0) return Buffer.allocUnsafeSlow(Math.ceil(Math.max(sizeBytes, 1) / STEP_BYTES) * STEP_BYTES)
  const [whole] = free.splice(at, 1)
  freeBytes -= whole!.length
  return whole!
}

/** Larger ones are kept rather than smaller ones: they fit more. */
function give(whole: Buffer): void {
  free = [...free, whole].sort((a, b) => a.length - b.length)
  freeBytes += whole.length
  while (freeBytes > LEASED_BYTES_MAX) freeBytes -= free.shift()!.length
  forgetting ??= setTimeout(forget, KEPT_MS).unref()
  forgetting.refresh()
}

function forget(): void {
  free = []
  freeBytes = 0
  forgetting = undefined
}
