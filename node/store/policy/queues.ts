/**
 * Doubly linked LRU queues through the slots' own columns: head is newest, tail is oldest. A slot
 * is in one queue at most. Queue numbers are dense and given out on first use.
 */
import type { Slots } from './slots.ts'

const NONE = -1

export class Queues {
  readonly #slots: Slots
  #head = new Int32Array(64).fill(NONE)
  #tail = new Int32Array(64).fill(NONE)
  /** How many queues exist. */
  count = 0

  constructor(slots: Slots) {
    this.#slots = slots
  }

  open(): number {
    if (this.count === this.#head.length) {
      this.#head = doubled(this.#head)
      this.#tail = doubled(this.#tail)
    }
    return this.count++
  }

  /** The oldest slot, or -1. */
  tail(queue: number): number {
    return this.#tail[queue]!
  }

  /** The next newer slot in the same queue, or -1. */
  newer(slot: number): number {
    return this.#slots.prev[slot]!
  }

  pushHead(queue: number, slot: number): void {
    const { prev, next, queue: queueOf } = this.#slots
    const head = this.#head[queue]!
    prev[slot] = NONE
    next[slot] = head
    queueOf[slot] = queue
    if (head === NONE) this.#tail[queue] = slot
    else prev[head] = slot
    this.#head[queue] = slot
  }

  pushTail(queue: number, slot: number): void {
    const { prev, next, queue: queueOf } = this.#slots
    const tail = this.#tail[queue]!
    prev[slot] = tail
    next[slot] = NONE
    queueOf[slot] = queue
    if (tail === NONE) this.#head[queue] = slot
    else next[tail] = slot
    this.#tail[queue] = slot
  }

  remove(slot: number): void {
    const { prev, next, queue: queueOf } = this.#slots
    const queue = queueOf[slot]!
    const newer = prev[slot]!
    const older = next[slot]!
    if (newer === NONE) this.#head[queue] = older
    else next[newer] = older
    if (older === NONE) this.#tail[queue] = newer
    else prev[older] = newer
  }
}

function doubled(from: Int32Array<ArrayBuffer>): Int32Array<ArrayBuffer> {
  const to = new Int32Array(from.length * 2).fill(NONE)
  to.set(from)
  return to
}
