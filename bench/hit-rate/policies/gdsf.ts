/**
 * Greedy-Dual-Size-Frequency (Cherkasova 1998): priority = clock + frequency / size; the clock is
 * the priority of what left last. `alpha` is the exponent of the size.
 */
import type { Decision, KeepPolicy } from '../../../node/store/policy/policy.ts'
import { admitted, HIT, REJECT } from './outcome.ts'

interface Entry {
  readonly key: number
  readonly sizeBytes: number
  frequency: number
  priority: number
  at: number
}

export class Gdsf implements KeepPolicy {
  readonly name = 'gdsf'
  usedBytes = 0
  readonly #capacityBytes: number
  readonly #alpha: number
  readonly #entries = new Map<number, Entry>()
  /** A binary heap, lowest priority first. */
  readonly #heap: Entry[] = []
  #clock = 0

  constructor(capacityBytes: number, alpha = 1) {
    this.#capacityBytes = capacityBytes
    this.#alpha = alpha
  }

  request(key: number, sizeBytes: number, _nowSeconds: number, reachable = true): Decision {
    const entry = this.#entries.get(key)
    if (entry) {
      entry.frequency++
      entry.priority = this.#priorityOf(entry)
      this.#sink(entry.at)
      return HIT
    }
    if (!reachable || sizeBytes > this.#capacityBytes) return REJECT
    const evict: number[] = []
    while (this.usedBytes + sizeBytes > this.#capacityBytes) {
      const victim = this.#pop()
      this.#clock = victim.priority
      this.usedBytes -= victim.sizeBytes
      this.#entries.delete(victim.key)
      evict.push(victim.key)
    }
    const added: Entry = { key, sizeBytes, frequency: 1, priority: 0, at: this.#heap.length }
    added.priority = this.#priorityOf(added)
    this.#entries.set(key, added)
    this.#heap.push(added)
    this.#rise(added.at)
    this.usedBytes += sizeBytes
    return admitted(evict)
  }

  #priorityOf({ frequency, sizeBytes }: Entry): number {
    return this.#clock + frequency / sizeBytes ** this.#alpha
  }

  #pop(): Entry {
    const first = this.#heap[0]!
    const last = this.#heap.pop()!
    if (last !== first) {
      this.#put(0, last)
      this.#sink(0)
    }
    return first
  }

  #put(at: number, entry: Entry): void {
    this.#heap[at] = entry
    entry.at = at
  }

  #rise(from: number): void {
    const entry = this.#heap[from]!
    let at = from
    while (at > 0) {
      const parent = (at - 1) >> 1
      if (this.#heap[parent]!.priority <= entry.priority) break
      this.#put(at, this.#heap[parent]!)
      at = parent
    }
    this.#put(at, entry)
  }

  #sink(from: number): void {
    const entry = this.#heap[from]!
    let at = from
    for (;;) {
      let child = 2 * at + 1
      if (child >= this.#heap.length) break
      const right = this.#heap[child + 1]
      if (right && right.priority < this.#heap[child]!.priority) child++
      if (this.#heap[child]!.priority >= entry.priority) break
      this.#put(at, this.#heap[child]!)
      at = child
    }
    this.#put(at, entry)
  }
}
