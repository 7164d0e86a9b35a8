/**
 * What we remember of each pin, per target: its status, why, when it was last proven. A SQLite file
 * of its own, `pins.db`; losing it loses no pin, since wishes come from the manifests and the
 * operator, and the targets say what they keep.
 */
import { DatabaseSync } from 'node:sqlite'
import type { Cid } from '../manifests/cid.ts'
import type { KnownPin, PinStatus } from './plan-pins.ts'

export interface PinRow extends KnownPin {
  readonly target: string
  readonly sizeBytes: number
  readonly why: string
  readonly error: string | null
  /** Unix ms of the last read that verified; null when never. */
  readonly provedAtMs: number | null
}

export interface PinRecord extends Disposable {
  known(target: string): ReadonlyMap<Cid, PinRow>
  /** All in one transaction. */
  put(rows: Iterable<PinRow>): void
  forget(target: string, roots: Iterable<Cid>): void
  /** Counts and bytes by target and status. */
  summary(): readonly {
    target: string
    status: PinStatus
    pins: number
    bytes: number
    provedAtMs: number | null
  }[]
}

export function openPinRecord(path: string): PinRecord {
  const database = new DatabaseSync(path)
  database.exec(`
    PRAGMA journal_mode = WAL; PRAGMA synchronous = NORMAL;
    CREATE TABLE IF NOT EXISTS pins (
      target TEXT NOT NULL, root TEXT NOT NULL, status TEXT NOT NULL, attempts INTEGER NOT NULL,
      retryAtMs INTEGER NOT NULL, sizeBytes INTEGER NOT NULL, why TEXT NOT NULL, error TEXT,
      provedAtMs INTEGER, PRIMARY KEY (target, root)
    ) STRICT, WITHOUT ROWID;`)
  const select = database.prepare('SELECT * FROM pins WHERE target = ?')
  const upsert = database.prepare(
    `INSERT OR REPLACE INTO pins (target, root, status, attempts, retryAtMs, sizeBytes, why, error, provedAtMs)
     VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)`,
  )
  const remove = database.prepare('DELETE FROM pins WHERE target = ? AND root = ?')
  const summary = database.prepare(
    `SELECT target, status, count(*) AS pins, sum(sizeBytes) AS bytes, min(provedAtMs) AS provedAtMs
     FROM pins GROUP BY target, status ORDER BY target, status`,
  )

  const inTransaction = (change: () => void) => {
    database.exec('BEGIN IMMEDIATE')
    try {
      change()
      database.exec('COMMIT')
    } catch (error) {
      database.exec('ROLLBACK')
      throw error
    }
  }

  return {
    known: target => new Map((select.all(target) as unknown as PinRow[]).map(row => [row.root, row])),
    put: rows =>
      inTransaction(() => {
        for (const row of rows) {
          const { target, root, status, attempts, retryAtMs, sizeBytes, why, error, provedAtMs } = row
          upsert.run(target, root, status, attempts, retryAtMs, sizeBytes, why, error, provedAtMs)
        }
      }),
    forget: (target, roots) =>
      inTransaction(() => {
        for (const root of roots) remove.run(target, root)
      }),
    summary: () => summary.all() as unknown as ReturnType<PinRecord['summary']>,
    [Symbol.dispose]: () => database.close(),
  }
}
