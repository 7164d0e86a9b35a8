/**
 * Group commit: whoever writes rows waits for one shared transaction, so thousands of small blocks
 * cost one fsync. A group is bounded, so that it holds the event loop for some milliseconds only.
 */
import type { Database } from './database.ts'

const GROUP_WORKS_MAX = 400
const GROUP_BYTES_MAX = 2 * 1024 * 1024

interface Waiting {
  readonly work: () => void
  readonly bytes: number
  readonly resolve: () => void
  readonly reject: (error: unknown) => void
}

export class CommitQueue {
  readonly #database: Database
  #waiting: Waiting[] = []
  #scheduled = false

  constructor(database: Database) {
    this.#database = database
  }

  /** Runs `work` inside a transaction soon; durable when resolved. */
  commit(work: () => void, bytes = 0): Promise<void> {
    return new Promise((resolve, reject) => {
      this.#waiting.push({ work, bytes, resolve, reject })
      this.#schedule()
    })
  }

  /** Everything that waits, now. */
  flush(): void {
    while (this.#waiting.length > 0) this.#commitGroup()
  }

  #schedule(): void {
    if (this.#scheduled) return
    this.#scheduled = true
    setImmediate(() => {
      this.#scheduled = false
      if (this.#waiting.length > 0) this.#commitGroup()
      if (this.#waiting.length > 0) this.#schedule()
    })
  }

  #commitGroup(): void {
    const group = this.#takeGroup()
    try {
      this.#database.transaction(() => {
        for (const { work } of group) work()
      })
    } catch (error) {
      for (const { reject } of group) reject(error)
      return
    }
    for (const { resolve } of group) resolve()
  }

  #takeGroup(): Waiting[] {
    let bytes = 0
    let count = 0
    while (count < Math.min(this.#waiting.length, GROUP_WORKS_MAX) && bytes < GROUP_BYTES_MAX) {
      bytes += this.#waiting[count++]!.bytes
    }
    return this.#waiting.splice(0, count)
  }
}
