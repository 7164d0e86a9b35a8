/**
 * One LRU order kept by `lru-cache`, with the learned policy's value on top: admission by value in
 * front, and the choice of who leaves among the oldest entries. What the learned policy would be with
 * one queue instead of one per class; to see what its own queues are worth.
 */
import { LRUCache } from 'lru-cache'
import { Demand } from '../../../node/store/policy/demand.ts'
import type { Decision, KeepPolicy } from '../../../node/store/policy/policy.ts'
import { Slots } from '../../../node/store/policy/slots.ts'
import { admitted, HIT, REJECT } from './outcome.ts'

/** Entries looked at when somebody has to leave. */
const OLDEST = 64

export class ValueLru implements KeepPolicy {
  readonly name = 'value-lru'
  usedBytes = 0
  readonly #capacityBytes: number
  readonly #alpha: number
  readonly #slots = new Slots()
  readonly #demand: Demand
  /** Bounded by what leaves; `max` would allocate for that many at once. */
  readonly #lru = new LRUCache<number, true>({ maxSize: Number.MAX_SAFE_INTEGER, sizeCalculation: () => 1 })

  constructor(capacityBytes: number, alpha: number, seed: number) {
    this.#capacityBytes = capacityBytes
    this.#alpha = alpha
    this.#demand = new Demand(this.#slots, seed)
  }

  request(key: number, sizeBytes: number, nowSeconds: number): Decision {
    const found = this.#slots.find(key)
    const slot = found >= 0 ? found : this.#slots.add(key, sizeBytes)
    this.#demand.request(slot, nowSeconds)
    if (this.#lru.get(key) !== undefined) return HIT
    if (sizeBytes > this.#capacityBytes) return REJECT
    const rate = this.#demand.logRateSoon(slot, sizeBytes / this.#capacityBytes)
    const victims = this.#victims(sizeBytes, this.#worth(slot, rate))
    if (!victims) return REJECT
    for (const victim of victims) {
      this.usedBytes -= this.#slots.size[this.#slots.find(victim)]!
      this.#lru.delete(victim)
    }
    this.#slots.size[slot] = sizeBytes
    this.#lru.set(key, true)
    this.usedBytes += sizeBytes
    this.#demand.residents = this.#lru.size
    return admitted(victims)
  }

  #worth(slot: number, logRate: number): number {
    return 2 ** (logRate + (1 - this.#alpha) * Math.log2(this.#slots.size[slot]!))
  }

  #victims(sizeBytes: number, worth: number): number[] | undefined {
    let missing = this.usedBytes + sizeBytes - this.#capacityBytes
    if (missing <= 0) return []
    const oldest: { key: number; slot: number; density: number }[] = []
    for (const key of this.#lru.rkeys()) {
      const slot = this.#slots.find(key)
      const density = this.#demand.logRate(slot) - this.#alpha * Math.log2(this.#slots.size[slot]!)
      oldest.push({ key, slot, density })
      if (oldest.length === OLDEST) break
    }
    const victims: number[] = []
    let lost = 0
    for (const { key, slot } of oldest.sort((a, b) => a.density - b.density)) {
      lost += this.#worth(slot, this.#demand.logRate(slot))
      if (lost > worth) return undefined
      victims.push(key)
      missing -= this.#slots.size[slot]!
      if (missing <= 0) return victims
    }
    return undefined
  }
}
