/** Least recently used; whatever is asked for is kept. */
import type { Decision, KeepPolicy } from '../../../node/store/policy/policy.ts'
import { admitted, HIT, REJECT } from './outcome.ts'

export class Lru implements KeepPolicy {
  readonly name: string = 'lru'
  usedBytes = 0
  readonly #capacityBytes: number
  /** Oldest first. */
  readonly #kept = new Map<number, number>()

  constructor(capacityBytes: number) {
    this.#capacityBytes = capacityBytes
  }

  request(key: number, sizeBytes: number, _nowSeconds: number, reachable = true): Decision {
    const kept = this.#kept.get(key)
    if (kept !== undefined) {
      this.#kept.delete(key)
      this.#kept.set(key, kept)
      return HIT
    }
    if (!reachable || sizeBytes > this.#capacityBytes) return REJECT
    const evict: number[] = []
    for (const [oldest, freed] of this.#kept) {
      if (this.usedBytes + sizeBytes <= this.#capacityBytes) break
      this.#kept.delete(oldest)
      this.usedBytes -= freed
      evict.push(oldest)
    }
    this.#kept.set(key, sizeBytes)
    this.usedBytes += sizeBytes
    return admitted(evict)
  }
}
