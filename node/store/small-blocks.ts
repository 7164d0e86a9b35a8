/**
 * Extents of at most 32 KiB, in the database. Rows carry the CID, so that they can be found again
 * when everything around them was damaged.
 */
import { cidBytes, type Cid } from '../../manifests/cid.ts'
import type { Database } from './database.ts'

export class SmallBlocks {
  readonly #database: Database

  constructor(database: Database) {
    this.#database = database
  }

  /** Not proven. */
  get(id: number): Uint8Array | undefined {
    const bytes = this.#database.get('SELECT bytes FROM small_blocks WHERE id = ?', id)?.['bytes']
    return bytes instanceof Uint8Array ? bytes : undefined
  }

  /** Inside a transaction. */
  put(id: number, cid: Cid, bytes: Uint8Array): void {
    this.#database.run(
      'INSERT INTO small_blocks (id, cid, bytes) VALUES (?, ?, ?) ON CONFLICT (id) DO UPDATE SET cid = excluded.cid, bytes = excluded.bytes',
      id,
      cidBytes(cid),
      bytes,
    )
  }

  /** Inside a transaction. */
  remove(id: number): void {
    this.#database.run('DELETE FROM small_blocks WHERE id = ?', id)
  }
}
