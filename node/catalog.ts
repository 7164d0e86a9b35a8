/**
 * Looking things up in one release's catalog, page by page, each page proven before a line of it is
 * believed (I1). Nothing is indexed beforehand: pages are sorted, so a look-up is a binary search
 * over their first paths, which are remembered, and one search inside a page.
 *
 * Pages in memory have a lease of a second; after that they are hashed again.
 */
import { LRUCache } from 'lru-cache'
import { codecOf, type Cid } from '../manifests/cid.ts'
import { parsePage, type CatalogEntry } from '../manifests/catalog.ts'
import { sha256Of, type Sha256 } from '../manifests/digest.ts'
import { EdgeError, isEdgeError } from '../manifests/errors.ts'
import type { ExtentRef } from '../manifests/extent.ts'
import { comparePaths } from '../manifests/item-path.ts'
import type { Manifest } from '../manifests/manifest.ts'
import { extentsUnder } from './dag-walk.ts'
import type { ContentStore } from './store/store.ts'

const LEASE_MS = 1000
const CACHED_BYTES_MAX = 8 * 1024 * 1024

export interface CatalogPage {
  readonly number: number
  readonly bytes: Buffer
}

export interface FoundEntry {
  readonly entry: CatalogEntry
  readonly page: number
}

interface PageRef {
  readonly extent: Cid
  readonly offset: number
  readonly digest: Sha256
  readonly sizeBytes: number
}

interface CachedPage extends CatalogPage {
  provenAt: number
}

/** Shared by all catalogs: what of their pages is in memory. */
export class PageCache {
  readonly pages = new LRUCache<Sha256, CachedPage>({
    maxSize: CACHED_BYTES_MAX,
    sizeCalculation: ({ bytes }) => bytes.length + 200,
  })
}

export class Catalog {
  readonly #store: ContentStore
  readonly #cache: PageCache
  readonly #ref: Manifest['catalog']
  /** The catalog's extents, and the number of the first page in each; found once all nodes are here. */
  #extents: readonly (ExtentRef & { readonly firstPage: number; readonly pages: number })[] | undefined
  readonly #firstPaths = new Map<number, string>()

  constructor(store: ContentStore, ref: Manifest['catalog'], cache: PageCache) {
    this.#store = store
    this.#ref = ref
    this.#cache = cache
  }

  get root(): Cid {
    return this.#ref.root
  }

