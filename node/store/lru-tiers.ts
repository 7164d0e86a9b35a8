/**
 * The plainest tier policy: least recently used, hot above warm, each by `lru-cache`. What the hot
 * tier cannot hold goes to the warm one, what that cannot hold leaves. A warm extent that is asked
 * for twice goes back up. Exempt extents are counted, but stand outside the queues.
 */
import { LRUCache } from 'lru-cache'
import {
  EXEMPT,
  type Decision,
  type Exemption,
  type Place,
  type PolicyUsage,
  type TierPolicy,
} from './policy/policy.ts'

interface Exempted {
  readonly sizeBytes: number
  place: Place
  reasons: number
}

const KEPT: Decision = { outcome: 'hit', place: 'hot', evict: [], demote: [], promote: false }
const REJECTED: Decision = { outcome: 'reject', place: null, evict: [], demote: [], promote: false }

export class LruTiers implements TierPolicy {
  readonly name = 'lru'
  #capacityBytes: number
  #hotBytesMax: number
  readonly #hot = queue()
  readonly #warm = queue()
  /** Warm keys that were asked for once since they came there. */
  readonly #askedOnce = new Set<number>()
  readonly #exempt = new Map<number, Exempted>()
  #exemptHotBytes = 0
  #exemptWarmBytes = 0

  constructor(capacityBytes: number, hotBytesMax: number) {
    this.#capacityBytes = capacityBytes
    this.#hotBytesMax = Math.min(hotBytesMax, capacityBytes)
  }

  get usedBytes(): number {
    return this.#hotBytes + this.#warmBytes
  }

