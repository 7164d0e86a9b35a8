/**
 * dag-pb nodes: kept in the database, proven when read, cached with a lease of one second. After
 * that the cached bytes are hashed again, because memory rots, too (the trust lease).
 */
import { LRUCache } from 'lru-cache'
import { cidBytes, cidFromBytes, digestOf, type Cid } from '../../manifests/cid.ts'
import { sha256Of } from '../../manifests/digest.ts'
import { EdgeError, isEdgeError } from '../../manifests/errors.ts'
import type { DagNode } from '../../manifests/extent.ts'
import type { Database } from './database.ts'
import { cidsWith } from './extent-table.ts'
import { NodeView } from './node-view.ts'
import type { NumberedNode } from './store.ts'

export const LEASE_MS = 1000
const CACHED_BYTES_MAX = 12 * 1024 * 1024
/** What a view costs beside its bytes. */
const VIEW_OVERHEAD_BYTES = 600

interface Cached {
  readonly view: NodeView
  provenAt: number
}

export class NodeTable {
  readonly #database: Database
  readonly #cache = new LRUCache<Cid, Cached>({
    maxSize: CACHED_BYTES_MAX,
    sizeCalculation: ({ view }) => view.bytes.length + view.links * 18 + VIEW_OVERHEAD_BYTES,
  })
  readonly #onCorrupt: (cid: Cid) => void
  readonly #elsewhere: (cid: Cid) => Uint8Array | undefined

  /**
   * @param onCorrupt told of a node whose stored bytes are wrong; it counts as absent.
   * @param elsewhere where else a node may be, proven, while the database is being rebuilt.
   */
  constructor(
    database: Database,
    onCorrupt: (cid: Cid) => void,
    elsewhere: (cid: Cid) => Uint8Array | undefined,
  ) {
    this.#database = database
    this.#onCorrupt = onCorrupt
    this.#elsewhere = elsewhere
  }

  /** @throws EdgeError `CATALOG_INVALID` when the block is right, but not a node of our form. */
  view(cid: Cid): NodeView | undefined {
    const cached = this.#cache.get(cid)
    if (cached) {
      const now = performance.now()
      if (now - cached.provenAt < LEASE_MS) return cached.view
      if (sha256Of(cached.view.bytes) === digestOf(cid)) {
        cached.provenAt = now
        return cached.view
      }
      this.#cache.delete(cid)
    }
    const bytes = this.#load(cid)
    if (!bytes) return undefined
    const view = new NodeView(bytes)
    this.#cache.set(cid, { view, provenAt: performance.now() })
    return view
  }

  bytes(cid: Cid): Uint8Array | undefined {
    try {
      return this.view(cid)?.bytes
    } catch (error) {
      if (isEdgeError(error, 'CATALOG_INVALID')) return this.#load(cid)
      throw error
    }
  }

  has(cid: Cid): boolean {
    return (
      this.#cache.has(cid) ||
      this.#database.get('SELECT 1 FROM nodes WHERE cid = ?', cidBytes(cid)) !== undefined
    )
  }

  /** Of a node whose digest begins with `key` (hex). */
  cidOfKey(key: string): Cid | undefined {
    const [, [first, last]] = cidsWith(key)
    const row = this.#database.get('SELECT cid FROM nodes WHERE cid BETWEEN ? AND ?', first, last)
    try {
      return row && cidFromBytes(row['cid'] as Uint8Array)
    } catch {
      return undefined // it rotted
    }
  }

  /** Inside a transaction. Replaces what is there: it may have been the rotten one. */
  insert(node: DagNode): void {
    this.#database.run(
      'INSERT INTO nodes (cid, bytes) VALUES (?, ?) ON CONFLICT (cid) DO UPDATE SET bytes = excluded.bytes',
      cidBytes(node.cid),
      node.bytes,
    )
  }

  /** Inside a transaction. */
  remove(cid: Cid): void {
    this.#cache.delete(cid)
    this.#database.run('DELETE FROM nodes WHERE cid = ?', cidBytes(cid))
  }

  /** Inside a transaction. Deletes the node unless it has been replaced by the right one meanwhile. */
  removeWrong(cid: Cid): void {
    const bytes = this.#database.get('SELECT bytes FROM nodes WHERE cid = ?', cidBytes(cid))?.['bytes']
    if (!(bytes instanceof Uint8Array) || sha256Of(bytes) !== digestOf(cid)) this.remove(cid)
  }

  /** Proves the next rows. @returns the last one's number, undefined at the end, and those that are wrong. */
  proveAfter(after: number, limit: number): { last: number | undefined; broken: Cid[] } {
    const rows = this.#database.all(
      'SELECT id, cid, bytes FROM nodes WHERE id > ? ORDER BY id LIMIT ?',
      after,
      limit,
    )
    const broken: Cid[] = []
    for (const { cid, bytes } of rows) {
      const named = cidIn(cid)
      if (!named || (bytes instanceof Uint8Array && sha256Of(bytes) === digestOf(named))) continue
      broken.push(named)
      this.#onCorrupt(named)
    }
    const last = rows.at(-1)?.['id']
    return { last: last === undefined ? undefined : Number(last), broken }
  }

  /** In order of their rows. */
  numberedAfter(after: number, limit: number): NumberedNode[] {
    const rows = this.#database.all(
      'SELECT id, cid FROM nodes WHERE id > ? ORDER BY id LIMIT ?',
      after,
      limit,
    )
    return rows.flatMap(({ id, cid }) => {
      const named = cidIn(cid)
      return named ? [{ number: Number(id), cid: named }] : []
    })
  }

  numbered(number: number): Cid | undefined {
    return cidIn(this.#database.get('SELECT cid FROM nodes WHERE id = ?', number)?.['cid'])
  }

  get lastRow(): number {
    return Number(this.#database.get('SELECT max(id) AS last FROM nodes')?.['last'] ?? 0)
  }

  clear(): void {
    this.#cache.clear()
  }

  #load(cid: Cid): Uint8Array | undefined {
    const bytes = this.#database.get('SELECT bytes FROM nodes WHERE cid = ?', cidBytes(cid))?.['bytes']
    if (!(bytes instanceof Uint8Array)) return this.#elsewhere(cid)
    if (sha256Of(bytes) === digestOf(cid)) return bytes
    this.#onCorrupt(cid)
    return this.#elsewhere(cid)
  }
}

function cidIn(value: unknown): Cid | undefined {
  try {
    return cidFromBytes(value as Uint8Array)
  } catch {
    return undefined
  }
}

/** @throws EdgeError `CHUNK_CORRUPT` unless the block is what its CID says. */
export function proveBlock({ cid, bytes }: DagNode): void {
  if (sha256Of(bytes) !== digestOf(cid))
    throw new EdgeError('CHUNK_CORRUPT', `these bytes are not block ${cid}`)
}
