/**
 * In which page of which catalog an item is, by its digest (`/sha256/<hex>`) or its root CID
 * (`/ipfs/<cid>`). Derived: rows are hints that are checked against the proven page, the whole file
 * may be deleted, and releases that are not in it yet are searched page by page.
 */
import { cidBytes, codecOf, digestOf, type Cid } from '../manifests/cid.ts'
import type { CatalogEntry } from '../manifests/catalog.ts'
import type { Sha256 } from '../manifests/digest.ts'
import { isEdgeError } from '../manifests/errors.ts'
import type { Catalog } from './catalog.ts'
import type { Database } from './store/database.ts'
import { atLeisure } from './store/leisure.ts'

const KEY_DIGITS = 12
const KEYS = 16 ** KEY_DIGITS
const SLICES = 64

export class DigestIndex {
  readonly #database: Database
  readonly #readOnly: boolean
  /** Ids of catalogs that are in the index as a whole. */
  readonly #whole = new Map<Cid, number>()
  #last: Promise<void> = Promise.resolve()
  #closed = false

  constructor(database: Database, readOnly: boolean) {
    this.#readOnly = readOnly
    this.#database = database
  }

  /** The database was made anew. */
  clear(): void {
    this.#whole.clear()
  }

  find(sha256: Sha256, catalog: Catalog): CatalogEntry | undefined {
    return this.#search(sha256, catalog, page => catalog.findDigest(sha256, page))
  }

  findRoot(root: Cid, catalog: Catalog): CatalogEntry | undefined {
    if (codecOf(root) === 'raw') {
      const entry = this.find(digestOf(root), catalog)
      return entry?.root === root ? entry : undefined
    }
    return this.#search(digestOf(root), catalog, page => catalog.findRoot(root, page))
  }

  /** Puts a catalog into the index, in the background; those not among `kept` leave it. */
  update(catalogs: readonly Catalog[]): void {
    if (this.#readOnly) return
    const work = async () => {
      for (const catalog of catalogs) await this.#add(catalog)
      await this.#retain(new Set(catalogs.map(({ root }) => root)))
    }
    this.#last = this.#last.then(work).catch((error: unknown) => {
      if (!this.#closed && !isEdgeError(error)) throw error
    })
  }

  settled(): Promise<void> {
    return this.#last
  }

  async stop(): Promise<void> {
    this.#closed = true
    await this.#last
  }

  #search(
    digest: Sha256,
    catalog: Catalog,
    lookInto: (page: number) => CatalogEntry | undefined,
  ): CatalogEntry | undefined {
    const id = this.#idOf(catalog.root)
    for (const page of id === undefined ? everyPage(catalog) : this.#pagesWith(digest, id)) {
      const entry = lookInto(page)
      if (entry) return entry
    }
    return undefined
  }

  #idOf(root: Cid): number | undefined {
    const known = this.#whole.get(root)
    if (known !== undefined) return known
    const id = this.#database.get('SELECT id FROM catalogs WHERE root = ? AND whole = 1', cidBytes(root))?.[
      'id'
    ]
    if (id === undefined) return undefined
    this.#whole.set(root, Number(id))
    return Number(id)
  }

  #pagesWith(sha256: Sha256, catalog: number): number[] {
    const rows = this.#database.all(
      'SELECT page FROM digests WHERE key = ? AND catalog = ?',
      keyOf(sha256),
      catalog,
    )
    return rows.map(({ page }) => Number(page))
  }

  async #add(catalog: Catalog): Promise<void> {
    if (this.#idOf(catalog.root) !== undefined || !catalog.isWhole()) return
    const root = cidBytes(catalog.root)
    this.#database.run('INSERT OR IGNORE INTO catalogs (root, whole) VALUES (?, 0)', root)
    const id = Number(this.#database.get('SELECT id FROM catalogs WHERE root = ?', root)?.['id'])
    const rest = atLeisure()
    for (let page = 0; page < catalog.pages && !this.#closed; page++) {
      const entries = catalog.entries(page)
      this.#database.transaction(() => {
        for (const { sha256, root } of entries) {
          this.#insert(keyOf(sha256), id, page)
          if (codecOf(root) !== 'raw') this.#insert(keyOf(digestOf(root)), id, page)
        }
      })
      await rest()
    }
    if (!this.#closed) this.#database.run('UPDATE catalogs SET whole = 1 WHERE id = ?', id)
  }

  #insert(key: number, catalog: number, page: number): void {
    this.#database.run(
      'INSERT OR IGNORE INTO digests (key, catalog, page) VALUES (?, ?, ?)',
      key,
      catalog,
      page,
    )
  }

  async #retain(roots: ReadonlySet<Cid>): Promise<void> {
    const kept = [...roots].map(root => cidBytes(root).toString('hex'))
    const rows = this.#database.all(
      'SELECT id FROM catalogs WHERE hex(root) NOT IN (SELECT upper(value) FROM json_each(?))',
      JSON.stringify(kept),
    )
    const rest = atLeisure()
    for (const { id } of rows) {
      this.#database.run('UPDATE catalogs SET whole = 0 WHERE id = ?', Number(id))
      for (let slice = 0; slice < SLICES && !this.#closed; slice++) {
        const from = (KEYS / SLICES) * slice
        this.#database.run(
          'DELETE FROM digests WHERE key >= ? AND key < ? AND catalog = ?',
          from,
          from + KEYS / SLICES,
          Number(id),
        )
        await rest()
      }
      if (!this.#closed) this.#database.run('DELETE FROM catalogs WHERE id = ?', Number(id))
    }
    for (const root of this.#whole.keys()) if (!roots.has(root)) this.#whole.delete(root)
  }
}

function keyOf(sha256: Sha256): number {
  return Number.parseInt(sha256.slice(0, KEY_DIGITS), 16)
}

function* everyPage(catalog: Catalog): Generator<number> {
  for (let page = 0; page < catalog.pages; page++) yield page
}
