/**
 * Keeps connections out of step on a long link. Requests of one size that begin together share the
 * link, end together, and leave it empty for a round trip, all of them again and again: at 600 ms
 * that was a tenth of the link. So the first request of each connection is cut to another length.
 */

/** Where every answer takes longer the link is long: satellites are at 600 ms, a busy machine is not. */
const LONG_MS = 250
/** Shorter requests are not worth one more. */
const BYTES_MIN = 128 * 1024

export class Rhythm {
  readonly #connections: number
  #running = 0
  /** Requests since the link was idle. */
  #begun = 0
  /** The least that an answer took. */
  #answerMs = Infinity

  constructor(connections: number) {
    this.#connections = connections
  }

  /** From asking to the answer's first byte. */
  answered(ms: number): void {
    this.#answerMs = Math.min(this.#answerMs, ms)
  }

  /** How much of a request that begins now to ask for at first: all of it, but for the first few. */
  firstBytesOf(length: number): number {
    const isLong = this.#answerMs > LONG_MS && this.#answerMs < Infinity
    const turn = this.#begun
    // the first has a connection already, and fills the link while the others open theirs
    if (!isLong || length < BYTES_MIN || turn === 0 || turn >= this.#connections) return length
    return Math.ceil((length * turn) / this.#connections)
  }

  begin(): Disposable {
    this.#running++
    this.#begun++
    return {
      [Symbol.dispose]: () => {
        this.#running--
        if (this.#running === 0) this.#begun = 0
      },
    }
  }
}
