/**
 * Parts of extents that failed their proof, set aside: nobody reads them again until the extent is
 * healed or replaced. The other chunks of the same extent go on being served, each proven as ever.
 *
 * What is set aside is a note, not a copy: bytes that are wrong are of no use, and moving megabytes
 * around on a failing disk is of harm.
 */
import { cidBytes, cidFromBytes, type Cid } from '../../manifests/cid.ts'
import type { Database } from './database.ts'

export interface Damage {
  readonly first: number
  readonly sizeBytes: number
}

export class Quarantine {
  readonly #database: Database
  readonly #readOnly: boolean
  readonly #damaged = new Map<Cid, Damage[]>()

  /** @param readOnly for a reader, which would not hear of healing: it sets nothing aside. */
  constructor(database: Database, readOnly = false) {
    this.#database = database
    this.#readOnly = readOnly
    this.reload()
  }

  /** The database was opened, or replaced. */
  reload(): void {
    this.#damaged.clear()
    if (this.#readOnly) return
    for (const { cid, first, size } of this.#database.all(
      'SELECT cid, first, size FROM damage LIMIT 1000000',
    )) {
      this.#note(cid, { first: Number(first), sizeBytes: Number(size) })
    }
  }

  get size(): number {
    return this.#damaged.size
  }

  /** Whether any byte of the part is set aside. */
  covers(cid: Cid, first: number, sizeBytes: number): boolean {
    if (this.#damaged.size === 0) return false
    const parts = this.#damaged.get(cid)
    return (
      parts?.some(
        part => first < part.first + part.sizeBytes && part.first < first + Math.max(1, sizeBytes),
      ) ?? false
    )
  }

  isDamaged(cid: Cid): boolean {
    return this.#damaged.has(cid)
  }

  cids(): Cid[] {
    return [...this.#damaged.keys()]
  }

  /** At once in memory; the row is written by `write`, inside a transaction. */
  note(cid: Cid, damage: Damage): void {
    if (!this.covers(cid, damage.first, damage.sizeBytes)) {
      this.#damaged.set(cid, [...(this.#damaged.get(cid) ?? []), damage])
    }
  }

  write(cid: Cid, { first, sizeBytes }: Damage, why: string): void {
    this.#database.run(
      'INSERT OR REPLACE INTO damage (cid, first, size, why) VALUES (?, ?, ?, ?)',
      cidBytes(cid),
      first,
      sizeBytes,
      why,
    )
  }

  /** Inside a transaction: the extent was replaced or deleted. */
  clear(cid: Cid): void {
    if (this.#damaged.delete(cid)) this.#database.run('DELETE FROM damage WHERE cid = ?', cidBytes(cid))
  }

  #note(cid: unknown, damage: Damage): void {
    try {
      this.note(cidFromBytes(cid as Uint8Array), damage)
    } catch {
      // a rotten row: the next read of those bytes finds out again
    }
  }
}
