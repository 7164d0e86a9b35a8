/**
 * S3-FIFO (Yang et al., SOSP 2023): a small queue of a tenth of the bytes, a main queue, and ghosts
 * of what left the small one unasked for. Sizes count in bytes.
 */
import type { Decision, KeepPolicy } from '../../../node/store/policy/policy.ts'
import { admitted, HIT, REJECT } from './outcome.ts'

interface Entry {
  readonly sizeBytes: number
  frequency: number
}

export class S3Fifo implements KeepPolicy {
  readonly name = 's3-fifo'
  readonly #capacityBytes: number
  readonly #smallMax: number
  readonly #small = new Map<number, Entry>()
  readonly #main = new Map<number, Entry>()
  readonly #ghosts = new Map<number, number>()
  #smallBytes = 0
  #mainBytes = 0
  #ghostBytes = 0

  constructor(capacityBytes: number) {
    this.#capacityBytes = capacityBytes
    this.#smallMax = capacityBytes / 10
  }

  get usedBytes(): number {
    return this.#smallBytes + this.#mainBytes
  }

  request(key: number, sizeBytes: number, _nowSeconds: number, reachable = true): Decision {
    const entry = this.#small.get(key) ?? this.#main.get(key)
    if (entry) {
      entry.frequency = Math.min(3, entry.frequency + 1)
      return HIT
    }
    if (!reachable || sizeBytes > this.#capacityBytes) return REJECT
    const evict: number[] = []
    while (this.usedBytes + sizeBytes > this.#capacityBytes) {
      if (this.#smallBytes >= this.#smallMax || this.#main.size === 0) this.#evictSmall(evict)
      else this.#evictMain(evict)
    }
    if (this.#forgetGhost(key)) this.#addMain(key, { sizeBytes, frequency: 0 })
    else {
      this.#small.set(key, { sizeBytes, frequency: 0 })
      this.#smallBytes += sizeBytes
    }
    return admitted(evict)
  }

  #evictSmall(evict: number[]): void {
    for (const [key, entry] of this.#small) {
      this.#small.delete(key)
      this.#smallBytes -= entry.sizeBytes
      if (entry.frequency > 1) {
        this.#addMain(key, { ...entry, frequency: 0 })
        continue
      }
      this.#addGhost(key, entry.sizeBytes)
      evict.push(key)
      return
    }
  }

  #evictMain(evict: number[]): void {
    for (const [key, entry] of this.#main) {
      this.#main.delete(key)
      if (entry.frequency > 0) {
        entry.frequency--
        this.#main.set(key, entry)
        continue
      }
      this.#mainBytes -= entry.sizeBytes
      evict.push(key)
      return
    }
  }

  #addMain(key: number, entry: Entry): void {
    this.#main.set(key, entry)
    this.#mainBytes += entry.sizeBytes
  }

  #addGhost(key: number, sizeBytes: number): void {
    this.#ghosts.set(key, sizeBytes)
    this.#ghostBytes += sizeBytes
    for (const [oldest, bytes] of this.#ghosts) {
      if (this.#ghostBytes <= this.#capacityBytes - this.#smallMax) break
      this.#ghosts.delete(oldest)
      this.#ghostBytes -= bytes
    }
  }

  #forgetGhost(key: number): boolean {
    const bytes = this.#ghosts.get(key)
    if (bytes === undefined) return false
    this.#ghosts.delete(key)
    this.#ghostBytes -= bytes
    return true
  }
}
