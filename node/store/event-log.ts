/**
 * What happened to content and why, for the operator who asks (I10): the last ten thousand events.
 */
import type { Database } from './database.ts'
import type { StoreEvent } from './store.ts'

const KEPT = 10_000
const PRUNE_EVERY = 500

export class EventLog {
  readonly #database: Database
  readonly #now: () => number
  #sincePrune = 0

  constructor(database: Database, now: () => number) {
    this.#database = database
    this.#now = now
  }

  /** Inside a transaction, where there is one. */
  add(what: StoreEvent['what'], subject: string, why: string): void {
    this.#database.run(
      'INSERT INTO events (at, what, subject, why) VALUES (?, ?, ?, ?)',
      this.#now(),
      what,
      subject,
      why,
    )
    if (what === 'healed') {
      for (const name of ['healed', `healed ${why}`]) {
        this.#database.run(
          `INSERT INTO state (name, value) VALUES (?, '1') ON CONFLICT (name) DO UPDATE SET value = value + 1`,
          name,
        )
      }
    }
    if (++this.#sincePrune < PRUNE_EVERY) return
    this.#sincePrune = 0
    this.#database.run('DELETE FROM events WHERE id <= (SELECT max(id) FROM events) - ?', KEPT)
  }

  last(limit: number): StoreEvent[] {
    const rows = this.#database.all(
      'SELECT at, what, subject, why FROM events ORDER BY id DESC LIMIT ?',
      limit,
    )
    return rows.map(({ at, what, subject, why }) => ({
      atMs: Number(at),
      what: String(what) as StoreEvent['what'],
      subject: String(subject),
      why: String(why),
    }))
  }

  /** By where the bytes came from, `from s3`. */
  healedBy(): Record<string, number> {
    const rows = this.#database.all(`SELECT name, value FROM state WHERE name LIKE 'healed from %'`)
    return Object.fromEntries(
      rows.map(({ name, value }) => [String(name).slice('healed from '.length), Number(value)]),
    )
  }

  /** How often something was ever healed; events themselves are forgotten in the end. */
  get healed(): number {
    return Number(this.#database.get(`SELECT value FROM state WHERE name = 'healed'`)?.['value'] ?? 0)
  }
}
