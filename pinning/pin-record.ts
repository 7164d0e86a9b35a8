/**
 * What we remember of each pin, per target: its status, why, when it was last proven. A SQLite file
 * of its own, `pins.db`; losing it loses no pin, since wishes come from the manifests and the
 * operator, and the targets say what they keep.
 *
 * Rows are read and written some hundreds at a time, with a turn for others in between: a hundred
 * thousand pins must not hold up who is being served (I6).
 */
import type { Cid } from '../manifests/cid.ts'
import { Database, type Row } from '../node/store/database.ts'
import type { KnownPin, PinStatus } from './plan-pins.ts'

export interface PinRow extends KnownPin {
  readonly target: string
  readonly sizeBytes: number
  readonly why: string
  readonly error: string | null
  /** Unix ms of the last read that verified; null when never. */
  readonly provedAtMs: number | null
}

export interface PinCount {
  readonly target: string
  readonly status: PinStatus
  readonly pins: number
  readonly bytes: number
  /** The oldest proof; null when one was never proven. */
  readonly provedAtMs: number | null
}

export interface PinRecord extends Disposable {
  known(target: string): Promise<ReadonlyMap<Cid, PinRow>>
  put(rows: readonly PinRow[]): Promise<void>
  forget(target: string, roots: readonly Cid[]): Promise<void>
  /** Forgets targets that are not among these: they were taken out of the settings. */
  retain(targets: readonly string[]): void
  /** Pinned ones whose proof is the oldest, or never was; at most `limit`. */
  leastProven(target: string, limit: number): readonly PinRow[]
  /** Rows after a root, in the order of roots; at most `limit`. */
  page(target: string, after: string, limit: number): readonly PinRow[]
  /** Counts and bytes by target and status. */
  summary(): readonly PinCount[]
}

const SCHEMA = `
CREATE TABLE pins (
  target TEXT NOT NULL, root TEXT NOT NULL, status TEXT NOT NULL, attempts INTEGER NOT NULL,
  retryAtMs INTEGER NOT NULL, sizeBytes INTEGER NOT NULL, why TEXT NOT NULL, error TEXT,
  provedAtMs INTEGER, PRIMARY KEY (target, root)
) STRICT, WITHOUT ROWID;
CREATE INDEX pins_by_proof ON pins (target, status, provedAtMs, sizeBytes)`
const ROWS_AT_ONCE = 200

export function openPinRecord(path: string): PinRecord {
  const database = new Database({
    path,
    schema: SCHEMA,
    readOnly: false,
    derived: true,
    onDamage: () => {}, // the next round asks the targets
  })
  let summary: readonly PinCount[] | undefined

  const inSlices = async <T>(all: readonly T[], change: (one: T) => void) => {
    for (let from = 0; from < all.length; from += ROWS_AT_ONCE) {
      database.transaction(() => all.slice(from, from + ROWS_AT_ONCE).forEach(change))
      summary = undefined
      await turn()
    }
  }
  const page = (target: string, after: string, limit: number) =>
    database
      .all('SELECT * FROM pins WHERE target = ? AND root > ? ORDER BY root LIMIT ?', target, after, limit)
      .map(rowOf)

  return {
    async known(target) {
      const known = new Map<Cid, PinRow>()
      for (let after = ''; ; await turn()) {
        const rows = page(target, after, ROWS_AT_ONCE)
        for (const row of rows) known.set(row.root, row)
        after = rows.at(-1)?.root ?? ''
        if (rows.length < ROWS_AT_ONCE) return known
      }
    },
    put: rows =>
      inSlices(rows, ({ target, root, status, attempts, retryAtMs, sizeBytes, why, error, provedAtMs }) => {
        database.run(
          `INSERT OR REPLACE INTO pins (target, root, status, attempts, retryAtMs, sizeBytes, why, error, provedAtMs)
           VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)`,
          ...[target, root, status, attempts, retryAtMs, sizeBytes, why, error, provedAtMs],
        )
      }),
    forget: (target, roots) =>
      inSlices(roots, root => {
        database.run('DELETE FROM pins WHERE target = ? AND root = ?', target, root)
      }),
    retain(targets) {
      const names = targets.map(() => '?').join(', ')
      database.run(`DELETE FROM pins WHERE target NOT IN (${names})`, ...targets)
      summary = undefined
    },
    leastProven: (target, limit) =>
      database
        .all(
          `SELECT * FROM pins WHERE target = ? AND status = 'pinned' ORDER BY provedAtMs LIMIT ?`,
          target,
          limit,
        )
        .map(rowOf),
    page,
    summary() {
      summary ??= database.all(
        `SELECT target, status, count(*) AS pins, sum(sizeBytes) AS bytes,
           CASE WHEN count(provedAtMs) = count(*) THEN min(provedAtMs) END AS provedAtMs
         FROM pins GROUP BY target, status ORDER BY target, status`,
      ) as unknown as readonly PinCount[]
      return summary
    },
    [Symbol.dispose]: () => database[Symbol.dispose](),
  }
}

function rowOf(row: Row): PinRow {
  return row as unknown as PinRow
}

function turn(): Promise<void> {
  return new Promise(resolve => setImmediate(resolve))
}
