/**
 * The library over the store: from a dataset and a path to verified bytes. The chain that proves an
 * item is manifest → catalog page → entry → nodes → chunks; nothing below the manifest is believed
 * because it is in memory or in a database (I1).
 *
 * Open items are kept with a trust lease of one second: then the manifest is compared, the denylist
 * asked, and the entry taken from its page again.
 */
import { LRUCache } from 'lru-cache'
import type { CatalogEntry } from '../manifests/catalog.ts'
import type { Cid } from '../manifests/cid.ts'
import type { Sha256 } from '../manifests/digest.ts'
import { EdgeError, isEdgeError } from '../manifests/errors.ts'
import type { Abortable } from '../manifests/extent.ts'
import { Blocks } from './blocks.ts'
import { ChunkIndex } from './chunk-index.ts'
import { DigestIndex } from './digest-index.ts'
import { Keeping } from './keeping.ts'
import type { DatasetView, Library, OpenItem, PriorityClass } from './library.ts'
import { heldNotes, openLibraryDatabase } from './library-database.ts'
import { listItems } from './list-items.ts'
import { Needs } from './needs.ts'
import { Presence } from './presence.ts'
import { Releases, type DatasetReleases, type ListedItem, type Missing, type Release } from './releases.ts'
import type { Database } from './store/database.ts'
import type { ContentStore } from './store/store.ts'
import { type BringWish, StoredItem } from './stored-item.ts'
import type { TrustStore } from './trust-store.ts'
import { trustViewOf, type TrustView } from './trust-view.ts'

const LEASE_MS = 1000
const OPEN_ITEMS_MAX = 10_000
const RETRY_AFTER_SECONDS = 300
const HEAL_MS = 5000
const WATCH_MS = 1000

export interface LibraryOptions {
  readonly store: ContentStore
  readonly trust: TrustStore | TrustView
  readonly mode?: 'owner' | 'reader'
  /** The last class that must be here whole before a release is switched; -1 for none. */
  readonly mustHaveUpTo?: PriorityClass | -1
  /** When a missing item may be here; from the plan. */
  readonly retryAfterSeconds?: (item: OpenItem) => number
  /** Fetches an item now, until what is waited for is here, or comes. @throws EdgeError `ITEM_ABSENT` */
  readonly bring?: (wish: BringWish, options: Abortable) => Promise<Buffer | undefined>
  readonly now?: () => number
}

export interface NodeLibrary extends Library, AsyncDisposable {
  releases(): readonly DatasetReleases[]
  /**
   * Takes a manifest whose bytes are what TUF says they are; durable when resolved.
   * @throws EdgeError `MANIFEST_INVALID`, `TRUST_ROLLBACK` (a revision below one accepted before)
   */
  acceptRelease(dataset: string, manifestBytes: Uint8Array): Promise<void>
  /** Of the newest accepted release. Only the catalog's own extents until the catalog is here. */
  missing(dataset: string): Promise<Missing>
  /** The same page by page, for callers that need not have all of it at once. */
  streamMissing(dataset: string): AsyncGenerator<Missing>
  /** Items of the newest accepted release, all or every so many, here or not; nothing while its catalog is not whole. */
  streamItems(dataset: string, every?: number): AsyncGenerator<readonly ListedItem[]>
  /**
   * The current release's items page by page, without those that must not be served.
   * @throws EdgeError `DATASET_UNKNOWN`; while iterating, `CHUNK_ABSENT`, `CHUNK_CORRUPT`, `CATALOG_INVALID`
   */
  streamEntries(dataset: string): AsyncGenerator<readonly CatalogEntry[]>
  /** Makes `next` the current release when all that must be here is (I5). @returns whether it did. */
  activateIfWhole(dataset: string): Promise<boolean>
  /** A block by its CID, proven; undefined when it is not here. */
  block(cid: Cid, options: Abortable): Promise<Uint8Array | undefined>
  /** Whether the item with this root must no longer be served. */
  isDenied(root: Cid): boolean
  /** What a served catalog says of the item with this root. */
  mediaTypeOf(root: Cid): string | undefined
  /** Resolves when what runs in the background is done: counting, indexing, holding, sweeping. */
  settled(): Promise<void>
}

