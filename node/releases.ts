/**
 * Which release of each dataset is served, which one is on its way, and what of it is not here.
 *
 * A new release never makes worse what was served (I5): it becomes the current one when everything
 * that must be here (must-have, pinned, or whole before) is here in its new version. The first
 * release of a dataset is served as soon as its catalog is whole, item by item as they come.
 */
import type { CatalogEntry } from '../manifests/catalog.ts'
import type { Cid } from '../manifests/cid.ts'
import { sha256Of, type Sha256 } from '../manifests/digest.ts'
import { EdgeError, isEdgeError } from '../manifests/errors.ts'
import type { ChunkRule } from '../manifests/extent.ts'
import { parseManifest, type Manifest } from '../manifests/manifest.ts'
import { Catalog, PageCache } from './catalog.ts'
import { extentsUnder } from './dag-walk.ts'
import { inventoryOf, isWhole, type ItemInventory } from './inventory.ts'
import type { PriorityClass } from './library.ts'
import { type Needs } from './needs.ts'
import type { ContentStore } from './store/store.ts'
import type { TrustView } from './trust-view.ts'

const LEASE_MS = 1000

export interface Release {
  readonly dataset: string
  readonly manifest: Manifest
  readonly bytes: Uint8Array
  readonly digest: Sha256
  readonly catalog: Catalog
  /** When something of it was last read, by `performance.now()`. */
  readAt: number
}

export interface MissingExtent {
  readonly cid: Cid
  /** Bytes of content. */
  readonly sizeBytes: number
  readonly rule: ChunkRule
  readonly priority: PriorityClass
  /** An item that needs it; empty for the catalog. */
  readonly path: string
}

export interface Missing {
  /** dag-pb nodes above extents; until they are here, the extents below them cannot be named. */
  readonly nodes: readonly Cid[]
  /** The catalog's first, then items' by path. */
  readonly extents: readonly MissingExtent[]
}

/** An item, here or not. */
export interface ListedItem {
  readonly path: string
  readonly sizeBytes: number
  readonly priority: PriorityClass
  /** It must be here, or the release cannot be switched (I4, I5). Asks the store. */
  isNeeded(): boolean
  /** Those that can be named: nodes above the rest may not be here. Asks the store. */
  extents(): readonly { readonly cid: Cid; readonly sizeBytes: number }[]
}

export interface DatasetReleases {
  readonly dataset: string
  /** What is served. */
  readonly current?: Manifest | undefined
  /** Accepted, and not whole yet. */
  readonly next?: Manifest | undefined
}

interface Known {
  /** What the trust record held when these were made. */
  readonly sequence: number
  readonly current: Release | undefined
  readonly next: Release | undefined
  provenAt: number
}

export interface ReleaseParts {
  readonly store: ContentStore
  readonly trust: TrustView
  readonly needs: Needs
  /** A dataset has another current or next release than before, or none. */
  readonly onChange: (dataset: string, dropped: readonly Release[]) => void
}

export class Releases {
  readonly #parts: ReleaseParts
  readonly #pages = new PageCache()
  readonly #known = new Map<string, Known>()
  readonly #activating = new Map<string, Promise<boolean>>()
  /** Why the last try to activate did not: the item to look at first the next time. */
  readonly #witness = new Map<string, string>()
  /** Pages of which every item was here, until anything goes: a look for what is missing skips them. */
  readonly #wholePages = new Set<Sha256>()

  constructor(parts: ReleaseParts) {
    this.#parts = parts
    const went = () => this.#wholePages.clear()
    parts.store.watch({ extentWent: went, begunAnew: went })
  }

  datasets(): readonly string[] {
    return this.#parts.trust.datasets()
  }

  /** The release that is served; its manifest was compared with the trust record within the last second. */
  current(dataset: string): Release | undefined {
    return this.#look(dataset)?.current
  }

  next(dataset: string): Release | undefined {
    return this.#look(dataset)?.next
  }

  releases(): readonly DatasetReleases[] {
    return this.datasets().map(dataset => ({
      dataset,
      current: this.current(dataset)?.manifest,
      next: this.next(dataset)?.manifest,
    }))
  }

