/** How far a fill is: what came so far, and how fast of late. */
import type { Batch } from './plan-fill.ts'

export interface FillProgress {
  readonly contentBytes: number
  readonly contentBytesTotal: number
  /** Of bodies; headers come on top. */
  readonly wireBytes: number
  readonly wireBytesTotal: number
  readonly bytesPerSecond: number
  readonly etaSeconds: number | null
}

/** What the rate is taken from. */
const SAMPLES = 20

export class FillMeter {
  contentBytes = 0
  #wireBytes = 0
  #contentTotal = 0
  #wireTotal = 0
  #samples: { at: number; wire: number; content: number }[] = []

  plan(batches: readonly Batch[]): void {
    this.#contentTotal = this.contentBytes + batches.reduce((sum, batch) => sum + batch.contentBytes, 0)
    this.#wireTotal =
      this.#wireBytes +
      batches.reduce((sum, { requests }) => sum + requests.reduce((all, span) => all + span.length, 0), 0)
  }

  add({ contentBytes, wireBytes }: { contentBytes: number; wireBytes: number }): void {
    this.contentBytes += contentBytes
    this.#wireBytes += wireBytes
  }

  progress(): FillProgress {
    const now = { at: performance.now(), wire: this.#wireBytes, content: this.contentBytes }
    this.#samples = [...this.#samples.slice(-SAMPLES + 1), now]
    const first = this.#samples[0]!
    const seconds = (now.at - first.at) / 1000
    const bytesPerSecond = seconds > 0 ? (now.wire - first.wire) / seconds : 0
    const left = this.#wireTotal - this.#wireBytes
    return {
      contentBytes: this.contentBytes,
      contentBytesTotal: this.#contentTotal,
      wireBytes: this.#wireBytes,
      wireBytesTotal: this.#wireTotal,
      bytesPerSecond: Math.round(bytesPerSecond),
      etaSeconds: left <= 0 ? 0 : bytesPerSecond > 0 ? Math.ceil(left / bytesPerSecond) : null,
    }
  }
}