export async function openLibrary(options: LibraryOptions): Promise<NodeLibrary> {
  return new StoreLibrary(options)
}

interface KeptItem {
  readonly item: StoredItem
  readonly entry: CatalogEntry
  readonly page: number
  readonly release: Release
  /** The trust record's, when the item was last proven. */
  sequence: number
  provenAt: number
}

class StoreLibrary implements NodeLibrary {
  readonly #releases: Releases
  readonly #store: ContentStore
  readonly #trust: TrustView
  readonly #options: LibraryOptions
  readonly #owner: boolean
  readonly #needs: Needs
  readonly #presence: Presence
  readonly #database: Database
  readonly #digests: DigestIndex
  readonly #keeping: Keeping
  readonly #chunks: ChunkIndex
  readonly #blocks: Blocks
  readonly #items = new LRUCache<string, KeptItem>({ max: OPEN_ITEMS_MAX })
  readonly #byDigest = new LRUCache<Sha256, KeptItem>({ max: OPEN_ITEMS_MAX })
  readonly #healing = new Map<Cid, Promise<void>>()
  #firstCheck: NodeJS.Immediate | undefined
  /** As last looked at: the denylist and the operator's pins. */
  #wishes = ''
  readonly #watching: NodeJS.Timeout | undefined
  #closed = false

