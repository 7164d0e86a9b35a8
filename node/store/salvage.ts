/**
 * Takes out of a damaged database what is still good: nodes and small blocks, each of which proves
 * itself by its CID. Rows that SQLite cannot read are stepped over, one number at a time.
 */
import { rmSync } from 'node:fs'
import { DatabaseSync } from 'node:sqlite'
import { cidBytes, cidFromBytes, codecOf, digestOf, type Cid } from '../../manifests/cid.ts'
import { sha256Of } from '../../manifests/digest.ts'

const ROWS_AT_ONCE = 200
/** How far to look beyond the last readable row. */
const GAP_MAX = 20_000

export interface SalvagedBlock {
  readonly cid: Cid
  readonly bytes: Uint8Array
}

export class Salvage implements Disposable {
  readonly #path: string
  readonly #database: DatabaseSync | undefined

  constructor(path: string) {
    this.#path = path
    try {
      this.#database = new DatabaseSync(path)
      this.#database.exec('PRAGMA query_only = ON')
    } catch {
      this.#database = undefined // nothing can be read: everything is fetched again
    }
  }

  /** For who cannot wait until the round comes by. */
  findNode(cid: Cid): Uint8Array | undefined {
    try {
      const row = this.#database?.prepare('SELECT bytes FROM nodes WHERE cid = ?').get(cidBytes(cid))
      const bytes = row?.['bytes']
      return bytes instanceof Uint8Array && sha256Of(bytes) === digestOf(cid) ? bytes : undefined
    } catch {
      return undefined
    }
  }

  /** In groups, so that the caller can store and breathe in between. */
  *blocks(table: 'nodes' | 'small_blocks'): Generator<SalvagedBlock[]> {
    if (!this.#database) return
    for (let after = 0, gap = 0; gap < GAP_MAX; ) {
      const { rows, last } = this.#rowsAfter(table, after)
      if (rows.length > 0) yield rows
      if (last === undefined) return
      gap = rows.length > 0 ? 0 : gap + (last - after)
      after = last
    }
  }

  /** It has given what it had. */
  discard(): void {
    this[Symbol.dispose]()
    for (const suffix of ['', '-wal', '-shm']) rmSync(this.#path + suffix, { force: true })
  }

  [Symbol.dispose](): void {
    try {
      this.#database?.close()
    } catch {
      // it is damaged
    }
  }

  /** @returns the number of the last row looked at; undefined at the table's end. */
  #rowsAfter(table: string, after: number): { rows: SalvagedBlock[]; last: number | undefined } {
    try {
      const found = this.#database!.prepare(
        `SELECT id, cid, bytes FROM ${table} WHERE id > ? ORDER BY id LIMIT ?`,
      ).all(after, ROWS_AT_ONCE)
      const last = found.at(-1)?.['id']
      return {
        rows: found.flatMap(row => provenRow(table, row) ?? []),
        last: last === undefined ? undefined : Number(last),
      }
    } catch {
      return { rows: this.#oneByOne(table, after), last: after + ROWS_AT_ONCE }
    }
  }

  #oneByOne(table: string, after: number): SalvagedBlock[] {
    const rows: SalvagedBlock[] = []
    for (let id = after + 1; id <= after + ROWS_AT_ONCE; id++) {
      try {
        const row = this.#database!.prepare(`SELECT id, cid, bytes FROM ${table} WHERE id = ?`).get(id)
        const block = row && provenRow(table, row)
        if (block) rows.push(block)
      } catch {
        // this one is lost
      }
    }
    return rows
  }
}

function provenRow(table: string, { cid, bytes }: Record<string, unknown>): SalvagedBlock | undefined {
  try {
    const named = cidFromBytes(cid as Uint8Array)
    if (!(bytes instanceof Uint8Array)) return undefined
    // a small extent that has a node is proven against it when it is read
    const proven =
      sha256Of(bytes) === digestOf(named) || (table === 'small_blocks' && codecOf(named) === 'dag-pb')
    return proven ? { cid: named, bytes } : undefined
  } catch {
    return undefined
  }
}
