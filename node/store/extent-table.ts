/**
 * Where extents are: one row each, the hot ones cached in memory. A row may be wrong (the disk rots,
 * files vanish); whoever follows it finds out and says so with `forget` or `damage`.
 *
 * Methods that write are called inside a transaction (`CommitQueue`).
 */
import { LRUCache } from 'lru-cache'
import { cidBytes, cidFromBytes, type Cid } from '../../manifests/cid.ts'
import type { Database, Row } from './database.ts'
import { HELD, PLACE } from './schema.ts'
import type { DiskTier, Hold } from './store.ts'

const CACHED_MAX = 20_000
const ASKED_AT_ONCE = 500
const COLUMNS = 'id, cid, size, place, small, held, damaged, verified'

export interface Located {
  /** The tier policy's key. */
  readonly id: number
  readonly cid: Cid
  readonly sizeBytes: number
  readonly tier: DiskTier | null
  /** Its bytes are in the database. */
  readonly small: boolean
  readonly held: number
  readonly damaged: boolean
  readonly verifiedAtMs: number
}

export type BriefRow = Pick<Located, 'id' | 'sizeBytes' | 'tier' | 'held'>

export interface Totals {
  readonly extents: number
  readonly verifiedSinceMs: number | undefined
}

/** Counting takes at most one part in so many of the time. */
const TOTALS_SHARE = 500

export class ExtentTable {
  readonly #database: Database
  readonly #cache = new LRUCache<Cid, Located>({ max: CACHED_MAX })
  /** Whether rows change behind our back: another process owns the store. */
  readonly #shared: boolean
  /** Numbers given out to extents that have no row yet. */
  readonly #promised = new Map<Cid, number>()
  #nextId: number | undefined
  #totals: (Totals & { readonly until: number }) | undefined
  readonly #lookBeyond: (cid: Cid) => boolean

  /** @param lookBeyond where else an extent without a row may be, while rows are being rebuilt. */
  constructor(database: Database, shared: boolean, lookBeyond: (cid: Cid) => boolean) {
    this.#database = database
    this.#shared = shared
    this.#lookBeyond = lookBeyond
  }

  /** The extent's row, here or not. */
  find(cid: Cid): Located | undefined {
    let located = this.#cache.get(cid)
    if (located) return located
    const row = this.#row(cid) ?? (this.#lookBeyond(cid) ? this.#row(cid) : undefined)
    if (!row) return undefined
    located = locatedOf(row, cid)
    if (located.tier || !this.#shared) this.#cache.set(cid, located)
    return located
  }

  #row(cid: Cid): Row | undefined {
    return this.#database.get(`SELECT ${COLUMNS} FROM extents WHERE cid = ?`, cidBytes(cid))
  }

