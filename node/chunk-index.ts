/**
 * Which extent holds a chunk: asked by neighbours and the IPFS gateway, who name single chunks. Made
 * from the extents' nodes in the background, after they came; derived, and checked when used.
 */
import type { Cid } from '../manifests/cid.ts'
import type { Sha256 } from '../manifests/digest.ts'
import { isEdgeError } from '../manifests/errors.ts'
import type { Database } from './store/database.ts'
import type { NodeView } from './store/node-view.ts'
import type { ContentStore } from './store/store.ts'

export interface ChunkPlace {
  readonly extent: Cid
  readonly link: number
}

const KEY_DIGITS = 12
/** Some hundred chunks: a few milliseconds. */
const NODES_AT_ONCE = 8
const PAUSE_MS = 300
const POSITION = 'chunks-position'
const GENERATION = 'chunks-generation'

export class ChunkIndex {
  readonly #store: ContentStore
  readonly #database: Database
  #timer: NodeJS.Timeout | undefined
  #running: Promise<void> | undefined
  #stopped = false

  constructor(store: ContentStore, database: Database, readOnly: boolean) {
    this.#store = store
    this.#database = database
    this.#stopped = readOnly
    if (readOnly) return
    store.watch({ nodeCame: () => this.#soon(), extentCame: () => this.#soon() })
    this.#soon()
  }

  find(digest: Sha256): ChunkPlace | undefined {
    const rows = this.#database.all('SELECT node FROM chunks WHERE key = ?', keyOf(digest))
    for (const { node } of rows) {
      const extent = this.#store.nodeNumbered(Number(node))
      const view = extent && this.#store.tierOf(extent) ? this.#store.view(extent) : undefined
      const link = view ? linkWith(view, digest) : -1
      if (extent && link >= 0) return { extent, link }
    }
    return undefined
  }

  async settled(): Promise<void> {
    if (this.#timer) this.#start()
    while (this.#running) await this.#running
  }

  async stop(): Promise<void> {
    this.#stopped = true
    clearTimeout(this.#timer)
    await this.#running
  }

  #soon(): void {
    if (!this.#timer && !this.#running && !this.#stopped) {
      this.#timer = setTimeout(() => this.#start(), PAUSE_MS).unref()
    }
  }

  #start(): void {
    clearTimeout(this.#timer)
    this.#timer = undefined
    if (this.#running || this.#stopped) return
    this.#running = this.#catchUp()
      .catch((error: unknown) => {
        // closed, or no space for what is only derived
        if (!isEdgeError(error)) throw error
      })
      .finally(() => (this.#running = undefined))
  }

  async #catchUp(): Promise<void> {
    if (this.#state(GENERATION) !== this.#store.generation) this.#begin()
    for (let after = Number(this.#state(POSITION) ?? 0); !this.#stopped; ) {
      const nodes = this.#store.nodesAfter(after, NODES_AT_ONCE)
      const last = nodes.at(-1)
      if (!last) return
      after = last.number
      this.#database.transaction(() => {
        for (const { number, cid } of nodes) this.#insert(number, cid)
        this.#keep(POSITION, String(after))
      })
      await new Promise(resolve => setImmediate(resolve))
    }
  }

  #insert(number: number, cid: Cid): void {
    const view = viewQuietly(this.#store, cid)
    if (view?.over !== 'chunks') return
    for (let link = 0; link < view.links; link++) {
      this.#database.run(
        'INSERT OR IGNORE INTO chunks (key, node) VALUES (?, ?)',
        keyOf(view.digestAt(link)),
        number,
      )
    }
  }

  /** Numbers of another generation mean nothing. */
  #begin(): void {
    this.#database.transaction(() => {
      this.#database.run('DELETE FROM chunks')
      this.#keep(POSITION, '0')
      this.#keep(GENERATION, this.#store.generation)
    })
  }

  #state(name: string): string | undefined {
    const value = this.#database.get('SELECT value FROM state WHERE name = ?', name)?.['value']
    return typeof value === 'string' ? value : undefined
  }

  #keep(name: string, value: string): void {
    this.#database.run('INSERT OR REPLACE INTO state (name, value) VALUES (?, ?)', name, value)
  }
}

function linkWith(view: NodeView, digest: Sha256): number {
  for (let link = 0; link < view.links; link++) if (view.digestAt(link) === digest) return link
  return -1
}

/** A block may carry the right CID and be no node of ours. */
function viewQuietly(store: ContentStore, cid: Cid): NodeView | undefined {
  try {
    return store.view(cid)
  } catch (error) {
    if (isEdgeError(error, 'CATALOG_INVALID')) return undefined
    throw error
  }
}

function keyOf(digest: Sha256): number {
  return Number.parseInt(digest.slice(0, KEY_DIGITS), 16)
}