  request(key: number, sizeBytes: number, _nowSeconds: number, reachable = true): Decision {
    const exempt = this.#exempt.get(key)
    if (exempt) return { ...KEPT, place: exempt.place }
    if (this.#hot.get(key) !== undefined) return KEPT
    if (this.#warm.get(key) !== undefined) return this.#askWarm(key, sizeBytes)
    return reachable ? this.#insert(key, sizeBytes) : REJECTED
  }

  admit(key: number, sizeBytes: number): Decision {
    const place = this.placeOf(key)
    return place ? { ...KEPT, place } : this.#insert(key, sizeBytes)
  }

  admitAsked(key: number, sizeBytes: number): Decision {
    return this.admit(key, sizeBytes)
  }

  exempt(key: number, sizeBytes: number, why: Exemption): Decision {
    const already = this.#exempt.get(key)
    if (already) {
      already.reasons |= EXEMPT[why]
      return { ...KEPT, place: already.place }
    }
    const size = Math.max(1, sizeBytes)
    const place = this.placeOf(key)
    if (!place && this.#exemptHotBytes + this.#exemptWarmBytes + size > this.#capacityBytes) return REJECTED
    this.remove(key)
    const chosen = place ?? this.#placeFor(size)
    this.#exempt.set(key, { sizeBytes: size, place: chosen, reasons: EXEMPT[why] })
    this.#count(chosen, size)
    return this.#settle({ outcome: place ? 'hit' : 'admit', place: chosen, promote: false })
  }

  release(key: number, why: Exemption): void {
    const exempt = this.#exempt.get(key)
    if (!exempt) return
    exempt.reasons &= ~EXEMPT[why]
    if (exempt.reasons !== 0) return
    this.#exempt.delete(key)
    this.#count(exempt.place, -exempt.sizeBytes)
    this.#queueOf(exempt.place).set(key, exempt.sizeBytes, { size: exempt.sizeBytes })
  }

  adopt(key: number, sizeBytes: number, place: Place): void {
    const exempt = this.#exempt.get(key)
    if (exempt) {
      this.#count(exempt.place, -exempt.sizeBytes)
      exempt.place = place
      this.#count(place, exempt.sizeBytes)
      return
    }
    this.remove(key)
    const size = Math.max(1, sizeBytes)
    this.#queueOf(place).set(key, size, { size })
  }

  remove(key: number): void {
    const exempt = this.#exempt.get(key)
    if (exempt) {
      this.#exempt.delete(key)
      this.#count(exempt.place, -exempt.sizeBytes)
    }
    this.#hot.delete(key)
    this.#warm.delete(key)
    this.#askedOnce.delete(key)
  }

  placeOf(key: number): Place | null {
    const exempt = this.#exempt.get(key)
    if (exempt) return exempt.place
    if (this.#hot.has(key)) return 'hot'
    return this.#warm.has(key) ? 'warm' : null
  }

  resize(capacityBytes: number, hotBytesMax: number): Decision {
    this.#capacityBytes = capacityBytes
    this.#hotBytesMax = Math.min(hotBytesMax, capacityBytes)
    return this.#settle({ outcome: 'hit', place: null, promote: false })
  }

  usage(): PolicyUsage {
    const residents = this.#hot.size + this.#warm.size + this.#exempt.size
    return {
      residents,
      known: residents,
      usedBytes: this.usedBytes,
      hotBytes: this.#hotBytes,
      exemptBytes: this.#exemptHotBytes + this.#exemptWarmBytes,
      memoryBytes: residents * 100,
    }
  }

  drainChanges(): undefined {
    return undefined
  }

  *checkpoint(): Generator<Uint8Array> {
    // recency is lost at a restart: the store offers everything again, oldest row first
  }

  // oxlint-disable-next-line require-yield -- there is nothing to restore
  *restore(): Generator<void, number> {
    return 0
  }

  #askWarm(key: number, sizeBytes: number): Decision {
    if (!this.#askedOnce.has(key) || sizeBytes > this.#hotBytesMax) {
      this.#askedOnce.add(key)
      return { ...KEPT, place: 'warm' }
    }
    this.remove(key)
    this.#hot.set(key, Math.max(1, sizeBytes), { size: Math.max(1, sizeBytes) })
    return this.#settle({ outcome: 'hit', place: 'hot', promote: true })
  }

  #insert(key: number, sizeBytes: number): Decision {
    const size = Math.max(1, sizeBytes)
    if (size > this.#capacityBytes - this.#exemptHotBytes - this.#exemptWarmBytes) return REJECTED
    const place = this.#placeFor(size)
    this.#queueOf(place).set(key, size, { size })
    return this.#settle({ outcome: 'admit', place, promote: false })
  }

  #placeFor(sizeBytes: number): Place {
    return sizeBytes <= this.#hotBytesMax - this.#exemptHotBytes ? 'hot' : 'warm'
  }

  /** Moves down and out whatever no longer fits. */
  #settle(decision: Pick<Decision, 'outcome' | 'place' | 'promote'>): Decision {
    const demote: number[] = []
    const evict: number[] = []
    while (this.#hotBytes > this.#hotBytesMax && this.#hot.size > 0) {
      const [key, size] = oldest(this.#hot)
      this.#hot.delete(key)
      this.#warm.set(key, size, { size })
      demote.push(key)
    }
    while (this.usedBytes > this.#capacityBytes && this.#warm.size + this.#hot.size > 0) {
      const from = this.#warm.size > 0 ? this.#warm : this.#hot
      const [key] = oldest(from)
      from.delete(key)
      this.#askedOnce.delete(key)
      evict.push(key)
    }
    const gone = new Set(evict)
    return { ...decision, evict, demote: demote.filter(key => !gone.has(key)) }
  }

  #count(place: Place, bytes: number): void {
    if (place === 'hot') this.#exemptHotBytes += bytes
    else this.#exemptWarmBytes += bytes
  }

  #queueOf(place: Place): LRUCache<number, number> {
    return place === 'hot' ? this.#hot : this.#warm
  }

  get #hotBytes(): number {
    return this.#hot.calculatedSize + this.#exemptHotBytes
  }

  get #warmBytes(): number {
    return this.#warm.calculatedSize + this.#exemptWarmBytes
  }
}

function queue(): LRUCache<number, number> {
  return new LRUCache({ maxSize: Number.MAX_SAFE_INTEGER })
}

function oldest(from: LRUCache<number, number>): [key: number, sizeBytes: number] {
  const key = from.rkeys().next().value!
  return [key, from.peek(key)!]
}