  /** What of the catalog itself is not here; both empty when it is whole. */
  missing(): { readonly nodes: readonly Cid[]; readonly extents: readonly ExtentRef[] } {
    const { extents, unknown } = extentsUnder(this.#store, this.#ref.root, this.#ref.size)
    const absent = this.#store.absentOf(extents.map(({ cid }) => cid))
    return { nodes: unknown, extents: extents.filter(({ cid }) => absent.has(cid)) }
  }

  /** The extents that the catalog consists of, as far as they are known. */
  extents(): readonly ExtentRef[] {
    return extentsUnder(this.#store, this.#ref.root, this.#ref.size).extents
  }

  isWhole(): boolean {
    const { nodes, extents } = this.missing()
    return nodes.length === 0 && extents.length === 0
  }

  /** @throws EdgeError `CHUNK_ABSENT` when the catalog's nodes are not here. */
  get pages(): number {
    const last = this.#layout().at(-1)
    return last ? last.firstPage + last.pages : 0
  }

  /** @throws EdgeError `CHUNK_ABSENT`, `CHUNK_CORRUPT`, `CATALOG_INVALID` */
  find(path: string): FoundEntry | undefined {
    for (let attempt = 0; ; attempt++) {
      const number = this.#pageFor(path)
      if (number === undefined) return undefined
      const entry = entryWith(this.page(number).bytes, `{"path":${JSON.stringify(path)},`)
      if (entry) return { entry, page: number }
      if (attempt > 0 || this.#brackets(number, path)) return undefined
      this.#firstPaths.clear() // what was remembered has rotted
    }
  }

  /** The entry on this page whose item has this digest. */
  findDigest(sha256: Sha256, number: number): CatalogEntry | undefined {
    if (number >= this.pages) return undefined
    return entryWith(this.page(number).bytes, `"sha256":"${sha256}"`)
  }

  findRoot(root: Cid, number: number): CatalogEntry | undefined {
    if (number >= this.pages) return undefined
    return entryWith(this.page(number).bytes, `"root":"${root}"`)
  }

  /** @throws EdgeError `CHUNK_ABSENT`, `CHUNK_CORRUPT` */
  page(number: number): CatalogPage {
    return this.#page(number, true)
  }

  #page(number: number, keep: boolean): CatalogPage {
    const ref = this.#pageRef(number)
    const cached = this.#cache.pages.get(ref.digest)
    if (cached) {
      const now = performance.now()
      if (now - cached.provenAt < LEASE_MS) return cached
      if (sha256Of(cached.bytes) === ref.digest) {
        cached.provenAt = now
        return cached
      }
      this.#cache.pages.delete(ref.digest)
    }
    const bytes = Buffer.allocUnsafeSlow(ref.sizeBytes)
    this.#store.readChunkInto(ref.extent, ref.offset, ref, bytes)
    const page = { number, bytes, provenAt: performance.now() }
    if (keep) this.#cache.pages.set(ref.digest, page)
    return page
  }

  /**
   * All entries of a page, for who goes through all pages: that does not push others out of memory.
   * @throws EdgeError `CATALOG_INVALID`, and as `page`
   */
  entries(number: number): readonly CatalogEntry[] {
    return parsePage(this.#page(number, false).bytes)
  }

  /** Every `every`th entry from the `first`th on, likewise, and how many there are: parsing them all takes a while. */
  sample(number: number, first: number, every: number): { entries: CatalogEntry[]; lines: number } {
    const { bytes } = this.#page(number, false)
    const entries: CatalogEntry[] = []
    let lines = 0
    for (let from = 0; from < bytes.length; lines++) {
      const to = bytes.indexOf(0x0a, from) + 1 || bytes.length
      if (lines >= first && (lines - first) % every === 0)
        entries.push(...parsePage(bytes.subarray(from, to)))
      from = to
    }
    return { entries, lines }
  }

  /** The page's text, likewise. */
  textOf(number: number): string {
    return this.#page(number, false).bytes.toString('utf8')
  }

  /** The page that would hold `path`; undefined when it sorts before the first one. */
  pageAt(path: string): number {
    return this.#pageFor(path) ?? 0
  }

  digestOf(number: number): Sha256 {
    return this.#pageRef(number).digest
  }

  /** Tries to get a page back that cannot be read; for the background. */
  async heal(number: number, signal: AbortSignal): Promise<void> {
    const { extent, offset, digest, sizeBytes } = this.#pageRef(number)
    await this.#store.healChunk(extent, offset, { digest, sizeBytes }, { signal })
  }

  #pageFor(path: string): number | undefined {
    let low = 0
    let high = this.pages - 1
    while (low <= high) {
      const middle = (low + high) >>> 1
      if (comparePaths(this.#firstPath(middle), path) <= 0) low = middle + 1
      else high = middle - 1
    }
    return high < 0 ? undefined : high
  }

  /** Whether the pages themselves say that `path` could only be on this one. */
  #brackets(number: number, path: string): boolean {
    const here = firstPathOf(this.page(number).bytes)
    const next = number + 1 < this.pages ? firstPathOf(this.page(number + 1).bytes) : undefined
    return comparePaths(here, path) <= 0 && (next === undefined || comparePaths(path, next) < 0)
  }

  #firstPath(number: number): string {
    let first = this.#firstPaths.get(number)
    if (first === undefined) {
      first = firstPathOf(this.page(number).bytes)
      this.#firstPaths.set(number, first)
    }
    return first
  }

  #pageRef(number: number): PageRef {
    const extents = this.#layout()
    let low = 0
    let high = extents.length - 1
    while (low < high) {
      const middle = (low + high + 1) >>> 1
      if (extents[middle]!.firstPage <= number) low = middle
      else high = middle - 1
    }
    const extent = extents[low]
    if (!extent || number < 0 || number >= extent.firstPage + extent.pages)
      throw new RangeError(`page ${number}`)
    if (codecOf(extent.cid) === 'raw') {
      return { extent: extent.cid, offset: 0, digest: this.#ref.sha256, sizeBytes: this.#ref.size }
    }
    const view = this.#store.view(extent.cid)
    if (!view) throw new EdgeError('CHUNK_ABSENT', `node ${extent.cid} of the catalog`)
    const link = number - extent.firstPage
    return {
      extent: extent.cid,
      offset: view.startOf(link),
      digest: view.digestAt(link),
      sizeBytes: view.sizeOf(link),
    }
  }

  #layout() {
    if (this.#extents) return this.#extents
    const { extents, unknown } = extentsUnder(this.#store, this.#ref.root, this.#ref.size)
    if (unknown.length > 0) throw new EdgeError('CHUNK_ABSENT', `node ${unknown[0]} of the catalog`)
    let firstPage = 0
    const layout = extents.map(extent => {
      const pages =
        codecOf(extent.cid) === 'raw' ? (extent.sizeBytes > 0 ? 1 : 0) : this.#store.view(extent.cid)?.links
      if (pages === undefined) throw new EdgeError('CHUNK_ABSENT', `node ${extent.cid} of the catalog`)
      firstPage += pages
      return { ...extent, firstPage: firstPage - pages, pages }
    })
    this.#extents = layout
    return layout
  }
}

/** The line that contains `needle`, parsed and checked; lines are JSON with keys in a fixed order. */
function entryWith(bytes: Buffer, needle: string): CatalogEntry | undefined {
  for (let from = 0; ; ) {
    const at = bytes.indexOf(needle, from)
    if (at < 0) return undefined
    const lineFrom = at === 0 ? 0 : bytes.lastIndexOf(0x0a, at - 1) + 1
    const lineTo = bytes.indexOf(0x0a, at) + 1
    const entry = entryOf(bytes.subarray(lineFrom, lineTo))
    // a title may contain anything: what was found must be the line's own
    if (
      entry &&
      (lineFrom === at || needle === `"sha256":"${entry.sha256}"` || needle === `"root":"${entry.root}"`)
    ) {
      return entry
    }
    from = at + 1
  }
}

function entryOf(line: Buffer): CatalogEntry | undefined {
  try {
    return parsePage(line)[0]
  } catch (error) {
    if (isEdgeError(error, 'CATALOG_INVALID')) return undefined
    throw error
  }
}

function firstPathOf(bytes: Buffer): string {
  const entry = parsePage(bytes.subarray(0, bytes.indexOf(0x0a) + 1))[0]
  if (!entry) throw new EdgeError('CATALOG_INVALID', 'an empty page')
  return entry.path
}
