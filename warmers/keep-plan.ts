/**
 * What to hold when not everything fits (DESIGN section 6): what must be here, then what is worth most
 * for its bytes, of all that is here or could be fetched. The planner fetches only that, and the tiers
 * are told what it is worth, so that what a window brought stays until it was used, and what nobody
 * is expected to ask for leaves first.
 *
 * On the way the forecast is shown what could have been asked for since the last time.
 */
import type { Cid } from '../manifests/cid.ts'
import type { ContentStore, Expected } from '../node/store/store.ts'
import type { Demand } from './demand.ts'
import type { Releases } from './releases.ts'
import { planKeep, valueOf, type Candidate } from './value.ts'

export interface KeepTools {
  readonly releases: Releases
  readonly store: Partial<Pick<ContentStore, 'expect'>> & Pick<ContentStore, 'usage'>
  readonly demand?: Pick<Demand, 'requestsPerDay' | 'observe'> | undefined
}

/** Whether an item is to be fetched. */
export type Keeps = (dataset: string, path: string) => boolean

/** The store is never planned to the brim: what people ask for now needs some of it. */
const FILL_SHARE = 0.98
/** Items that the forecast is shown at a time. */
const OBSERVED_MAX = 2000

interface Item {
  readonly name: string
  readonly requestsPerDay: number
  readonly extents: readonly { readonly cid: Cid; readonly sizeBytes: number }[]
}

/** @returns undefined when everything is to be fetched: it fits, or nobody counts what is asked for. */
export async function planKeeping({ releases, store, demand }: KeepTools): Promise<Keeps | undefined> {
  if (!demand || !store.expect || !releases.streamItems) return undefined
  const manifests = releases.releases().flatMap(({ current, next }) => next ?? current ?? [])
  const itemBytes = manifests.reduce((sum, { catalog }) => sum + catalog.itemBytes, 0)
  const itemCount = manifests.reduce((sum, { catalog }) => sum + catalog.items, 0)
  const catalogBytes = manifests.reduce((sum, { catalog }) => sum + catalog.size, 0)
  const capacityBytes = store.usage().capacityBytes * FILL_SHARE - catalogBytes
  const fits = itemBytes <= capacityBytes
  const every = Math.max(1, Math.ceil(itemCount / OBSERVED_MAX))
  const observed: Parameters<Demand['observe']>[0][number][] = []
  const items: Item[] = []
  const candidates: Candidate[] = []
  let neededBytes = 0
  let seen = Math.floor(every / 2)
  for (const { dataset, published, catalog } of manifests) {
    const publishedMs = Date.parse(published)
    // where only a sample is looked at, only that is parsed
    const step = fits && catalog.items > 4 * every ? every : 1
    for await (const page of releases.streamItems(dataset, step)) {
      for (const { path, sizeBytes, priority, isNeeded, extents } of page) {
        if (step > 1 || seen++ % every === 0) observed.push({ dataset, path, publishedMs })
        if (fits) continue
        if (isNeeded()) neededBytes += sizeBytes
        else {
          const requestsPerDay = demand.requestsPerDay({ dataset, path, priority, publishedMs })
          const value = valueOf(requestsPerDay, sizeBytes, 1)
          candidates.push({ key: items.length, sizeBytes, value })
          items.push({ name: `${dataset}\n${path}`, requestsPerDay, extents: extents() })
        }
      }
    }
  }
  demand.observe(observed, every)
  if (fits) return undefined

  const keep = planKeep(candidates, Math.max(0, capacityBytes - neededBytes))
  const leftOut = new Set(items.filter((_, key) => !keep.has(key)).map(({ name }) => name))
  await store.expect(expectationsOf(items, keep))
  return (dataset, path) => !leftOut.has(`${dataset}\n${path}`)
}

/** What is to leave first, so that there is room; then the rest. What several items share counts for the best of them. */
function* expectationsOf(items: readonly Item[], keep: ReadonlySet<number>): Generator<Expected> {
  const kept = new Set<Cid>()
  for (const key of keep) for (const { cid } of items[key]!.extents) kept.add(cid)
  for (const [key, { extents }] of items.entries()) {
    if (keep.has(key)) continue
    for (const extent of extents) if (!kept.has(extent.cid)) yield { ...extent, requestsPerDay: 0 }
  }
  for (const key of [...keep].toReversed()) {
    const { extents, requestsPerDay } = items[key]!
    for (const extent of extents) yield { ...extent, requestsPerDay }
  }
}
