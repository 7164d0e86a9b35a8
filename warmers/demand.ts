/**
 * What people here ask for, as counts that halve every seven days (what trials found best): requests
 * for items that were not here count as well, that is how they get here. Nothing about who asks is
 * kept, only how often each item was asked for (T9).
 */
import { DatabaseSync } from 'node:sqlite'

export interface Demand extends Disposable {
  /** Somebody asked for an item. */
  asked(dataset: string, path: string): void
  /** The decayed count; 0 for what nobody asked for. */
  scoreOf(dataset: string, path: string): number
  /** Writes what changed since the last time. */
  flush(): void
}

const HALF_LIFE_MS = 7 * 86_400_000
/** Below this an item counts as never asked for, and is forgotten. */
const SCORE_MIN = 0.02
/** The least asked for are forgotten beyond this. */
const ITEMS_MAX = 50_000

interface Count {
  score: number
  atMs: number
  changed: boolean
}

/** @param path of a database of its own; `:memory:` for one that is not kept. */
export function openDemand(path: string, now: () => number = Date.now): Demand {
  const database = new DatabaseSync(path)
  database.exec(`
    pragma journal_mode = wal;
    pragma synchronous = normal;
    pragma busy_timeout = 2000;
    create table if not exists demand_v1 (item text primary key, score real not null, at integer not null) without rowid, strict`)
  const counts = new Map<string, Count>()
  for (const { item, score, at } of database.prepare('select item, score, at from demand_v1').all()) {
    counts.set(String(item), { score: Number(score), atMs: Number(at), changed: false })
  }
  const insert = database.prepare('insert or replace into demand_v1 values (?, ?, ?)')
  const remove = database.prepare('delete from demand_v1 where item = ?')
  const scoreNow = ({ score, atMs }: Count) => score * 2 ** (-Math.max(0, now() - atMs) / HALF_LIFE_MS)

  const flush = () => {
    const kept = [...counts].toSorted(([, a], [, b]) => scoreNow(b) - scoreNow(a))
    const faded = kept.filter(([, count], rank) => rank >= ITEMS_MAX || scoreNow(count) < SCORE_MIN)
    database.exec('begin')
    for (const [item] of faded) {
      counts.delete(item)
      remove.run(item)
    }
    for (const [item, count] of counts) {
      if (!count.changed) continue
      insert.run(item, count.score, Math.round(count.atMs))
      count.changed = false
    }
    database.exec('commit')
  }

  return {
    asked(dataset, itemPath) {
      const item = `${dataset}\n${itemPath}`
      const before = counts.get(item)
      counts.set(item, { score: (before ? scoreNow(before) : 0) + 1, atMs: now(), changed: true })
      if (counts.size > ITEMS_MAX * 1.2) flush()
    },
    scoreOf(dataset, itemPath) {
      const count = counts.get(`${dataset}\n${itemPath}`)
      return count ? scoreNow(count) : 0
    },
    flush,
    [Symbol.dispose]() {
      flush()
      database.close()
    },
  }
}

/**
 * Expected requests per byte, as trials weighed it (`size^0.5`), in steps of four: items of one step
 * keep their order, so that they still travel together. Larger is sooner; 0 for no demand.
 */
export function demandStep(score: number, sizeBytes: number): number {
  if (score <= 0) return 0
  return Math.max(1, 20 + Math.floor(Math.log(score / Math.sqrt(sizeBytes + 1)) / Math.log(4)))
}
