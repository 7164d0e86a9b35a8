/**
 * Room that was promised (I7). A fill says beforehand how much it will bring; what cannot be had is
 * refused then, with the shortfall, and not in the middle.
 */
import { EdgeError } from '../../manifests/errors.ts'

export interface Reservation extends Disposable {
  readonly why: string
  /** Bytes of the promise that are still open. */
  readonly bytes: number
  /** So much of it has been written and counts as content now. */
  use(bytes: number): void
}

export class Reservations {
  readonly #open = new Set<{ bytes: number }>()

  get bytes(): number {
    let sum = 0
    for (const { bytes } of this.#open) sum += bytes
    return sum
  }

  /**
   * @param roomBytes what could be had if everything left that may be evicted.
   * @throws EdgeError `STORE_FULL`
   */
  reserve(bytes: number, roomBytes: number, why: string): Reservation {
    const free = roomBytes - this.bytes
    if (bytes > free) {
      throw new EdgeError(
        'STORE_FULL',
        `${why} needs ${bytes} bytes and ${Math.max(0, free)} can be had: ${bytes - Math.max(0, free)} short`,
      )
    }
    const entry = { bytes }
    this.#open.add(entry)
    return {
      why,
      get bytes() {
        return entry.bytes
      },
      use: used => {
        entry.bytes = Math.max(0, entry.bytes - used)
      },
      [Symbol.dispose]: () => void this.#open.delete(entry),
    }
  }
}
