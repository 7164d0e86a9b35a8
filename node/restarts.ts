/**
 * Processes that died are started again: soon, and ever later while they keep dying, so that one
 * that cannot start does not take the machine with it.
 */
export interface RestartBounds {
  readonly msMin: number
  readonly msMax: number
}

/** A process that lived this long was sound; its death is not held against the next one. */
const SOUND_MS = 30_000

export class Restarts implements Disposable {
  readonly #bounds: RestartBounds
  readonly #timers = new Set<NodeJS.Timeout>()

  constructor(bounds: RestartBounds) {
    this.#bounds = bounds
  }

  /**
   * @param pauseMs how long to wait, unless it was sound.
   * @param start gets the pause for the next time.
   */
  after(aliveMs: number, pauseMs: number, start: (nextPauseMs: number) => void): void {
    const { msMin, msMax } = this.#bounds
    const ms = aliveMs > SOUND_MS ? msMin : pauseMs
    const timer = setTimeout(() => {
      this.#timers.delete(timer)
      start(Math.min(ms * 2, msMax))
    }, ms)
    this.#timers.add(timer)
  }

  /** Nobody is started any more. */
  [Symbol.dispose](): void {
    for (const timer of this.#timers) clearTimeout(timer)
  }
}
