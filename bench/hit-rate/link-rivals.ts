/**
 * What ours is compared with on a link that is up now and then (`intermittent.ts`): LRU that fills as
 * it is asked (NGINX-like), a planner that knows the next 14 days, and a tower without limits, which
 * says what is left to be had at all.
 */
import type { Actor, Fetched, World } from './intermittent.ts'
import { DAY, type ContactWindow } from './link-model.ts'

export class Lru implements Actor {
  readonly #world: World
  readonly #fetched: Fetched
  readonly #kept = new Map<number, number>()
  #usedBytes = 0

  constructor(world: World, fetched: Fetched) {
    this.#world = world
    this.#fetched = fetched
  }

  has(item: number): boolean {
    return this.#kept.has(item)
  }

  windowOpens(): void {
    // fills only as it is asked
  }

  advance(): void {
    // nothing is ever on its way
  }

  request(item: number, _seconds: number, window: ContactWindow | undefined): void {
    const { catalog, capacityBytes } = this.#world
    const bytes = catalog.sizeBytes[item]!
    if (this.#kept.delete(item)) this.#kept.set(item, bytes)
    else if (window && bytes <= capacityBytes) {
      this.#kept.set(item, bytes)
      this.#usedBytes += bytes
      this.#fetched.add(item, true)
      for (const [oldest, freed] of this.#kept) {
        if (this.#usedBytes <= capacityBytes) break
        this.#kept.delete(oldest)
        this.#usedBytes -= freed
      }
    }
  }
}

/** Greedy by requests in the next 14 days per byte, which it knows. */
export class Clairvoyant implements Actor {
  readonly #world: World
  readonly #fetched: Fetched
  /** Per item: when it will be asked for, and how many of these are past. */
  readonly #future: number[][]
  readonly #past: Int32Array
  readonly #arrives: Float64Array
  #usedBytes = 0
  #seconds = -Infinity

  constructor(world: World, fetched: Fetched) {
    this.#world = world
    this.#fetched = fetched
    this.#future = Array.from({ length: world.catalog.wanted }, () => [])
    for (const [n, item] of world.trace.key.entries()) this.#future[item]!.push(world.trace.seconds[n]!)
    this.#past = new Int32Array(world.catalog.wanted)
    this.#arrives = new Float64Array(world.catalog.wanted).fill(Infinity)
  }

  has(item: number): boolean {
    return this.#arrives[item]! <= this.#seconds
  }

  advance(seconds: number): void {
    this.#seconds = seconds
  }

  windowOpens({ fromSeconds, toSeconds, bytesPerSecond }: ContactWindow): void {
    const { catalog, capacityBytes } = this.#world
    const value = this.#future.map((_, item) => this.#valueAt(item, fromSeconds))
    const order = value.keys().filter(item => value[item]! > 0)
    const sorted = [...order].sort((a, b) => value[b]! - value[a]!)
    const keep = new Set<number>()
    let room = capacityBytes
    for (const item of sorted) {
      if (catalog.sizeBytes[item]! > room) continue
      room -= catalog.sizeBytes[item]!
      keep.add(item)
    }
    const here = this.#arrives.keys().filter(item => this.#arrives[item]! < Infinity)
    const leaving = [...here].filter(item => !keep.has(item)).sort((a, b) => value[b]! - value[a]!)
    let seconds = fromSeconds
    for (const item of keep) {
      if (this.#arrives[item]! < Infinity) continue
      const bytes = catalog.sizeBytes[item]!
      if (seconds + bytes / bytesPerSecond > toSeconds) continue
      while (this.#usedBytes + bytes > capacityBytes && leaving.length > 0) this.#drop(leaving.pop()!)
      if (this.#usedBytes + bytes > capacityBytes) continue
      seconds += bytes / bytesPerSecond
      this.#usedBytes += bytes
      this.#arrives[item] = seconds
      this.#fetched.add(item, false)
    }
  }

  request(item: number, seconds: number, window: ContactWindow | undefined): void {
    const bytes = this.#world.catalog.sizeBytes[item]!
    if (this.#arrives[item]! < Infinity) {
      if (window) this.#arrives[item] = Math.min(this.#arrives[item]!, seconds)
      return
    }
    if (!window || this.#usedBytes + bytes > this.#world.capacityBytes) return
    this.#usedBytes += bytes
    this.#arrives[item] = seconds
    this.#fetched.add(item, true)
  }

  #drop(item: number): void {
    this.#arrives[item] = Infinity
    this.#usedBytes -= this.#world.catalog.sizeBytes[item]!
  }

  #valueAt(item: number, seconds: number): number {
    const { publishedSeconds, sizeBytes } = this.#world.catalog
    if (publishedSeconds[item]! > seconds) return 0
    const future = this.#future[item]!
    while (future[this.#past[item]!]! < seconds) this.#past[item]!++
    let requests = 0
    for (let n = this.#past[item]!; n < future.length && future[n]! < seconds + 14 * DAY; n++) requests++
    return requests / sizeBytes[item]!
  }
}

/**
 * Holds everything, over a link that each item has for itself: it misses only what was published since
 * the last window began, or is larger than what the windows so far could bring.
 */
export class Everything implements Actor {
  readonly #catalog: World['catalog']
  readonly #arrives: Float64Array
  #seconds = -Infinity

  constructor({ catalog }: World) {
    this.#catalog = catalog
    this.#arrives = new Float64Array(catalog.wanted).fill(Infinity)
  }

  has(item: number): boolean {
    return this.#arrives[item]! <= this.#seconds
  }

  advance(seconds: number): void {
    this.#seconds = seconds
  }

  windowOpens({ fromSeconds, toSeconds, bytesPerSecond }: ContactWindow): void {
    const { publishedSeconds, sizeBytes } = this.#catalog
    for (let item = 0; item < this.#arrives.length; item++) {
      if (this.#arrives[item]! < Infinity || publishedSeconds[item]! > fromSeconds) continue
      const arrival = fromSeconds + sizeBytes[item]! / bytesPerSecond
      if (arrival <= toSeconds) this.#arrives[item] = arrival
    }
  }

  request(item: number, seconds: number, window: ContactWindow | undefined): void {
    if (window) this.#arrives[item] = Math.min(this.#arrives[item]!, seconds)
  }
}
