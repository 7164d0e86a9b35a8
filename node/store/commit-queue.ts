/**
 * Group commit: whoever writes rows waits for one shared transaction, so thousands of small blocks
 * cost one fsync. A group is bounded, so that it holds the event loop for some milliseconds only, and
 * the disk is waited for beside it: groups that end meanwhile share the next sync.
 */
import type { Database } from './database.ts'

/** A group ends when it has held the event loop for so long; its commit comes on top. */
const GROUP_MS_MAX = 4
const GROUP_WORKS_MAX = 500

interface Waiting {
  readonly work: () => void
  readonly resolve: () => void
  readonly reject: (error: unknown) => void
}

export class CommitQueue {
  readonly #database: Database
  #waiting: Waiting[] = []
  #unsynced: Waiting[] = []
  #scheduled = false
  #syncing = false

  constructor(database: Database) {
    this.#database = database
  }

  /** Runs `work` inside a transaction soon; durable when resolved. */
  commit(work: () => void): Promise<void> {
    return new Promise((resolve, reject) => {
      this.#waiting.push({ work, resolve, reject })
      this.#schedule()
    })
  }

  /** Everything that waits, now, and durable. */
  flush(): void {
    while (this.#waiting.length > 0) this.#commitGroup(work => this.#database.transaction(work))
  }

  #schedule(): void {
    if (this.#scheduled) return
    this.#scheduled = true
    setImmediate(() => {
      this.#scheduled = false
      if (this.#waiting.length > 0) this.#commitGroup(work => this.#database.transactionUnsynced(work))
      if (this.#waiting.length > 0) this.#schedule()
    })
  }

  #commitGroup(transaction: (work: () => void) => void): void {
    const group = this.#waiting.slice(0, GROUP_WORKS_MAX)
    let done = 0
    let failure: { readonly error: unknown } | undefined
    try {
      transaction(() => {
        const until = performance.now() + GROUP_MS_MAX
        done = 0
        for (const { work } of group) {
          work()
          done++
          if (performance.now() > until) return
        }
      })
    } catch (error) {
      failure = { error }
      done = Math.max(1, done) // what comes after the one that failed gets another try
    }
    const ended = this.#waiting.splice(0, done)
    if (failure) for (const { reject } of ended) reject(failure.error)
    else {
      this.#unsynced.push(...ended)
      if (!this.#syncing) void this.#sync()
    }
  }

  async #sync(): Promise<void> {
    this.#syncing = true
    while (this.#unsynced.length > 0) {
      const group = this.#unsynced
      this.#unsynced = []
      try {
        await this.#database.synced()
        for (const { resolve } of group) resolve()
      } catch (error) {
        for (const { reject } of group) reject(error)
      }
    }
    this.#syncing = false
  }
}
