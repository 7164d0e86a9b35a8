/**
 * Residents in order of value, without sorting them: LRU queues by class of request count and size.
 * Within a class the oldest is mostly worth least, so the least valuable resident of all is at some
 * tail. A tail's value is computed again when the tail changes or has grown a fifth older.
 *
 * Mostly: what is asked for daily is worth more after half a day than after an hour, and what came in
 * bursts differs from what came regularly. So samples look inside the queues, too, the more the fewer
 * queues there are.
 */
import assert from 'node:assert/strict'
import type { Demand } from './demand.ts'
import { Poorest } from './poorest.ts'
import { Queues } from './queues.ts'
import { xorshift } from './random.ts'
import type { Slots } from './slots.ts'

const NONE = -1
/** The queue of those that are in none of ours. */
const ELSEWHERE = 0
const COUNT_CLASSES = 64
const SIZE_CLASSES = 96
/** Counts below 1 (decayed) have classes of their own. */
const COUNT_OFFSET = 8
/** Half octaves of what a planner promised, apart from the rest until somebody asks. */
const PROMISE_CLASSES = 128
/** Samples each time that somebody has to leave: so many, divided by the queues, and not fewer than this. */
const SAMPLES_BY_QUEUES = 320
const SAMPLES_MIN = 4
/** Most slots may be of those that are remembered, and not here. */
const LOOKS_PER_SAMPLE = 4
const POOL = 16
const CLASSES = (COUNT_CLASSES + PROMISE_CLASSES) * SIZE_CLASSES

export class Ranking {
  readonly queues: Queues
  readonly #slots: Slots
  readonly #demand: Demand
  readonly #alpha: number
  readonly #queueOfClass = new Int16Array(CLASSES).fill(NONE)
  // Per queue: the next to go, log2 of its value per byte^alpha, and until when that holds.
  #candidate = new Int32Array(64).fill(NONE)
  #value = new Float64Array(64)
  #validUntil = new Float64Array(64)
  readonly #victims: number[] = []
  /** Those of the victims that samples found. */
  readonly #inner: number[] = []
  readonly #poorest = new Poorest(POOL)
  readonly #random: () => number
  /** A resident that is worth less per byte than newcomers, but more than any single one; theirs so far. */
  #claimed = NONE
  #claims = 0

  /** @param queues holds one queue already, which is somebody else's. */
  constructor(slots: Slots, demand: Demand, queues: Queues, alpha: number, seed: number) {
    assert.equal(queues.count, ELSEWHERE + 1)
    this.#slots = slots
    this.#demand = demand
    this.#alpha = alpha
    this.queues = queues
    this.#random = xorshift(seed)
  }

  enqueue(slot: number): void {
    const queue = this.#queueFor(slot)
    const tail = this.queues.tail(queue)
    const oldest = tail === NONE || this.#slots.last[slot]! < this.#slots.last[tail]!
    if (oldest && tail !== NONE) this.queues.pushTail(queue, slot)
    else this.queues.pushHead(queue, slot)
    if (oldest) this.#setCandidate(queue, slot)
  }

  dequeue(slot: number): void {
    const queue = this.#slots.queue[slot]!
    const wasTail = this.queues.tail(queue) === slot
    this.queues.remove(slot)
    this.#slots.queue[slot] = ELSEWHERE
    if (wasTail) this.#setCandidate(queue, this.queues.tail(queue))
  }

  /** All rates have changed. */
  revalue(): void {
    this.#validUntil.fill(0)
  }