  /** Of an extent that is here and whose digest begins with `key` (hex). */
  cidOfKey(key: string): Cid | undefined {
    for (const [from, to] of cidsWith(key)) {
      const row = this.#database.get(
        `SELECT ${COLUMNS} FROM extents WHERE cid BETWEEN ? AND ? AND place <> ${PLACE.absent}`,
        from,
        to,
      )
      const cid = row && safelyLocated(row)?.cid
      if (cid) return cid
    }
    return undefined
  }

  byId(id: number): Located | undefined {
    const row = this.#database.get(`SELECT ${COLUMNS} FROM extents WHERE id = ?`, id)
    return row && safelyLocated(row)
  }

  /** Those of `cids` that are not here, or damaged. */
  absentOf(cids: readonly Cid[]): Set<Cid> {
    const absent = new Set<Cid>()
    for (let from = 0; from < cids.length; from += ASKED_AT_ONCE) {
      const asked = cids.slice(from, from + ASKED_AT_ONCE)
      const rows = this.#database.numbers(
        `SELECT asked.key FROM json_each(?) AS asked WHERE NOT EXISTS
           (SELECT 1 FROM extents WHERE cid = unhex(asked.value) AND place <> ${PLACE.absent} AND damaged = 0)`,
        JSON.stringify(asked.map(cid => cidBytes(cid).toString('hex'))),
      )
      for (const [at] of rows) absent.add(asked[at!]!)
    }
    return absent
  }

  /** The number of an extent, given out once and for all; its row may come later. */
  idOf(cid: Cid): number {
    return this.find(cid)?.id ?? this.idForNew(cid)
  }

  /** The same for an extent that has no row. */
  idForNew(cid: Cid): number {
    const promised = this.#promised.get(cid)
    if (promised !== undefined) return promised
    if (this.#nextId === undefined) {
      const row = this.#database.get(`SELECT max(seq) AS last FROM sqlite_sequence WHERE name = 'extents'`)
      this.#nextId = Number(row?.['last'] ?? 0) + 1
    }
    const id = this.#nextId++
    this.#promised.set(cid, id)
    return id
  }

  /** Rows for extents that somebody asked for and that are not here, so that demand has a name. */
  insertPromised(limit: number): number {
    let count = 0
    for (const [cid, id] of this.#promised) {
      if (count++ >= limit) break
      this.#database.run(
        `INSERT INTO extents (id, cid, size, place, small, held, damaged, verified, why)
         VALUES (?, ?, 0, 0, 0, 0, 0, 0, 'asked for') ON CONFLICT DO NOTHING`,
        id,
        cidBytes(cid),
      )
      this.#promised.delete(cid)
    }
    return count
  }

  insert(extent: {
    readonly id: number
    readonly cid: Cid
    readonly sizeBytes: number
    readonly tier: DiskTier | null
    readonly small: boolean
    readonly held: number
    readonly verifiedAtMs: number
    readonly why: string
  }): void {
    this.#cache.delete(extent.cid)
    this.#promised.delete(extent.cid)
    this.#database.run(
      `INSERT INTO extents (id, cid, size, place, small, held, damaged, verified, why)
       VALUES (?, ?, ?, ?, ?, ?, 0, ?, ?)
       ON CONFLICT (cid) DO UPDATE SET size = excluded.size, place = excluded.place, small = excluded.small,
         held = extents.held | excluded.held, damaged = 0, verified = excluded.verified, why = excluded.why`,
      extent.id,
      cidBytes(extent.cid),
      extent.sizeBytes,
      extent.tier ? PLACE[extent.tier] : PLACE.absent,
      extent.small ? 1 : 0,
      extent.held,
      Math.floor(extent.verifiedAtMs / 1000),
      extent.why,
    )
  }

  setTier({ id, cid }: Pick<Located, 'id' | 'cid'>, tier: DiskTier | null): void {
    this.#cache.delete(cid)
    this.#database.run('UPDATE extents SET place = ? WHERE id = ?', tier ? PLACE[tier] : PLACE.absent, id)
  }

  setHeld(cid: Cid, why: Hold): void {
    const id = this.idOf(cid)
    this.#cache.delete(cid)
    this.#promised.delete(cid)
    this.#database.run(
      `INSERT INTO extents (id, cid, size, place, small, held, damaged, verified, why)
       VALUES (?, ?, 0, 0, 0, ${HELD[why]}, 0, 0, 'wanted')
       ON CONFLICT (cid) DO UPDATE SET held = held | ${HELD[why]}`,
      id,
      cidBytes(cid),
    )
  }

  unsetHeld(cid: Cid, why: Hold): void {
    this.#cache.delete(cid)
    this.#database.run(`UPDATE extents SET held = held & ~${HELD[why]} WHERE cid = ?`, cidBytes(cid))
  }

  setDamaged(cid: Cid): void {
    this.#cache.delete(cid)
    this.#database.run('UPDATE extents SET damaged = 1 WHERE cid = ?', cidBytes(cid))
  }

  setVerified(cid: Cid, atMs: number): void {
    this.#cache.delete(cid)
    this.#database.run(
      'UPDATE extents SET verified = ? WHERE cid = ?',
      Math.floor(atMs / 1000),
      cidBytes(cid),
    )
  }

  /** Drops what is cached: the row may have changed. */
  refresh(cid: Cid): void {
    this.#cache.delete(cid)
  }

  /** The database was replaced by an empty one. */
  clear(): void {
    this.#cache.clear()
    this.#promised.clear()
    this.#nextId = undefined
  }

  /** Rows in order of their numbers, from after `afterId` on. */
  rowsAfter(afterId: number, limit: number): Located[] {
    const rows = this.#database.all(
      `SELECT ${COLUMNS} FROM extents WHERE id > ? ORDER BY id LIMIT ?`,
      afterId,
      limit,
    )
    return rows.flatMap(row => safelyLocated(row) ?? [])
  }

  /** The same as plain numbers; what is in neither tier has none. */
  briefRowsAfter(afterId: number, limit: number): BriefRow[] {
    const rows = this.#database.numbers(
      'SELECT id, size, place, held FROM extents WHERE id > ? ORDER BY id LIMIT ?',
      afterId,
      limit,
    )
    return rows.map(([id, sizeBytes, place, held]) => ({
      id: id!,
      sizeBytes: sizeBytes!,
      tier: tierOf(place),
      held: held!,
    }))
  }

  /** The extents with files in `tier` whose digest begins with two hex digits. */
  filesUnder(prefix: string, tier: DiskTier): Set<Cid> {
    const cids = new Set<Cid>()
    for (const [from, to] of cidsWith(prefix)) {
      const rows = this.#database.all(
        'SELECT cid FROM extents WHERE cid >= ? AND cid <= ? AND place = ? AND small = 0',
        from,
        to,
        PLACE[tier],
      )
      for (const { cid } of rows) cids.add(cidFromBytes(cid as Uint8Array))
    }
    return cids
  }

  /** How many are here, and the oldest proof. Looks at every row, so it is remembered for a while. */
  totals(): Totals {
    const now = performance.now()
    if (this.#totals && now < this.#totals.until) return this.#totals
    const row = this.#database.get(
      `SELECT count(*) AS extents, min(verified) AS since FROM extents WHERE place <> ${PLACE.absent}`,
    )
    const since = row?.['since']
    const took = performance.now() - now
    this.#totals = {
      extents: Number(row?.['extents'] ?? 0),
      verifiedSinceMs: typeof since === 'number' ? since * 1000 : undefined,
      until: now + took * TOTALS_SHARE,
    }
    return this.#totals
  }
}

