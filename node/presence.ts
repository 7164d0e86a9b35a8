/**
 * How many bytes of a release are here. Counting asks the store about every item, so it is done in
 * the background, page by page, and only when something came or went since; small releases are
 * counted on the spot.
 */
import { isEdgeError } from '../manifests/errors.ts'
import { inventoryOf } from './inventory.ts'
import type { Release } from './releases.ts'
import type { ContentStore } from './store/store.ts'

/** Releases of so many items are counted while the caller waits: some milliseconds. */
const AT_ONCE_MAX = 2_000
/** Counting takes at most this share of the time while content keeps coming. */
const DUTY = 0.05

interface Count {
  bytes: number
  /** Of the store when counting began. */
  changes: number
  nextAt: number
  running: Promise<void> | undefined
}

export class Presence {
  readonly #store: ContentStore
  readonly #counts = new WeakMap<Release, Count>()
  #changes = 0
  #stopped = false
  readonly #running = new Set<Promise<void>>()

  constructor(store: ContentStore) {
    this.#store = store
    const changed = () => void this.#changes++
    store.watch({ extentCame: changed, extentWent: changed, nodeCame: changed, begunAnew: changed })
  }

  /** As of the last count; one is begun when it is out of date. */
  bytesOf(release: Release): number {
    const count = this.#countOf(release)
    if (count.changes === this.#changes || count.running) return count.bytes
    if (release.manifest.catalog.items <= AT_ONCE_MAX) {
      for (const _page of this.#count(release, count)) {
        // to the end, now
      }
    } else if (performance.now() >= count.nextAt) this.#begin(release, count)
    return count.bytes
  }

  /** Resolves when every count that was begun has ended. */
  async settled(): Promise<void> {
    while (this.#running.size > 0) await Promise.all(this.#running)
  }

  /** Ends what is being counted. */
  async stop(): Promise<void> {
    this.#stopped = true
    await this.settled()
  }

  #countOf(release: Release): Count {
    let count = this.#counts.get(release)
    if (!count) {
      count = { bytes: 0, changes: -1, nextAt: 0, running: undefined }
      this.#counts.set(release, count)
    }
    return count
  }

  #begin(release: Release, count: Count): void {
    const running = this.#countSlowly(release, count).finally(() => {
      count.running = undefined
      this.#running.delete(running)
    })
    count.running = running
    this.#running.add(running)
  }

  async #countSlowly(release: Release, count: Count): Promise<void> {
    const began = performance.now()
    for (const _page of this.#count(release, count)) {
      await new Promise(resolve => setImmediate(resolve))
      if (this.#stopped) return
    }
    const took = performance.now() - began
    count.nextAt = performance.now() + took / DUTY - took
  }

  *#count({ catalog }: Release, count: Count): Generator<void> {
    const changes = this.#changes
    let bytes = 0
    try {
      for (let page = 0; page < catalog.pages; page++) {
        for (const { presentBytes } of inventoryOf(this.#store, catalog.entries(page))) bytes += presentBytes
        yield
      }
    } catch (error) {
      if (!isEdgeError(error)) throw error // a page is not here: what was counted is what can be reached
    }
    count.bytes = bytes
    count.changes = changes
  }
}
