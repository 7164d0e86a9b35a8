/**
 * Items by dataset and path, some at a time: for listings, search and the API.
 */
import type { CatalogEntry } from '../manifests/catalog.ts'
import { EdgeError } from '../manifests/errors.ts'
import { comparePaths } from '../manifests/item-path.ts'
import { extentsUnder } from './dag-walk.ts'
import { inventoryOf, type ItemInventory } from './inventory.ts'
import type { ItemView, Library, Tier } from './library.ts'
import type { Needs } from './needs.ts'
import type { Release } from './releases.ts'
import type { ContentStore } from './store/store.ts'

type Request = Parameters<Library['list']>[0]
type Answer = ReturnType<Library['list']>

/** Pages that one call may look through for words; then it answers with what it has and a cursor. */
const SEARCHED_PAGES_MAX = 512

export interface ListParts {
  readonly store: ContentStore
  readonly needs: Needs
  /** Served releases, sorted by dataset. */
  readonly releases: readonly Release[]
  readonly isDenied: (dataset: string, entry: CatalogEntry) => boolean
}

interface Cursor {
  readonly dataset: string
  readonly path: string
}

/** @throws EdgeError `DATASET_UNKNOWN`, `REQUEST_INVALID` */
export function listItems(parts: ListParts, request: Request): Answer {
  const { dataset, limit, after } = request
  const chosen = parts.releases.filter(release => dataset === undefined || release.dataset === dataset)
  if (dataset !== undefined && chosen.length === 0) throw new EdgeError('DATASET_UNKNOWN', dataset)
  const from = after === undefined ? undefined : parseCursor(after)
  const items: ItemView[] = []
  const budget = { pages: SEARCHED_PAGES_MAX }
  for (const release of chosen) {
    if (from && release.dataset < from.dataset) continue
    const start = from?.dataset === release.dataset ? from.path : undefined
    const room = limit - items.length
    const { entries, stoppedAt } = take(matches(parts, release, request, start, budget), room)
    for (const inventory of inventoryOf(parts.store, entries)) items.push(viewOf(parts, release, inventory))
    if (stoppedAt !== undefined)
      return { items, next: cursorOf({ dataset: release.dataset, path: stoppedAt }) }
  }
  return { items, next: null }
}

/** @returns `stoppedAt` where to go on, when there may be more. */
function take(
  found: Iterable<{ readonly entry?: CatalogEntry; readonly last: string }>,
  room: number,
): { readonly entries: readonly CatalogEntry[]; readonly stoppedAt?: string } {
  const entries: CatalogEntry[] = []
  for (const { entry, last } of found) {
    if (entry) entries.push(entry)
    if (!entry || entries.length === room) return { entries, stoppedAt: last }
  }
  return { entries }
}

/** An answer without an entry means: enough pages were searched, go on from `last`. */
function* matches(
  parts: ListParts,
  { dataset, catalog }: Release,
  { prefix = '', query = '' }: Request,
  after: string | undefined,
  budget: { pages: number },
): Generator<{ readonly entry?: CatalogEntry; readonly last: string }> {
  const words = query.toLowerCase().split(/\s+/).filter(Boolean)
  const begin = after !== undefined && comparePaths(after, prefix) > 0 ? after : prefix
  for (let page = begin === '' ? 0 : catalog.pageAt(begin); page < catalog.pages; page++) {
    if (words.length > 0) {
      if (budget.pages-- <= 0 && page > 0) {
        yield { last: catalog.entries(page - 1).at(-1)?.path ?? begin }
        return
      }
      const text = catalog.textOf(page).toLowerCase()
      // words as JSON writes them: what is not in the page's text is in none of its paths
      if (!words.every(word => text.includes(JSON.stringify(word).slice(1, -1)))) continue
    }
    for (const entry of catalog.entries(page)) {
      const { path } = entry
      if (after !== undefined && comparePaths(path, after) <= 0) continue
      if (!path.startsWith(prefix)) {
        if (comparePaths(path, prefix) > 0) return
        continue
      }
      if (words.length > 0 && !words.every(word => path.toLowerCase().includes(word))) continue
      if (!parts.isDenied(dataset, entry)) yield { entry, last: path }
    }
  }
}

function viewOf(
  { store, needs }: ListParts,
  { dataset, manifest }: Release,
  inventory: ItemInventory,
): ItemView {
  const { entry } = inventory
  const { tier, verifiedAtMs } = placeOf(store, inventory)
  return {
    dataset,
    path: entry.path,
    size: entry.sizeBytes,
    sha256: entry.sha256,
    cid: entry.root,
    mediaType: entry.mediaType,
    priority: entry.priority ?? manifest.priority,
    revision: manifest.revision,
    present: inventory.presentBytes,
    expected: entry.sizeBytes,
    tier,
    verifiedAt: verifiedAtMs === undefined ? null : new Date(verifiedAtMs).toISOString(),
    pinned: needs.isPinned(manifest, entry.path),
    url: `/data/${dataset}/${entry.path.split('/').map(encodeURIComponent).join('/')}`,
  }
}

/** The slowest tier among what is here, and the oldest proof. */
function placeOf(
  store: ContentStore,
  { entry, missing }: ItemInventory,
): { tier: Tier | null; verifiedAtMs: number | undefined } {
  const absent = new Set(missing.map(({ cid }) => cid))
  let tier: Tier | null = null
  let verifiedAtMs: number | undefined
  for (const { cid } of extentsUnder(store, entry.root, entry.sizeBytes).extents) {
    if (absent.has(cid)) continue
    const place = store.tierOf(cid)
    if (place && tier !== 'warm') tier = place
    const proven = store.verifiedAtOf(cid)
    if (proven !== undefined) verifiedAtMs = Math.min(proven, verifiedAtMs ?? proven)
  }
  return { tier, verifiedAtMs }
}

function cursorOf({ dataset, path }: Cursor): string {
  return Buffer.from(JSON.stringify([dataset, path])).toString('base64url')
}

function parseCursor(text: string): Cursor {
  try {
    const [dataset, path] = JSON.parse(Buffer.from(text, 'base64url').toString('utf8')) as unknown[]
    if (typeof dataset === 'string' && typeof path === 'string') return { dataset, path }
  } catch {
    // said below
  }
  throw new EdgeError('REQUEST_INVALID', 'a cursor that we did not give: begin without `after`')
}
