/**
 * The default policy: keep what is asked for most often per byte, by a rate learned online.
 *
 * Every known extent has a decayed request count and an age; a learned table turns both into a rate
 * (`demand.ts`, `hazard-table.ts`). Residents stand in LRU queues by class of count and size
 * (`ranking.ts`). A newcomer is kept when it is worth more than the sum of what would have to leave
 * for it. What lives on NVMe is decided apart (`hot-set.ts`).
 *
 * `alpha` says what a hit is worth: 1 counts requests (value per byte), 0 counts bytes, 0.5 is
 * between. Cost: about a microsecond per request and 40 bytes per known extent; ghosts, which are
 * known but not here, are at most twice as many as residents.
 */
import assert from 'node:assert/strict'
import { Changes } from './changes.ts'
import { Demand } from './demand.ts'
import { HotSet } from './hot-set.ts'
import {
  EXEMPT,
  type Decision,
  type Exemption,
  type Place,
  type PolicyUsage,
  type TierPolicy,
} from './policy.ts'
import { NO_PROMISE, promiseOf } from './promise.ts'
import { Queues } from './queues.ts'
import { Ranking } from './ranking.ts'
import { EXEMPT_MASK, EXEMPT_SHIFT, HOT, RESIDENT, Slots } from './slots.ts'
import { applyPiece, ascending, encodePiece } from './snapshot.ts'

export interface LearnedPolicyOptions {
  /** Hot and warm together. */
  readonly capacityBytes: number
  /** 0: there is no hot tier. */
  readonly hotBytesMax?: number
  readonly alpha?: number
  /** For the random sampling; the same seed makes the same decisions. */
  readonly seed?: number
  /** Remember what changed, for `drainChanges`. */
  readonly journal?: boolean
}

const NONE = -1
const NOBODY: readonly number[] = []
const GHOSTS_MIN = 4096
const GHOSTS_PER_RESIDENT = 2
const RESTORED_AT_ONCE = 5000

export class LearnedPolicy implements TierPolicy {
  readonly name = 'learned'
  readonly #alpha: number
  #capacityBytes: number
  #usedBytes = 0
  #exemptBytes = 0
  #ghosts = 0
  readonly #slots = new Slots()
  readonly #demand: Demand
  readonly #queues = new Queues(this.#slots)
  readonly #ghostQueue = this.#queues.open()
  readonly #ranking: Ranking
  readonly #hot: HotSet
  readonly #changes: Changes | undefined

  constructor(options: LearnedPolicyOptions) {
    const { capacityBytes, hotBytesMax = 0, alpha = 1, seed = 1, journal = false } = options
    this.#capacityBytes = capacityBytes
    this.#alpha = alpha
    this.#demand = new Demand(this.#slots, seed)
    this.#ranking = new Ranking(this.#slots, this.#demand, this.#queues, alpha, seed)
    const density = (slot: number) => this.#demand.logRate(slot) - Math.log2(this.#slots.size[slot]!)
    this.#hot = new HotSet(this.#slots, hotBytesMax, density, seed)
    this.#changes = journal ? new Changes(this.#slots) : undefined
  }

  get usedBytes(): number {
    return this.#usedBytes
  }