  constructor(options: LibraryOptions) {
    const { store, mode, mustHaveUpTo = 0, now = Date.now } = options
    const trust = 'record' in options.trust ? trustViewOf(options.trust, now) : options.trust
    this.#store = store
    this.#trust = trust
    this.#options = options
    this.#owner = mode !== 'reader'
    this.#needs = new Needs(mustHaveUpTo, () => trust.pins)
    this.#releases = new Releases({
      store,
      trust,
      needs: this.#needs,
      onChange: (_dataset, dropped) => this.#changed(dropped),
    })
    this.#presence = new Presence(store)
    let digests: DigestIndex | undefined
    const database = openLibraryDatabase(store.folder, !this.#owner, () => digests?.clear())
    digests = new DigestIndex(database, !this.#owner)
    this.#database = database
    this.#digests = digests
    this.#keeping = new Keeping({
      store,
      needs: this.#needs,
      folder: store.folder,
      memory: heldNotes(database, !this.#owner),
      active: () => this.#active(),
      onWhole: () => this.#digests.update(this.#active().map(({ catalog }) => catalog)),
      isDenied: (dataset, entry) => trust.isDenied({ dataset, ...entry }),
    })
    this.#chunks = new ChunkIndex(store, database, !this.#owner)
    this.#blocks = new Blocks(store, digest => this.#chunks.find(digest))
    if (!this.#owner) return
    this.#wishes = trust.wishes
    this.#watching = setInterval(() => this.#lookAtWishes(), WATCH_MS).unref()
    const came = () => this.#checkFirstReleases()
    store.watch({ extentCame: came, nodeCame: came })
    this.#changed([])
    this.#checkFirstReleases()
  }

  datasets(): readonly DatasetView[] {
    return this.#releases.datasets().flatMap(dataset => {
      const release = this.#releases.current(dataset)
      return release ? [this.#viewOf(release, this.#releases.next(dataset))] : []
    })
  }

  open(dataset: string, path: string): OpenItem {
    const kept = this.#items.get(`${dataset}/${path}`)
    if (kept && this.#stillProven(kept)) return kept.item
    const release = this.#releases.current(dataset)
    if (!release) throw new EdgeError('DATASET_UNKNOWN', dataset)
    const found = this.#reading(release, () => release.catalog.find(path))
    if (!found) throw new EdgeError('ITEM_UNKNOWN', `${dataset} has no item ${JSON.stringify(path)}`)
    return this.#keep(release, found.entry, found.page).item
  }

  openDigest(sha256: Sha256): OpenItem {
    const kept = this.#byDigest.get(sha256)
    if (kept && this.#stillProven(kept)) return kept.item
    let denied: EdgeError | undefined
    for (const release of this.#served()) {
      const entry = this.#reading(release, () => this.#digests.find(sha256, release.catalog))
      if (!entry) continue
      try {
        const item = this.#keep(release, entry, release.catalog.pageAt(entry.path))
        this.#byDigest.set(sha256, item)
        return item.item
      } catch (error) {
        if (!isEdgeError(error, 'ITEM_DENIED')) throw error
        denied = error
      }
    }
    throw denied ?? new EdgeError('ITEM_UNKNOWN', `no catalog has ${sha256}`)
  }

  list(request: Parameters<Library['list']>[0]): ReturnType<Library['list']> {
    return listItems(
      {
        store: this.#store,
        needs: this.#needs,
        releases: this.#served(),
        isDenied: (dataset, entry) => this.#trust.isDenied({ dataset, ...entry }),
      },
      request,
    )
  }

  releases(): readonly DatasetReleases[] {
    return this.#releases.releases()
  }

  acceptRelease(dataset: string, manifestBytes: Uint8Array): Promise<void> {
    return this.#releases.acceptRelease(dataset, manifestBytes)
  }

  missing(dataset: string): Promise<Missing> {
    return this.#releases.missing(dataset)
  }

  streamMissing(dataset: string): AsyncGenerator<Missing> {
    return this.#releases.streamMissing(dataset)
  }

  streamItems(dataset: string, every?: number): AsyncGenerator<readonly ListedItem[]> {
    return this.#releases.streamItems(dataset, every)
  }

  async *streamEntries(dataset: string): AsyncGenerator<readonly CatalogEntry[]> {
    const release = this.#releases.current(dataset)
    if (!release) throw new EdgeError('DATASET_UNKNOWN', dataset)
    const { catalog } = release
    for (let page = 0; page < catalog.pages; page++) {
      if (this.#closed) throw new EdgeError('NOT_READY', 'the library is closed')
      const entries = this.#reading(release, () => catalog.entries(page))
      yield entries.filter(entry => !this.#trust.isDenied({ dataset, ...entry }))
      await new Promise(resolve => setImmediate(resolve))
    }
  }

  activateIfWhole(dataset: string): Promise<boolean> {
    return this.#releases.activateIfWhole(dataset)
  }

  mending(): Promise<unknown> | undefined {
    return this.#healing.size > 0 ? Promise.all(this.#healing.values()) : undefined
  }

  retryAfterSeconds(item: OpenItem): number {
    return this.#options.retryAfterSeconds?.(item) ?? RETRY_AFTER_SECONDS
  }

  block(cid: Cid, options: Abortable): Promise<Uint8Array | undefined> {
    return this.#blocks.block(cid, options)
  }

  isDenied(root: Cid): boolean {
    for (const { dataset, catalog } of this.#served()) {
      const entry = this.#digests.findRoot(root, catalog)
      if (entry && this.#trust.isDenied({ dataset, ...entry })) return true
    }
    return false
  }

  mediaTypeOf(root: Cid): string | undefined {
    for (const { catalog } of this.#served()) {
      const entry = this.#digests.findRoot(root, catalog)
      if (entry) return entry.mediaType
    }
    return undefined
  }

  async settled(): Promise<void> {
    await this.#store.settled()
    await this.#keeping.settled()
    await this.#digests.settled()
    await this.#chunks.settled()
    await this.#presence.settled()
  }

  async [Symbol.asyncDispose](): Promise<void> {
    if (this.#closed) return
    this.#closed = true
    clearImmediate(this.#firstCheck)
    clearInterval(this.#watching)
    await this.#presence.stop()
    await this.#keeping.stop()
    await this.#digests.stop()
    await this.#chunks.stop()
    this.#database[Symbol.dispose]()
  }

  /** Once a second, and when trust has changed: is the release still the one, the item not denied, and the entry what its page says? */
  #stillProven(kept: KeptItem): boolean {
    const now = performance.now()
    const { sequence } = this.#trust
    if (kept.sequence === sequence && now - kept.provenAt < LEASE_MS) return true
    const { release, entry, page } = kept
    if (this.#releases.current(release.dataset) !== release) return false
    if (this.#trust.isDenied({ dataset: release.dataset, ...entry })) return false
    const again = this.#reading(release, () => release.catalog.findDigest(entry.sha256, page))
    if (!again || !isSame(kept.item, again)) return false
    kept.sequence = sequence
    kept.provenAt = now
    return true
  }

  #keep(release: Release, entry: CatalogEntry, page: number): KeptItem {
    const { bring } = this.#options
    const { dataset, manifest } = release
    if (this.#trust.isDenied({ dataset, ...entry })) {
      throw new EdgeError('ITEM_DENIED', `${dataset}/${entry.path} must no longer be served`)
    }
    const origin = {
      dataset,
      revision: manifest.revision,
      publishedAtMs: Date.parse(manifest.published),
      priority: manifest.priority,
      freshness: () => this.#trust.freshness(dataset),
      onRead: () => void (release.readAt = performance.now()),
      bring:
        bring &&
        ((wish: Omit<BringWish, 'dataset' | 'path'>, until: Abortable) =>
          bring({ ...wish, dataset, path: entry.path }, until)),
    }
    const item = new StoredItem(this.#store, origin, entry)
    const kept = { item, entry, page, release, sequence: this.#trust.sequence, provenAt: performance.now() }
    this.#items.set(`${dataset}/${entry.path}`, kept)
    return kept
  }

  /** A page that cannot be read is asked for in the background, so that the next request may have it. */
  #reading<T>(release: Release, read: () => T): T {
    try {
      return read()
    } catch (error) {
      if (isEdgeError(error, 'CHUNK_CORRUPT', 'CHUNK_ABSENT') && this.#owner) this.#healCatalog(release)
      throw error
    }
  }

  #healCatalog({ catalog }: Release): void {
    if (this.#healing.has(catalog.root)) return
    const store = this.#store
    const signal = AbortSignal.timeout(HEAL_MS)
    const heal = async () => {
      for (const cid of catalog.missing().nodes) await store.healNode(cid, { signal })
      for (let page = 0; page < catalog.pages; page++) {
        try {
          catalog.page(page)
        } catch {
          await catalog.heal(page, signal)
        }
      }
    }
    const healing = heal()
      .catch(() => undefined)
      .finally(() => this.#healing.delete(catalog.root))
    this.#healing.set(catalog.root, healing)
  }

  #changed(dropped: readonly Release[]): void {
    if (this.#closed || !this.#owner) return
    this.#items.clear()
    this.#byDigest.clear()
    this.#keeping.update(dropped)
    this.#digests.update(this.#active().map(({ catalog }) => catalog))
  }

  /** What is denied is deleted, what is pinned is held. */
  #lookAtWishes(): void {
    const { wishes } = this.#trust
    if (wishes === this.#wishes) return
    this.#wishes = wishes
    this.#keeping.needsChanged()
  }

  /** A dataset that was never served is, as soon as its catalog is whole. */
  #checkFirstReleases(): void {
    if (this.#firstCheck || this.#closed) return
    this.#firstCheck = setImmediate(() => {
      this.#firstCheck = undefined
      for (const dataset of this.#releases.datasets()) {
        if (this.#releases.current(dataset) || !this.#releases.next(dataset)) continue
        this.#releases.activateIfWhole(dataset).catch(() => undefined) // tried again when more comes
      }
    })
  }

  #served(): Release[] {
    return this.#releases
      .datasets()
      .flatMap(dataset => this.#releases.current(dataset) ?? [])
      .toSorted((a, b) => (a.dataset < b.dataset ? -1 : 1))
  }

  #active(): Release[] {
    return this.#releases
      .datasets()
      .flatMap(dataset => [this.#releases.current(dataset) ?? [], this.#releases.next(dataset) ?? []].flat())
  }

  #viewOf(release: Release, next: Release | undefined): DatasetView {
    const { dataset, manifest } = release
    return {
      dataset,
      title: manifest.title ?? dataset,
      revision: manifest.revision,
      publishedAt: manifest.published,
      items: manifest.catalog.items,
      expected: manifest.catalog.itemBytes,
      present: this.#presence.bytesOf(release),
      priority: manifest.priority,
      freshness: this.#trust.freshness(dataset),
      ...(next && {
        next: {
          revision: next.manifest.revision,
          expected: next.manifest.catalog.itemBytes,
          present: this.#presence.bytesOf(next),
        },
      }),
    }
  }
}

function isSame(item: StoredItem, entry: CatalogEntry): boolean {
  return (
    item.path === entry.path &&
    item.sha256 === entry.sha256 &&
    item.root === entry.root &&
    item.sizeBytes === entry.sizeBytes &&
    item.mediaType === entry.mediaType
  )
}
