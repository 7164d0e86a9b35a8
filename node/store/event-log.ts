/**
 * What happened to content and why, for the operator who asks (I10): the last ten thousand events.
 */
import type { Database } from './database.ts'
import type { HealCount, StoreEvent } from './store.ts'

const KEPT = 10_000
const PRUNE_EVERY = 500

const CAUSES = [
  [/its digest differs/, 'wrong bytes'],
  [/ends early|too short/, 'too short'],
  [/cannot be/, 'unreadable'],
  [/bytes are gone/, 'gone'],
  [/its node/, 'wrong node'],
  [/was in the/, 'misplaced'],
] as const
type HealCause = (typeof CAUSES)[number][1] | 'absent' | 'other'

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
      for (const name of ['healed', `healed ${why}`, `heal of ${this.#causeOf(subject)} ${why}`]) {
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

  /** What was wrong, as last noted. */
  #causeOf(subject: string): HealCause {
    const row = this.#database.get(
      `SELECT why FROM events WHERE subject = ? AND what IN ('quarantined', 'damaged') ORDER BY id DESC LIMIT 1`,
      subject,
    )
    if (!row) return 'absent'
    const why = String(row['why'])
    return CAUSES.find(([words]) => words.test(why))?.[1] ?? 'other'
  }

  /** Since ever, by what was wrong and where the bytes came from. */
  heals(): HealCount[] {
    const rows = this.#database.all(`SELECT name, value FROM state WHERE name LIKE 'heal of %'`)
    return rows.flatMap(({ name, value }) => {
      const [, cause, source] = /^heal of (.+?) from (.+)$/.exec(String(name)) ?? []
      return cause && source ? [{ cause, source, heals: Number(value) }] : []
    })
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
