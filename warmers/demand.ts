/**
 * What people here ask for: a decayed count per item (`value.ts`), kept over restarts. Requests for
 * items that are not here count as well; that is how they get here. Nothing about who asks is kept,
 * only how often each item was asked for (T9).
 */
import { DatabaseSync } from 'node:sqlite'
import { xorshift } from '../node/store/policy/random.ts'
import { asked, askedNearby, CLASS_WEIGHTS, Forecast, valueOf, type Asked } from './value.ts'

export interface Demand extends Disposable {
  /** Somebody asked for an item. */
  asked(dataset: string, path: string, publishedMs: number): void
  /** Neighbours' counts, without names. */
  askedNearby(dataset: string, path: string, times: number): void
  requestsOf(dataset: string, path: string): Asked | undefined
  /** What the item is worth per byte, as the forecast goes. */
  valueOf(item: ValuedItem): number
  /** Requests that the forecast expects, times the weight of the item's class. */
  requestsPerDay(item: Omit<ValuedItem, 'sizeBytes'>): number
  /** These could have been asked for since the last time, each standing for so many: what the forecast needs to know. */
  observe(items: readonly Omit<ValuedItem, 'sizeBytes' | 'priority'>[], each: number): void
  /** Writes what changed since the last time, and learns from it. */
  flush(): void
}

export interface ValuedItem {
  readonly dataset: string
  readonly path: string
  /** What bringing it costs. */
  readonly sizeBytes: number
  readonly priority: 0 | 1 | 2 | 3
  readonly publishedMs: number
}

/** Below this an item counts as never asked for, and is forgotten. */
const REQUESTS_MIN = 0.02
/** Those asked for longest ago are forgotten beyond this. */
const ITEMS_MAX = 50_000
const DAY_SECONDS = 86_400

/** @param path of a database of its own; `:memory:` for one that is not kept. */
export function openDemand(path: string, now: () => number = Date.now): Demand {
  const database = new DatabaseSync(path)
  database.exec(`
    pragma journal_mode = wal;
    pragma synchronous = normal;
    pragma busy_timeout = 2000;
    create table if not exists demand_v1 (item text primary key, requests real not null, last real not null) without rowid, strict;
    create table if not exists learned_v1 (id integer primary key, evidence blob not null) strict`)
  const counts = new Map<string, Asked>()
  for (const { item, requests, last } of database
    .prepare('select item, requests, last from demand_v1')
    .all()) {
    counts.set(String(item), { requests: Number(requests), lastSeconds: Number(last) })
  }
  const forecast = new Forecast()
  const learned = database.prepare('select evidence from learned_v1 where id = 1').get()?.evidence
  if (learned instanceof Uint8Array && learned.length % 4 === 0)
    forecast.load(new Float32Array(Uint8Array.from(learned).buffer))
  const insert = database.prepare('insert or replace into demand_v1 values (?, ?, ?)')
  const remove = database.prepare('delete from demand_v1 where item = ?')
  const keep = database.prepare('insert or replace into learned_v1 values (1, ?)')
  const changed = new Set<string>()
  const nowSeconds = () => now() / 1000
  const faded = (count: Asked) => asked(count, nowSeconds(), 0).requests < REQUESTS_MIN
  const count = (item: string, value: Asked) => {
    counts.delete(item) // the order of the map is that of the last request
    counts.set(item, value)
    changed.add(item)
    if (counts.size > ITEMS_MAX * 1.2) flush()
  }

  const random = xorshift(1)
  let observedSeconds = nowSeconds()
  const prospectOf = ({
    dataset,
    path: itemPath,
    publishedMs,
  }: Omit<ValuedItem, 'sizeBytes' | 'priority'>) => ({
    publishedSeconds: publishedMs / 1000,
    asked: counts.get(keyOf(dataset, itemPath)),
  })
  const requestsPerDay = (item: Omit<ValuedItem, 'sizeBytes'>) =>
    forecast.requestsPerDay(prospectOf(item), nowSeconds()) * CLASS_WEIGHTS[item.priority]

  function flush(): void {
    database.exec('begin')
    for (const [item, value] of counts) {
      if (counts.size <= ITEMS_MAX && !faded(value)) continue
      counts.delete(item)
      changed.delete(item)
      remove.run(item)
    }
    for (const item of changed) {
      const { requests, lastSeconds } = counts.get(item)!
      insert.run(item, requests, lastSeconds)
    }
    changed.clear()
    forecast.refit()
    keep.run(new Uint8Array(forecast.save().buffer))
    database.exec('commit')
  }

  return {
    asked(dataset, itemPath, publishedMs) {
      const item = keyOf(dataset, itemPath)
      const before = counts.get(item)
      forecast.requested({ publishedSeconds: publishedMs / 1000, asked: before }, nowSeconds())
      count(item, asked(before, nowSeconds()))
    },
    askedNearby(dataset, itemPath, times) {
      const item = keyOf(dataset, itemPath)
      count(item, askedNearby(counts.get(item), nowSeconds(), times))
    },
    requestsOf: (dataset, itemPath) => counts.get(keyOf(dataset, itemPath)),
    valueOf: item => valueOf(requestsPerDay(item), item.sizeBytes, 1),
    requestsPerDay,
    observe(items, each) {
      const since = observedSeconds
      const days = Math.max(0, nowSeconds() - since) / DAY_SECONDS
      for (const item of items) {
        const at = since + random() * days * DAY_SECONDS
        const prospect = prospectOf(item)
        if (prospect.publishedSeconds <= at) forecast.exposed(prospect, at, days * each)
      }
      observedSeconds = nowSeconds()
      forecast.refit()
    },
    flush,
    [Symbol.dispose]() {
      flush()
      database.close()
    },
  }
}

function keyOf(dataset: string, path: string): string {
  return `${dataset}\n${path}`
}

/**
 * Values in steps of four: items of one step keep the order of the catalog, so that they still
 * travel together. Larger is sooner.
 */
export function stepOf(value: number): number {
  return value > 0 ? Math.floor(Math.log(value) / Math.log(4)) : -Infinity
}
