/**
 * W-TinyLFU, size-aware (Einziger et al., TOS 2017; Efficient Admission, MASCOTS 2021, "AV"): a
 * window of 1 % in front of a segmented LRU; what leaves the window enters only when its frequency
 * is at least that of all it would displace together. Frequencies are exact here, and halved as a
 * sketch's would be.
 */
import type { Decision, KeepPolicy } from '../../../node/store/policy/policy.ts'
import { admitted, HIT, REJECT } from './outcome.ts'

const WINDOW_SHARE = 0.01
const PROTECTED_SHARE = 0.8

export class WTinyLfu implements KeepPolicy {
  readonly name = 'w-tinylfu'
  readonly #capacityBytes: number
  readonly #windowMax: number
  readonly #window = new Segment()
  readonly #probation = new Segment()
  readonly #protected = new Segment()
  #frequency = new Map<number, number>()
  #sinceHalved = 0

  constructor(capacityBytes: number) {
    this.#capacityBytes = capacityBytes
    this.#windowMax = Math.max(1, capacityBytes * WINDOW_SHARE)
  }

  get usedBytes(): number {
    return this.#window.bytes + this.#probation.bytes + this.#protected.bytes
  }

  request(key: number, sizeBytes: number, _nowSeconds: number, reachable = true): Decision {
    this.#count(key)
    if (this.#window.touch(key)) return HIT
    if (this.#protected.touch(key)) return HIT
    if (this.#probation.has(key)) {
      this.#protected.add(key, this.#probation.remove(key))
      while (this.#protected.bytes > this.#mainMax * PROTECTED_SHARE) {
        const oldest = this.#protected.oldest!
        this.#probation.add(oldest, this.#protected.remove(oldest))
      }
      return HIT
    }
    if (!reachable || sizeBytes > this.#capacityBytes) return REJECT

    const evict: number[] = []
    if (sizeBytes > this.#windowMax) this.#offer(key, sizeBytes, evict)
    else {
      this.#window.add(key, sizeBytes)
      while (this.#window.bytes > this.#windowMax) {
        const oldest = this.#window.oldest!
        this.#offer(oldest, this.#window.remove(oldest), evict)
      }
    }
    return evict.at(-1) === key ? REJECT : admitted(evict)
  }

  get #mainMax(): number {
    return this.#capacityBytes - this.#windowMax
  }

  /** Into the main segments, or out: then it is the last of `evict`. */
  #offer(key: number, sizeBytes: number, evict: number[]): void {
    const mine = this.#frequency.get(key) ?? 0
    let missing = this.#probation.bytes + this.#protected.bytes + sizeBytes - this.#mainMax
    let theirs = 0
    const victims: number[] = []
    for (const segment of [this.#probation, this.#protected]) {
      for (const [victim, bytes] of segment.oldestFirst()) {
        if (missing <= 0) break
        theirs += this.#frequency.get(victim) ?? 0
        missing -= bytes
        victims.push(victim)
        if (theirs > mine) {
          evict.push(key)
          return
        }
      }
    }
    if (missing > 0) {
      evict.push(key)
      return
    }
    for (const victim of victims) {
      const segment = this.#probation.has(victim) ? this.#probation : this.#protected
      segment.remove(victim)
      evict.push(victim)
    }
    this.#probation.add(key, sizeBytes)
  }

  #count(key: number): void {
    this.#frequency.set(key, Math.min(15, (this.#frequency.get(key) ?? 0) + 1))
    const entries = this.#window.size + this.#probation.size + this.#protected.size
    if (++this.#sinceHalved < 10 * Math.max(64, entries)) return
    this.#sinceHalved = 0
    const halved = [...this.#frequency].map(([k, n]) => [k, n >> 1] as const)
    this.#frequency = new Map(halved.filter(([, n]) => n > 0))
  }
}

class Segment {
  bytes = 0
  readonly #entries = new Map<number, number>()

  get size(): number {
    return this.#entries.size
  }

  get oldest(): number | undefined {
    return this.#entries.keys().next().value
  }

  has(key: number): boolean {
    return this.#entries.has(key)
  }

  oldestFirst(): Iterable<[number, number]> {
    return this.#entries
  }

  touch(key: number): boolean {
    const bytes = this.#entries.get(key)
    if (bytes === undefined) return false
    this.#entries.delete(key)
    this.#entries.set(key, bytes)
    return true
  }

  add(key: number, sizeBytes: number): void {
    this.#entries.set(key, sizeBytes)
    this.bytes += sizeBytes
  }

  remove(key: number): number {
    const bytes = this.#entries.get(key)!
    this.#entries.delete(key)
    this.bytes -= bytes
    return bytes
  }
}
