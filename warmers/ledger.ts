/**
 * The ledger (I10): every byte in and out, by link, window, dataset, source and reason.
 *
 * Kept in a database of its own, so that accounting can neither slow nor damage the store. Rows
 * are written at once but synced lazily: after kill -9 the ledger knows every byte that was told to
 * it, after a power cut all but the last seconds'. Rows of one hour with the same key are one row.
 */
import { DatabaseSync } from 'node:sqlite'
import type { WireRecord } from './upstream.ts'

export interface LedgerKey {
  readonly link: string
  /** The contact window's name and beginning, `night 2026-11-20T01:00:00Z`; empty outside one. */
  readonly window: string
  /** Empty for metadata that belongs to all. */
  readonly dataset: string
  /** The upstream's name. */
  readonly source: string
  readonly reason: string
}

export interface LedgerRow extends LedgerKey {
  /** The hour in which it began; ISO 8601. */
  readonly since: string
  readonly bytesDown: number
  readonly bytesUp: number
  readonly requests: number
}

export type LedgerField = keyof LedgerKey

export interface LedgerTotals {
  readonly bytesDown: number
  readonly bytesUp: number
  readonly requests: number
}

export interface LedgerQuery extends Partial<LedgerKey> {
  readonly sinceMs?: number
  readonly untilMs?: number
}

export interface Ledger extends Disposable {
  add(record: WireRecord & Omit<LedgerKey, keyof WireRecord>): void
  totals(query?: LedgerQuery): LedgerTotals
  /** Totals for each value of `field`, most bytes first. */
  totalsBy(field: LedgerField, query?: LedgerQuery): readonly (LedgerTotals & { readonly key: string })[]
  /** Newest first. */
  rows(query: LedgerQuery, limit: number): readonly LedgerRow[]
}

const HOUR_MS = 3_600_000
const FIELDS = ['link', 'window', 'dataset', 'source', 'reason'] as const satisfies LedgerField[]

/** @param path `:memory:` for one that is not kept. A damaged ledger is set aside by the caller. */
export function openLedger(path: string, now: () => number = Date.now): Ledger {
  const database = new DatabaseSync(path)
  database.exec(`
    pragma journal_mode = wal;
    pragma synchronous = normal;
    pragma busy_timeout = 2000;
    create table if not exists wire_v1 (
      hour integer not null, link text not null, window text not null, dataset text not null,
      source text not null, reason text not null,
      down integer not null, up integer not null, requests integer not null,
      primary key (hour, link, window, dataset, source, reason)
    ) without rowid, strict`)
  const insert = database.prepare(`
    insert into wire_v1 values (?, ?, ?, ?, ?, ?, ?, ?, ?)
    on conflict do update set down = down + excluded.down, up = up + excluded.up, requests = requests + excluded.requests`)
  const sums =
    'coalesce(sum(down), 0) as bytesDown, coalesce(sum(up), 0) as bytesUp, coalesce(sum(requests), 0) as requests'

  return {
    add({ link, window, dataset, source, reason, bytesDown, bytesUp, requests }) {
      insert.run(
        Math.floor(now() / HOUR_MS),
        link,
        window,
        dataset,
        source,
        reason,
        bytesDown,
        bytesUp,
        requests,
      )
    },
    totals(query = {}) {
      const { where, values } = conditionsOf(query)
      return {
        ...database.prepare(`select ${sums} from wire_v1 ${where}`).get(...values),
      } as unknown as LedgerTotals
    },
    totalsBy(field, query = {}) {
      if (!FIELDS.includes(field)) throw new TypeError(`no such field: ${field}`)
      const { where, values } = conditionsOf(query)
      const rows = database.prepare(
        `select ${field} as key, ${sums} from wire_v1 ${where} group by 1 order by 2 desc, 1`,
      )
      return rows.all(...values).map(row => ({ ...row })) as unknown as (LedgerTotals & { key: string })[]
    },
    rows(query, limit) {
      const { where, values } = conditionsOf(query)
      const found = database.prepare(
        `select hour, link, window, dataset, source, reason, down as bytesDown, up as bytesUp, requests
         from wire_v1 ${where} order by hour desc, bytesDown desc limit ?`,
      )
      return found.all(...values, limit).map(({ hour, ...row }) => ({
        since: new Date(Number(hour) * HOUR_MS).toISOString(),
        ...row,
      })) as unknown as LedgerRow[]
    },
    [Symbol.dispose]: () => database.close(),
  }
}

function conditionsOf(query: LedgerQuery): { where: string; values: (string | number)[] } {
  const named = FIELDS.filter(field => query[field] !== undefined)
  const parts = named.map(field => `${field} = ?`)
  const values: (string | number)[] = named.map(field => query[field]!)
  if (query.sinceMs !== undefined) {
    parts.push('hour >= ?')
    values.push(Math.floor(query.sinceMs / HOUR_MS))
  }
  if (query.untilMs !== undefined) {
    parts.push('hour < ?')
    values.push(Math.ceil(query.untilMs / HOUR_MS))
  }
  return { where: parts.length > 0 ? `where ${parts.join(' and ')}` : '', values }
}