type CidRange = readonly [first: Buffer, last: Buffer]

/** Where CIDs lie whose digest begins so: raw ones, and those of nodes. */
export function cidsWith(digestPrefix: string): readonly [raw: CidRange, node: CidRange] {
  const rangeOf = (codec: string): CidRange => {
    const first = Buffer.from(`${codec}1220${digestPrefix}`, 'hex')
    return [first, Buffer.concat([first, Buffer.alloc(36 - first.length, 0xff)])]
  }
  return [rangeOf('0155'), rangeOf('0170')]
}

function tierOf(place: unknown): DiskTier | null {
  return place === PLACE.hot ? 'hot' : place === PLACE.warm ? 'warm' : null
}

function locatedOf(row: Row, cid: Cid): Located {
  return {
    id: Number(row['id']),
    cid,
    sizeBytes: Number(row['size']),
    tier: tierOf(row['place']),
    small: row['small'] !== 0,
    held: Number(row['held']),
    damaged: row['damaged'] !== 0,
    verifiedAtMs: Number(row['verified']) * 1000,
  }
}

/** A row whose CID rotted is nobody's. */
function safelyLocated(row: Row): Located | undefined {
  try {
    return locatedOf(row, cidFromBytes(row['cid'] as Uint8Array))
  } catch {
    return undefined
  }
}