  /**
   * Takes a manifest whose bytes are what TUF says they are; durable when resolved. The same one
   * again changes nothing.
   * @throws EdgeError `MANIFEST_INVALID`, `TRUST_ROLLBACK` (a revision below one accepted before)
   */
  async acceptRelease(dataset: string, manifestBytes: Uint8Array): Promise<void> {
    const { trust, onChange } = this.#parts
    const manifest = parseManifest(manifestBytes)
    if (manifest.dataset !== dataset) {
      throw new EdgeError(
        'MANIFEST_INVALID',
        `the manifest of ${dataset} says that it is ${manifest.dataset}`,
      )
    }
    const { current, next } = trust.manifests(dataset)
    const digest = sha256Of(manifestBytes)
    if ([current, next].some(known => known && sha256Of(known) === digest)) return
    const floor = trust.revisionFloor(dataset)
    if (manifest.revision < floor || (manifest.revision === floor && (current ?? next))) {
      throw new EdgeError(
        'TRUST_ROLLBACK',
        `revision ${manifest.revision} of ${dataset} after revision ${floor}`,
      )
    }
    const superseded = this.next(dataset)
    await trust.keep(dataset, { current, next: manifestBytes }, manifest.revision)
    onChange(dataset, superseded ? [superseded] : [])
    if (!current) await this.activateIfWhole(dataset)
  }

  /** Of the newest accepted release. Only the catalog's own extents until the catalog is here. */
  async missing(dataset: string): Promise<Missing> {
    const nodes: Cid[] = []
    const extents: MissingExtent[] = []
    for await (const page of this.streamMissing(dataset)) {
      nodes.push(...page.nodes)
      extents.push(...page.extents)
    }
    return { nodes, extents }
  }

  /** The same page by page, for callers that need not have all of it at once. Serving goes on in between. */
  async *streamMissing(dataset: string): AsyncGenerator<Missing> {
    for (const page of this.#missingByPage(dataset)) {
      if (page.nodes.length + page.extents.length > 0) yield page
      await new Promise(resolve => setImmediate(resolve))
    }
  }

