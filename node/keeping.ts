/**
 * Keeps what is needed from eviction (I4), and deletes what no release needs any more. Works in the
 * background, page by page; doing it again changes nothing, so a crash in between costs nothing.
 *
 * Holding: catalogs, and the extents of must-have and pinned items. Sweeping: after a release was
 * dropped, every release that stands is walked, and what was not met is deleted. While the catalog
 * of one of them is not whole, nobody knows what it needs, and nothing is swept.
 */
import { existsSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import type { CatalogEntry } from '../manifests/catalog.ts'
import { cidBytes, type Cid } from '../manifests/cid.ts'
import { isEdgeError } from '../manifests/errors.ts'
import { extentsUnder, upperNodes } from './dag-walk.ts'
import type { Needs } from './needs.ts'
import type { Release } from './releases.ts'
import type { ContentStore, Hold } from './store/store.ts'

/** A dropped release stays while somebody reads from it: until so long after the last read, ... */
const READING_MS = 30_000
/** ... but no longer than this. */
const LEAVING_MS_MAX = 3_600_000
/** Content comes in bursts: it is looked at when there is a pause, or after so long. */
const PAUSE_MS = 500
const GROUP = 500
/** A sweep is due: survives a restart, so that nothing is forgotten on disk for ever. */
const DUE_FILE = 'sweep-due'

export interface KeepingParts {
  readonly store: ContentStore
  readonly needs: Needs
  readonly folder: string
  /** Every release that is served or on its way, of all datasets. */
  readonly active: () => readonly Release[]
  /** Notes across restarts which releases are held already. */
  readonly memory: { has(note: string): boolean; add(note: string): void }
  /** The catalog of a release has become whole. */
  readonly onWhole: () => void
  /** What must not be served need not be kept. */
  readonly isDenied: (dataset: string, entry: CatalogEntry) => boolean
}

export class Keeping {
  readonly #parts: KeepingParts
  readonly #dueFile: string
  /** Releases of which everything needed is known and held. */
  readonly #held = new WeakSet<Release>()
  #timer: NodeJS.Timeout | undefined
  #running: Promise<void> | undefined
  #again = false
  /** Some release is not known to be held as a whole. */
  #pending = true
  #leaving: { readonly release: Release; readonly since: number }[] = []
  /** While a sweep runs. */
  #came: KeySet | undefined
  #stopped = false

  constructor(parts: KeepingParts) {
    this.#parts = parts
    this.#dueFile = join(parts.folder, DUE_FILE)
    const came = (cid: Cid) => {
      this.#came?.add(cid)
      this.#comeBack()
    }
    parts.store.watch({ nodeCame: came, extentCame: came })
  }

  /** Releases have changed. @param dropped those that are neither served nor on their way any more. */
  update(dropped: readonly Release[]): void {
    const since = performance.now()
    this.#leaving.push(...dropped.map(release => ({ release, since })))
    if (dropped.length > 0) this.#sweepLater()
    this.#start()
  }

  /** Other things are needed than before: something was pinned, unpinned or denied. */
  needsChanged(): void {
    for (const release of this.#parts.active()) this.#held.delete(release)
    this.#sweepLater()
    this.#start()
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

  #comeBack(): void {
    if (this.#pending) this.#startIn(PAUSE_MS)
  }

  #startIn(ms: number): void {
    if (!this.#timer && !this.#stopped) this.#timer = setTimeout(() => this.#start(), ms).unref()
  }

  #sweepLater(): void {
    try {
      writeFileSync(this.#dueFile, '')
    } catch {
      // on a full disk the next switch sweeps
    }
  }

  /** Whether somebody still reads from a release that was dropped: open reads finish. */
  #isRead(): boolean {
    const now = performance.now()
    this.#leaving = this.#leaving.filter(
      ({ release, since }) => now - release.readAt < READING_MS && now - since < LEAVING_MS_MAX,
    )
    return this.#leaving.length > 0
  }

  #start(): void {
    clearTimeout(this.#timer)
    this.#timer = undefined
    if (this.#stopped) return
    if (this.#running) {
      this.#again = true
      return
    }
    this.#running = this.#work()
      .catch((error: unknown) => {
        // a page that cannot be read now: the next change looks again
        if (!isEdgeError(error)) throw error
      })
      .finally(() => {
        this.#running = undefined
        if (!this.#again) return
        this.#again = false
        this.#start()
      })
  }

  async #work(): Promise<void> {
    for (const release of this.#parts.active()) if (!this.#held.has(release)) await this.#hold(release)
    const active = this.#parts.active()
    this.#pending = !active.every(release => this.#held.has(release))
    if (!existsSync(this.#dueFile) || !active.every(({ catalog }) => catalog.isWhole())) return
    if (this.#isRead()) this.#startIn(READING_MS / 3)
    else await this.#sweep()
  }

  async #hold(release: Release): Promise<void> {
    const { store, needs, memory } = this.#parts
    const note = `${store.generation} ${release.digest} ${needs.signature}`
    if (memory.has(note)) {
      this.#held.add(release)
      return
    }
    const groups: Record<Hold, Cid[]> = { pinned: [], mustHave: [] }
    const flush = async (atLeast: number) => {
      for (const why of ['pinned', 'mustHave'] as const) {
        if (groups[why].length >= atLeast) await store.hold(groups[why].splice(0), why)
      }
    }
    let known = release.catalog.isWhole()
    for await (const { extents, unknown, hold } of this.#everything(release)) {
      if (!hold) continue
      groups[hold].push(...extents)
      if (unknown) known = false
      await flush(GROUP)
    }
    await flush(1)
    if (!known || this.#stopped) return
    this.#held.add(release)
    memory.add(note)
    this.#parts.onWhole()
  }

  async #sweep(): Promise<void> {
    const used = new KeySet()
    this.#came = used // what comes from now on may be needed by something newer
    try {
      await this.#sweepAllBut(used)
    } finally {
      this.#came = undefined
    }
  }

  async #sweepAllBut(used: KeySet): Promise<void> {
    const held = new KeySet()
    for (const release of this.#parts.active()) {
      for await (const { extents, nodes, hold } of this.#everything(release)) {
        for (const cid of extents) used.add(cid)
        for (const cid of nodes) used.add(cid)
        if (hold) for (const cid of extents) held.add(cid)
      }
    }
    if (this.#stopped) return
    const isUsed = (cid: Cid) => used.has(cid)
    const isHeld = (cid: Cid) => held.has(cid)
    await this.#parts.store.retain({ isUsed, isHeld }, 'no release needs it')
    if (!this.#stopped) rmSync(this.#dueFile, { force: true })
  }

  /** The catalog, then item by item: what it consists of, and why it is needed, if it is. */
  async *#everything({ dataset, manifest, catalog }: Release): AsyncGenerator<Walked> {
    const { store, needs, isDenied } = this.#parts
    const own = extentsUnder(store, catalog.root, manifest.catalog.size)
    yield {
      extents: own.extents.map(({ cid }) => cid),
      nodes: upperNodes(store, catalog.root),
      unknown: own.unknown.length > 0,
      hold: 'mustHave',
    }
    if (!catalog.isWhole()) return
    for (let page = 0; page < catalog.pages && !this.#stopped; page++) {
      for (const entry of catalog.entries(page)) {
        if (isDenied(dataset, entry)) continue
        const { extents, unknown } = extentsUnder(store, entry.root, entry.sizeBytes)
        yield {
          extents: extents.map(({ cid }) => cid),
          nodes: upperNodes(store, entry.root),
          unknown: unknown.length > 0,
          hold: needs.whyOf(manifest, entry),
        }
      }
      await new Promise(resolve => setImmediate(resolve))
    }
  }
}

interface Walked {
  readonly extents: readonly Cid[]
  readonly nodes: readonly Cid[]
  /** Some nodes are not here, so not all extents are known. */
  readonly unknown: boolean
  readonly hold: Hold | undefined
}

/** CIDs by 48 bits of their digest: two that meet keep each other alive, which costs some disk at most. */
class KeySet {
  readonly #keys = new Set<number>()

  add(cid: Cid): void {
    this.#keys.add(cidBytes(cid).readUIntBE(4, 6))
  }

  has(cid: Cid): boolean {
    return this.#keys.has(cidBytes(cid).readUIntBE(4, 6))
  }
}