  request(key: number, sizeBytes: number, nowSeconds: number, reachable = true): Decision {
    const slot = this.#known(key, sizeBytes)
    const resident = this.#unqueue(slot)
    this.#resized(slot, sizeBytes)
    if (this.#demand.request(slot, nowSeconds)) this.#ranking.revalue()
    this.#slots.promise[slot] = NO_PROMISE
    this.#changes?.note(slot)

    if (resident) return this.#stay(slot)
    return reachable ? this.#offer(slot) : this.#turnAway(slot)
  }

  admitAsked(key: number, sizeBytes: number): Decision {
    const slot = this.#known(key, sizeBytes)
    const resident = this.#unqueue(slot)
    this.#resized(slot, sizeBytes)
    this.#changes?.note(slot)
    return resident ? this.#stay(slot) : this.#offer(slot)
  }

  admit(key: number, sizeBytes: number, requestsPerDay: number): Decision {
    const slot = this.#known(key, sizeBytes)
    const resident = this.#unqueue(slot)
    this.#resized(slot, sizeBytes)
    this.#slots.promise[slot] = this.#demand.promised(requestsPerDay)
    this.#changes?.note(slot)
    if (resident) return this.#stay(slot)

    const worth = this.#worth(slot, this.#demand.logRate(slot))
    const victims = this.#victimsFor(sizeBytes, worth)
    if (victims !== undefined) return this.#settle(slot, victims)
    this.#slots.promise[slot] = NO_PROMISE
    return this.#turnAway(slot)
  }

  exempt(key: number, sizeBytes: number, why: Exemption): Decision {
    const slot = this.#known(key, sizeBytes)
    const resident = this.#unqueue(slot)
    const exemptAlready = (this.#slots.state[slot]! & EXEMPT_MASK) !== 0
    this.#resized(slot, sizeBytes)
    const fits = exemptAlready || sizeBytes <= this.#capacityBytes - this.#exemptBytes
    const victims = resident || !fits ? NOBODY : this.#victimsFor(sizeBytes, Infinity)
    if (!fits || victims === undefined) {
      if (resident) this.#ranking.enqueue(slot)
      else this.#haunt(slot)
      return REJECTED
    }
    if (!exemptAlready) this.#exemptBytes += sizeBytes
    this.#slots.state[slot]! |= EXEMPT[why] << EXEMPT_SHIFT
    this.#changes?.note(slot)
    return resident ? this.#stay(slot) : this.#settle(slot, victims)
  }

  release(key: number, why: Exemption): void {
    const slot = this.#slots.find(key)
    if (slot === NONE || !(this.#slots.state[slot]! & EXEMPT_MASK)) return
    this.#slots.state[slot]! &= ~(EXEMPT[why] << EXEMPT_SHIFT)
    this.#changes?.note(slot)
    if (this.#slots.state[slot]! & EXEMPT_MASK) return
    this.#exemptBytes -= this.#slots.size[slot]!
    // filled, and nobody said what for: as good as the average until somebody asks or a plan says
    const { count, promise } = this.#slots
    if (count[slot] === 0 && promise[slot] === NO_PROMISE) {
      promise[slot] = promiseOf(-Math.log2(this.#demand.residents))
    }
    this.#ranking.enqueue(slot)
  }

  adopt(key: number, sizeBytes: number, place: Place): void {
    const slot = this.#known(key, sizeBytes)
    const resident = this.#unqueue(slot)
    this.#resized(slot, sizeBytes)
    this.#changes?.note(slot)
    if (!resident) this.#reside(slot)
    const hot = (this.#slots.state[slot]! & HOT) !== 0
    if (hot && place === 'warm') this.#hot.delete(slot)
    if (!hot && place === 'hot') this.#hot.add(slot)
    this.#queue(slot)
  }

  remove(key: number): void {
    const slot = this.#slots.find(key)
    if (slot === NONE || !(this.#slots.state[slot]! & RESIDENT)) return
    this.#unqueue(slot)
    if (this.#slots.state[slot]! & EXEMPT_MASK) this.#exemptBytes -= this.#slots.size[slot]!
    this.#slots.state[slot]! &= ~EXEMPT_MASK
    this.#vacate(slot)
  }

  placeOf(key: number): Place | null {
    const slot = this.#slots.find(key)
    if (slot === NONE || !(this.#slots.state[slot]! & RESIDENT)) return null
    return this.#slots.state[slot]! & HOT ? 'hot' : 'warm'
  }

  resize(capacityBytes: number, hotBytesMax: number): Pick<Decision, 'evict' | 'demote'> {
    this.#capacityBytes = capacityBytes
    this.#hot.bytesMax = hotBytesMax
    const evict = this.#makeRoom()
    const demoted: number[] = []
    this.#hot.shrink(demoted)
    return { evict, demote: this.#demotedKeys(demoted) }
  }

  usage(): PolicyUsage {
    return {
      residents: this.#demand.residents,
      known: this.#slots.live,
      usedBytes: this.#usedBytes,
      hotBytes: this.#hot.usedBytes,
      exemptBytes: this.#exemptBytes,
      memoryBytes: this.#slots.memoryBytes + this.#hot.memoryBytes + (this.#changes?.memoryBytes ?? 0),
    }
  }

  drainChanges(recordsMax: number): Uint8Array | undefined {
    const changed = this.#changes?.take(recordsMax) ?? NOBODY
    return changed.length === 0 ? undefined : encodePiece(this.#slots, this.#demand, changed)
  }

  *checkpoint(recordsMax: number): Generator<Uint8Array> {
    for (let first = 0; first < this.#slots.used; first += recordsMax) {
      const last = Math.min(first + recordsMax, this.#slots.used)
      const range = Array.from({ length: last - first }, (_, n) => first + n)
      yield encodePiece(this.#slots, this.#demand, range)
    }
  }

  *restore(pieces: Iterable<Uint8Array>): Generator<void, number> {
    const slots = this.#slots
    assert.equal(slots.live, 0)
    let refused = 0
    for (const piece of pieces) {
      if (!applyPiece(piece, slots, this.#demand)) refused++
      yield
    }
    // Oldest first, so that every queue is in order again.
    let done = 0
    for (const slot of yield* ascending(slots.last, slots.used)) {
      this.#restoreSlot(slot)
      if (++done % RESTORED_AT_ONCE === 0) yield
    }
    return refused
  }

  #restoreSlot(slot: number): void {
    const slots = this.#slots
    const state = slots.state[slot]!
    if (!(state & RESIDENT)) return this.#haunt(slot)
    slots.state[slot]! &= ~HOT
    if (state & EXEMPT_MASK) this.#exemptBytes += slots.size[slot]!
    this.#reside(slot)
    if (state & HOT) this.#hot.add(slot)
    this.#queue(slot)
  }

  // ── decisions ─────────────────────────────────────────────────────────────────────────────────

  /** What keeping it is worth: requests times size^(1 - alpha). */
  #worth(slot: number, logRate: number): number {
    return 2 ** (logRate + (1 - this.#alpha) * Math.log2(this.#slots.size[slot]!))
  }

  #victimsFor(sizeBytes: number, worth: number): readonly number[] | undefined {
    if (sizeBytes > this.#capacityBytes - this.#exemptBytes) return undefined
    const missing = sizeBytes - (this.#capacityBytes - this.#usedBytes)
    return missing <= 0 ? NOBODY : this.#ranking.victims(missing, worth, worth / sizeBytes)
  }

  /** A resident, taken out of its queue: back into it, and perhaps up to the hot tier. */
  #stay(slot: number): Decision {
    const evict = this.#usedBytes > this.#capacityBytes ? this.#makeRoom() : NOBODY
    this.#queue(slot)
    if (this.#slots.state[slot]! & HOT) {
      return evict === NOBODY ? HIT_HOT : { ...HIT_HOT, evict }
    }
    const demoted: number[] = []
    const promote = this.#offerToHot(slot, demoted)
    if (!promote) return evict === NOBODY ? HIT_WARM : { ...HIT_WARM, evict }
    return { outcome: 'hit', place: 'hot', evict, demote: this.#demotedKeys(demoted), promote }
  }

  /** A newcomer, in place of `victims`. */
  #settle(slot: number, victims: readonly number[]): Decision {
    const evict = victims.length === 0 ? NOBODY : victims.map(victim => this.#evict(victim))
    this.#reside(slot)
    this.#queue(slot)
    const demoted: number[] = []
    const place = this.#offerToHot(slot, demoted) ? 'hot' : 'warm'
    return { outcome: 'admit', place, evict, demote: this.#demotedKeys(demoted), promote: false }
  }

  /** Just requested, and not here yet. */
  #offer(slot: number): Decision {
    const sizeBytes = this.#slots.size[slot]!
    const logRate = this.#demand.logRateSoon(slot, sizeBytes / this.#capacityBytes)
    const victims = this.#victimsFor(sizeBytes, this.#worth(slot, logRate))
    return victims === undefined ? this.#turnAway(slot) : this.#settle(slot, victims)
  }

  #turnAway(slot: number): Decision {
    this.#haunt(slot)
    return REJECTED
  }

  #offerToHot(slot: number, demoted: number[]): boolean {
    if (this.#hot.bytesMax === 0) return false
    const density = this.#demand.logRateSoon(slot, 0) - Math.log2(this.#slots.size[slot]!)
    return this.#hot.offer(slot, density, demoted)
  }

  /** Evicts whatever is worth least until the capacity is kept, or only what is exempt is left. */
  #makeRoom(): readonly number[] {
    const evict: number[] = []
    while (this.#usedBytes > this.#capacityBytes) {
      const victims = this.#ranking.victims(1, Infinity, Infinity)
      if (victims === undefined) break
      for (const victim of victims) evict.push(this.#evict(victim))
    }
    return evict
  }

  // ── bookkeeping: residents are queued in the ranking unless exempt, ghosts in their own queue ──

  #known(key: number, sizeBytes: number): number {
    const slot = this.#slots.find(key)
    if (slot !== NONE) return slot
    const added = this.#slots.add(key, sizeBytes)
    this.#slots.last[added] = this.#demand.now
    this.#queues.pushHead(this.#ghostQueue, added)
    this.#ghosts++
    return added
  }

  /** @returns whether it is resident. */
  #unqueue(slot: number): boolean {
    const state = this.#slots.state[slot]!
    if (!(state & RESIDENT)) {
      this.#queues.remove(slot)
      this.#ghosts--
      return false
    }
    if (!(state & EXEMPT_MASK)) this.#ranking.dequeue(slot)
    return true
  }

  #queue(slot: number): void {
    if (!(this.#slots.state[slot]! & EXEMPT_MASK)) this.#ranking.enqueue(slot)
  }

  #reside(slot: number): void {
    this.#slots.state[slot]! |= RESIDENT
    this.#usedBytes += this.#slots.size[slot]!
    this.#demand.residents++
  }

  #evict(slot: number): number {
    this.#ranking.dequeue(slot)
    const key = this.#slots.key[slot]!
    this.#vacate(slot)
    return key
  }

  #vacate(slot: number): void {
    if (this.#slots.state[slot]! & HOT) this.#hot.delete(slot)
    this.#slots.state[slot]! &= ~RESIDENT
    this.#slots.promise[slot] = NO_PROMISE
    this.#usedBytes -= this.#slots.size[slot]!
    this.#demand.residents--
    this.#changes?.note(slot)
    this.#haunt(slot)
  }

  /** Remembers a key that is not here; forgets the oldest of those beyond the bound. */
  #haunt(slot: number): void {
    this.#queues.pushHead(this.#ghostQueue, slot)
    this.#ghosts++
    const ghostsMax = Math.max(GHOSTS_MIN, GHOSTS_PER_RESIDENT * this.#demand.residents)
    while (this.#ghosts > ghostsMax) {
      const oldest = this.#queues.tail(this.#ghostQueue)
      this.#queues.remove(oldest)
      this.#ghosts--
      this.#slots.forget(oldest)
    }
  }

  #resized(slot: number, sizeBytes: number): void {
    const growth = sizeBytes - this.#slots.size[slot]!
    if (growth === 0) return
    this.#slots.size[slot] = sizeBytes
    const state = this.#slots.state[slot]!
    if (state & RESIDENT) this.#usedBytes += growth
    if (state & HOT) this.#hot.usedBytes += growth
    if (state & EXEMPT_MASK) this.#exemptBytes += growth
  }

  #demotedKeys(slots: readonly number[]): readonly number[] {
    if (slots.length === 0) return NOBODY
    for (const slot of slots) this.#changes?.note(slot)
    return slots.map(slot => this.#slots.key[slot]!)
  }
}

const REJECTED: Decision = { outcome: 'reject', place: null, evict: [], demote: [], promote: false }
const HIT_HOT: Decision = { outcome: 'hit', place: 'hot', evict: [], demote: [], promote: false }
const HIT_WARM: Decision = { ...HIT_HOT, place: 'warm' }