  /**
   * Items of the newest accepted release, page by page, all or every so many; nothing while its catalog
   * is not whole.
   */
  async *streamItems(dataset: string, every = 1): AsyncGenerator<readonly ListedItem[]> {
    const current = this.current(dataset)
    const release = this.next(dataset) ?? current
    if (!release?.catalog.isWhole()) return
    const { store, trust, needs } = this.#parts
    const { manifest, catalog } = release
    const isUpdate = current !== undefined && current !== release
    let first = Math.floor(every / 2)
    for (let page = 0; page < catalog.pages; page++) {
      const { entries, lines } = catalog.sample(page, first, every)
      first += entries.length * every - lines
      yield entries.flatMap(entry => {
        if (trust.isDenied({ dataset, ...entry })) return []
        const { path, sizeBytes, root } = entry
        const isNeeded = () =>
          (isUpdate && this.#blocks(dataset, entry, current, release)) ||
          needs.whyOf(manifest, entry) !== undefined
        const extents = () => extentsUnder(store, root, sizeBytes).extents
        return { path, sizeBytes, priority: entry.priority ?? manifest.priority, isNeeded, extents }
      })
      await new Promise(resolve => setImmediate(resolve))
    }
  }

  /** Makes `next` the current release when all that must be here is. @returns whether it did. */
  activateIfWhole(dataset: string): Promise<boolean> {
    const running = this.#activating.get(dataset)
    if (running) return running
    const activating = this.#activate(dataset).finally(() => this.#activating.delete(dataset))
    this.#activating.set(dataset, activating)
    return activating
  }

  async #activate(dataset: string): Promise<boolean> {
    const { trust, onChange } = this.#parts
    const current = this.current(dataset)
    const next = this.next(dataset)
    if (!next?.catalog.isWhole()) return false
    if (current && !(await this.#isReady(dataset, current, next))) return false
    if (this.next(dataset)?.digest !== next.digest) return false // superseded meanwhile
    await trust.keep(dataset, { current: next.bytes }, next.manifest.revision)
    this.#witness.delete(dataset)
    onChange(dataset, current ? [current] : [])
    return true
  }

  /** Whether everything that must be here is here; one page at a time, so that serving goes on. */
  async #isReady(dataset: string, current: Release, next: Release): Promise<boolean> {
    const witness = this.#witness.get(dataset)
    const seen = witness === undefined ? undefined : next.catalog.find(witness)?.entry
    if (seen && this.#blocks(dataset, seen, current, next)) return false
    for (let page = 0; page < next.catalog.pages; page++) {
      const lacking = inventoryOf(this.#parts.store, next.catalog.entries(page)).filter(
        item => !isWhole(item),
      )
      const blocking = lacking.find(({ entry }) => this.#blocks(dataset, entry, current, next))
      if (blocking) {
        this.#witness.set(dataset, blocking.entry.path)
        return false
      }
      await new Promise(resolve => setImmediate(resolve))
    }
    return true
  }

  /** Whether switching would take `entry` away, or would leave out what must be here. */
  #blocks(dataset: string, entry: CatalogEntry, current: Release, next: Release): boolean {
    const { store, needs } = this.#parts
    if (inventoryOf(store, [entry]).every(isWhole)) return false
    if (needs.whyOf(next.manifest, entry)) return true
    const before = findQuietly(current.catalog, entry.path)
    if (!before || before.root === entry.root) return false
    return !this.#parts.trust.isDenied({ dataset, ...before }) && inventoryOf(store, [before]).every(isWhole)
  }

  /** The items of a page that are not wholly here; what is denied is not missed. */
  #lacking({ dataset, catalog }: Release, page: number): ItemInventory[] {
    const { store, trust } = this.#parts
    const digest = catalog.digestOf(page)
    if (this.#wholePages.has(digest)) return []
    const lacking = inventoryOf(store, catalog.entries(page)).filter(
      item => !isWhole(item) && !trust.isDenied({ dataset, ...item.entry }),
    )
    if (lacking.length === 0) this.#wholePages.add(digest)
    return lacking
  }

  *#missingByPage(dataset: string): Generator<Missing> {
    const release = this.next(dataset) ?? this.current(dataset)
    if (!release) return
    const { manifest, catalog } = release
    const { nodes, extents } = catalog.missing()
    yield {
      nodes,
      extents: extents.map(extent => missingExtent(extent, 'catalog-v1', manifest.priority, '')),
    }
    if (nodes.length + extents.length > 0) return
    for (let page = 0; page < catalog.pages; page++) {
      const lacking = this.#lacking(release, page)
      yield {
        nodes: lacking.flatMap(({ unknown }) => unknown),
        extents: lacking.flatMap(({ entry, missing }) =>
          missing.map(extent =>
            missingExtent(extent, 'fastcdc-v1', entry.priority ?? manifest.priority, entry.path),
          ),
        ),
      }
    }
  }

  /** The lease: once a second the manifests are hashed again and compared with the trust record. */
  #look(dataset: string): Known | undefined {
    const { trust } = this.#parts
    const known = this.#known.get(dataset)
    const now = performance.now()
    if (known && known.sequence === trust.sequence && now - known.provenAt < LEASE_MS) return known
    const { current, next } = trust.manifests(dataset)
    if (!current && !next) {
      this.#known.delete(dataset)
      return undefined
    }
    const fresh: Known = {
      sequence: trust.sequence,
      current: current && this.#releaseOf(dataset, current, known),
      next: next && this.#releaseOf(dataset, next, known),
      provenAt: now,
    }
    this.#known.set(dataset, fresh)
    return fresh
  }

  #releaseOf(dataset: string, bytes: Uint8Array, known: Known | undefined): Release {
    const digest = sha256Of(bytes)
    if (known?.current?.digest === digest) return known.current
    if (known?.next?.digest === digest) return known.next
    const manifest = parseManifest(bytes)
    return {
      dataset,
      manifest,
      bytes,
      digest,
      catalog: new Catalog(this.#parts.store, manifest.catalog, this.#pages),
      readAt: Number.NEGATIVE_INFINITY,
    }
  }
}

function missingExtent(
  { cid, sizeBytes }: { readonly cid: Cid; readonly sizeBytes: number },
  rule: ChunkRule,
  priority: PriorityClass,
  path: string,
): MissingExtent {
  return { cid, sizeBytes, rule, priority, path }
}

/** An old catalog that has become unreadable takes nothing away. */
function findQuietly(catalog: Catalog, path: string): CatalogEntry | undefined {
  try {
    return catalog.find(path)?.entry
  } catch (error) {
    if (isEdgeError(error)) return undefined
    throw error
  }
}
