/**
 * SIEVE (Zhang et al., NSDI 2024): a queue in order of arrival and a hand that moves from old to
 * new; what was asked for since the hand last passed is spared.
 */
import type { Decision, KeepPolicy } from '../../../node/store/policy/policy.ts'
import { admitted, HIT, REJECT } from './outcome.ts'

interface Entry {
  readonly key: number
  readonly sizeBytes: number
  visited: boolean
  newer: Entry | undefined
  older: Entry | undefined
}

export class Sieve implements KeepPolicy {
  readonly name = 'sieve'
  usedBytes = 0
  readonly #capacityBytes: number
  readonly #entries = new Map<number, Entry>()
  #newest: Entry | undefined
  #oldest: Entry | undefined
  #hand: Entry | undefined

  constructor(capacityBytes: number) {
    this.#capacityBytes = capacityBytes
  }

  request(key: number, sizeBytes: number, _nowSeconds: number, reachable = true): Decision {
    const entry = this.#entries.get(key)
    if (entry) {
      entry.visited = true
      return HIT
    }
    if (!reachable || sizeBytes > this.#capacityBytes) return REJECT
    const evict: number[] = []
    while (this.usedBytes + sizeBytes > this.#capacityBytes) evict.push(this.#evict())
    const added: Entry = { key, sizeBytes, visited: false, newer: undefined, older: this.#newest }
    if (this.#newest) this.#newest.newer = added
    else this.#oldest = added
    this.#newest = added
    this.#entries.set(key, added)
    this.usedBytes += sizeBytes
    return admitted(evict)
  }

  #evict(): number {
    let entry = this.#hand ?? this.#oldest!
    while (entry.visited) {
      entry.visited = false
      entry = entry.newer ?? this.#oldest!
    }
    this.#hand = entry.newer
    if (entry.older) entry.older.newer = entry.newer
    else this.#oldest = entry.newer
    if (entry.newer) entry.newer.older = entry.older
    else this.#newest = entry.older
    this.#entries.delete(entry.key)
    this.usedBytes -= entry.sizeBytes
    return entry.key
  }
}