  /**
   * The least valuable residents that together free at least `missingBytes`.
   *
   * A huge resident that no small newcomer outweighs would keep all of them out for ever, though it
   * is worth less per byte: so their worth adds up, until together they outweigh it.
   * @param worth the most that they may be worth together: rate times size^(1 - alpha).
   * @returns valid until the next call; undefined when they are worth more, or are not enough.
   */
  victims(missingBytes: number, worth: number, worthPerByte: number): readonly number[] | undefined {
    const victims = this.#victims
    victims.length = 0
    this.#inner.length = 0
    this.#sample()
    let missing = missingBytes
    let sum = 0
    let lowest = ELSEWHERE
    let second = Infinity
    while (missing > 0) {
      if (this.#valueOf(lowest) >= second) ({ lowest, second } = this.#lowestTwo())
      const tailValue = this.#valueOf(lowest)
      const inner = this.#poorest.lowest(this.#innerValue)
      const isInner = this.#poorest.lowestValue < tailValue
      const victim = isInner ? inner : this.#candidate[lowest]!
      if (victim === NONE) return this.#undo(ELSEWHERE)
      const density = 2 ** (isInner ? this.#poorest.lowestValue : tailValue)
      const sizeBytes = this.#slots.size[victim]!
      sum += density * sizeBytes
      if (sum > worth + (victim === this.#claimed ? this.#claims : 0)) {
        if (victims.length === 0 && density < worthPerByte) this.#claim(victim, worth)
        return this.#undo(isInner ? ELSEWHERE : lowest)
      }
      victims.push(victim)
      missing -= sizeBytes
      this.#poorest.forget(victim)
      if (isInner) this.#inner.push(victim)
      else this.#setCandidate(lowest, this.#newer(victim))
    }
    return victims
  }

  /** Looks at some inside the queues; whoever is at the end of one needs no sample. */
  #sample(): void {
    const { used } = this.#slots
    const samples = Math.max(SAMPLES_MIN, Math.floor(SAMPLES_BY_QUEUES / this.queues.count))
    for (let n = 0, looks = 0; n < samples && looks < LOOKS_PER_SAMPLE * samples; looks++) {
      const slot = Math.floor(this.#random() * used)
      const value = this.#innerValue(slot)
      if (Number.isNaN(value)) continue
      this.#poorest.remember(slot, value)
      n++
    }
  }

  readonly #innerValue = (slot: number): number => {
    const queue = this.#slots.queue[slot]!
    return queue === ELSEWHERE || this.#candidate[queue] === slot ? NaN : this.#valueOfSlot(slot)
  }

  #valueOfSlot(slot: number): number {
    return this.#demand.logRate(slot) - this.#alpha * Math.log2(this.#slots.size[slot]!)
  }

  /** The next newer one in its queue that does not leave already. */
  #newer(slot: number): number {
    let newer = this.queues.newer(slot)
    while (newer !== NONE && this.#inner.includes(newer)) newer = this.queues.newer(newer)
    return newer
  }

  /** Those that were turned away for `victim` count from now on, together. */
  #claim(victim: number, worth: number): void {
    if (victim !== this.#claimed) this.#claims = 0
    this.#claimed = victim
    this.#claims += worth
  }

  readonly #pair = { lowest: ELSEWHERE, second: Infinity }
  #lowestTwo(): { readonly lowest: number; readonly second: number } {
    let lowest = ELSEWHERE
    let value = Infinity
    let second = Infinity
    // most of a request's cost: so the values that hold are read here
    const { count } = this.queues
    const { now } = this.#demand
    const values = this.#value
    const validUntil = this.#validUntil
    for (let queue = ELSEWHERE + 1; queue < count; queue++) {
      const its = now < validUntil[queue]! ? values[queue]! : this.#valueOf(queue)
      if (its < value) {
        second = value
        value = its
        lowest = queue
      } else if (its < second) second = its
    }
    this.#pair.lowest = lowest
    this.#pair.second = second
    return this.#pair
  }

  /** Nothing leaves after all: the tails are the candidates again, valued afresh. */
  #undo(rejectedBy: number): undefined {
    for (const victim of this.#victims) this.#reset(this.#slots.queue[victim]!)
    if (rejectedBy !== ELSEWHERE) this.#reset(rejectedBy)
    this.#victims.length = 0
  }

  #reset(queue: number): void {
    this.#setCandidate(queue, this.queues.tail(queue))
  }

  #setCandidate(queue: number, slot: number): void {
    this.#candidate[queue] = slot
    this.#validUntil[queue] = 0
  }

  #valueOf(queue: number): number {
    const { now } = this.#demand
    if (now < this.#validUntil[queue]!) return this.#value[queue]!
    const slot = this.#candidate[queue]!
    if (slot === NONE) {
      this.#validUntil[queue] = Infinity
      this.#value[queue] = Infinity
      return Infinity
    }
    this.#validUntil[queue] = now + 0.2 * (now - this.#slots.last[slot]!)
    const value = this.#valueOfSlot(slot)
    this.#value[queue] = value
    return value
  }

  #queueFor(slot: number): number {
    const promise = this.#slots.promise[slot]!
    const count = Math.floor(2 * Math.log2(this.#slots.count[slot]!)) + COUNT_OFFSET
    const size = this.#alpha === 0 ? 0 : Math.floor(2 * Math.log2(this.#slots.size[slot]!))
    const row = promise > 0 ? COUNT_CLASSES + (promise >> 1) : Math.min(Math.max(count, 0), COUNT_CLASSES - 1)
    const group = row * SIZE_CLASSES + Math.max(size, 0)
    const queue = this.#queueOfClass[group]!
    return queue === NONE ? this.#openQueue(group) : queue
  }

  #openQueue(group: number): number {
    const queue = this.queues.open()
    this.#queueOfClass[group] = queue
    if (queue >= this.#candidate.length) {
      const length = this.#candidate.length * 2
      this.#candidate = longer(new Int32Array(length).fill(NONE), this.#candidate)
      this.#value = longer(new Float64Array(length), this.#value)
      this.#validUntil = longer(new Float64Array(length), this.#validUntil)
    }
    return queue
  }
}

function longer<T extends { set(from: T): void }>(to: T, from: T): T {
  to.set(from)
  return to
}
