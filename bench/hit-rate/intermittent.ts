/**
 * A trace behind a link that is up now and then. Outside a window a missing item is a miss and
 * nothing can be fetched; inside one it is a miss too, but is served and may be stored.
 *
 * Ours: the planner's forecast fills at each window's start, the tier policy decides who leaves. What
 * we compare with on the same windows is in `link-rivals.ts`. The first tenth of the time is warm-up
 * and not counted.
 */
import { LearnedPolicy } from '../../node/store/policy/learned-policy.ts'
import {
  asked,
  askedNearby,
  Forecast,
  leaned,
  planKeep,
  valueOf,
  type Asked,
  type Candidate,
} from '../../warmers/value.ts'
import type { Trace } from '../trace.ts'
import { DAY, randomOf, type Catalog, type ContactWindow } from './link-model.ts'
import { Clairvoyant, Everything, Lru } from './link-rivals.ts'
import { rounded, Tally, type Ratios } from './tally.ts'

export interface World {
  readonly trace: Trace
  readonly catalog: Catalog
  readonly windows: readonly ContactWindow[]
  readonly capacityBytes: number
}

export interface LinkResult extends Ratios {
  readonly outside: Ratios
  readonly inside: Ratios
  /** Object hit ratio per class, highest weight first. */
  readonly classes: readonly number[]
  readonly fetchedBytesPerDay: number
  readonly unusedShare: number
}

export interface OurOptions {
  readonly seed: number
  readonly weighted: boolean
  /** Whether publication dates may be used; without, only what was asked for is ever fetched. */
  readonly freshness: boolean
  readonly neighbours: readonly { readonly seconds: number; readonly item: number }[]
}

const SAMPLES_PER_PLAN = 500

/** What a cache does in this world; times only ever grow. */
export interface Actor {
  has(item: number): boolean
  windowOpens(window: ContactWindow): void
  /** Time passes up to `seconds`; what was on its way by then has arrived. */
  advance(seconds: number): void
  request(item: number, seconds: number, window: ContactWindow | undefined): void
}

export function runOurs(world: World, options: OurOptions): LinkResult {
  const fetched = new Fetched(world)
  return play(world, new Ours(world, options, fetched), fetched)
}

export function runLru(world: World): LinkResult {
  const fetched = new Fetched(world)
  return play(world, new Lru(world, fetched), fetched)
}

export function runForecast(world: World): LinkResult {
  const fetched = new Fetched(world)
  return play(world, new Clairvoyant(world, fetched), fetched)
}

/** What no cache can exceed here. */
export function runBound(world: World): LinkResult {
  return play(world, new Everything(world), new Fetched(world))
}

function play({ trace, catalog, windows }: World, actor: Actor, fetched: Fetched): LinkResult {
  const first = trace.seconds[0]!
  const span = trace.seconds.at(-1)! - first
  const [all, outside, inside] = [new Tally(), new Tally(), new Tally()]
  const classes = new Map<number, Tally>()
  let next = 0
  let open: ContactWindow | undefined
  for (const [n, item] of trace.key.entries()) {
    const seconds = trace.seconds[n]!
    for (;;) {
      if (open && open.toSeconds <= seconds) {
        actor.advance(open.toSeconds)
        open = undefined
      } else if (windows[next] && windows[next]!.fromSeconds <= seconds) {
        open = windows[next++]!
        actor.windowOpens(open)
      } else break
    }
    actor.advance(seconds)
    const hit = actor.has(item)
    if (hit) fetched.use(item)
    if (seconds >= first + span / 10) {
      const bytes = trace.size[n]!
      const weight = catalog.weight[item]!
      if (!classes.has(weight)) classes.set(weight, new Tally())
      for (const tally of [all, open ? inside : outside, classes.get(weight)!]) tally.count(hit, bytes)
    }
    actor.request(item, seconds, open)
  }
  return {
    ...all.ratios,
    outside: outside.ratios,
    inside: inside.ratios,
    classes: [...classes].sort(([a], [b]) => b - a).map(([, tally]) => tally.ratios.objectHit),
    fetchedBytesPerDay: Math.round(fetched.bytes / (span / DAY)),
    unusedShare: rounded(fetched.unusedBytes / Math.max(1, fetched.bytes)),
  }
}

/** Bytes that came over the link, and those of them that nobody asked for before the end. */
export class Fetched {
  bytes = 0
  unusedBytes = 0
  readonly #sizeBytes: Float64Array
  readonly #unused: Uint8Array

  constructor({ catalog }: World) {
    this.#sizeBytes = catalog.sizeBytes
    this.#unused = new Uint8Array(catalog.sizeBytes.length)
  }

  add(item: number, wanted: boolean): void {
    const bytes = this.#sizeBytes[item]!
    this.bytes += bytes
    if (wanted) return
    this.#unused[item] = 1
    this.unusedBytes += bytes
  }

  use(item: number): void {
    if (this.#unused[item] === 0) return
    this.#unused[item] = 0
    this.unusedBytes -= this.#sizeBytes[item]!
  }
}

class Ours implements Actor {
  readonly #world: World
  readonly #options: OurOptions
  readonly #fetched: Fetched
  readonly #policy: LearnedPolicy
  readonly #forecast = new Forecast()
  readonly #asked: (Asked | undefined)[]
  /** When each item's bytes are here; Infinity: not at all. */
  readonly #arrives: Float64Array
  readonly #residents = new Set<number>()
  readonly #random: () => number
  #nextReport = 0
  #observedSeconds = -Infinity

  constructor(world: World, options: OurOptions, fetched: Fetched) {
    this.#world = world
    this.#options = options
    this.#fetched = fetched
    const { capacityBytes } = world
    this.#policy = new LearnedPolicy({ capacityBytes, seed: options.seed })
    this.#random = randomOf(options.seed)
    this.#asked = Array.from({ length: world.catalog.sizeBytes.length })
    this.#arrives = new Float64Array(world.catalog.sizeBytes.length).fill(Infinity)
  }

  has(item: number): boolean {
    return this.#arrives[item]! <= this.#observedSeconds
  }

  advance(seconds: number): void {
    this.#observedSeconds = seconds
  }

  windowOpens({ fromSeconds, toSeconds, bytesPerSecond }: ContactWindow): void {
    this.#observe(fromSeconds)
    const { sizeBytes } = this.#world.catalog
    const perDay = new Map<number, number>()
    const candidates: Candidate[] = []
    for (const item of this.#published(fromSeconds)) {
      const expected = this.#expected(item, fromSeconds)
      perDay.set(item, expected)
      candidates.push({
        key: item,
        sizeBytes: sizeBytes[item]!,
        value: valueOf(expected, sizeBytes[item]!, 1),
      })
    }
    const keep = planKeep(candidates, this.#world.capacityBytes)
    // what is not planned for goes first; what is, stays until it was used
    for (const item of this.#residents) {
      this.#policy.admit(item, sizeBytes[item]!, keep.has(item) ? perDay.get(item)! : 0)
    }
    let seconds = fromSeconds
    for (const item of keep) {
      if (this.#residents.has(item)) continue
      const arrival = seconds + sizeBytes[item]! / bytesPerSecond
      if (arrival > toSeconds) continue
      if (!this.#follow(item, this.#policy.admit(item, sizeBytes[item]!, perDay.get(item)!))) continue
      seconds = arrival
      this.#arrives[item] = arrival
      this.#fetched.add(item, false)
    }
  }

  request(item: number, seconds: number, window: ContactWindow | undefined): void {
    const { sizeBytes } = this.#world.catalog
    this.#forecast.requested(this.#prospect(item), seconds)
    this.#asked[item] = asked(this.#asked[item], seconds)
    const decision = this.#policy.request(item, sizeBytes[item]!, seconds, window !== undefined)
    if (decision.outcome === 'hit') {
      // still on its way: fetched for this request
      this.#arrives[item] = Math.min(this.#arrives[item]!, seconds)
      return
    }
    if (!this.#follow(item, decision)) return
    this.#arrives[item] = seconds
    this.#fetched.add(item, true)
  }

  #follow(item: number, { outcome, evict }: { outcome: string; evict: readonly number[] }): boolean {
    for (const gone of evict) {
      this.#residents.delete(gone)
      this.#arrives[gone] = Infinity
    }
    if (outcome !== 'admit') return false
    this.#residents.add(item)
    return true
  }

  #expected(item: number, seconds: number): number {
    const weight = this.#options.weighted ? leaned(this.#world.catalog.weight[item]!) : 1
    return this.#forecast.requestsPerDay(this.#prospect(item), seconds) * weight
  }

  #prospect(item: number): { publishedSeconds: number; asked: Asked | undefined } {
    const publishedSeconds = this.#world.catalog.publishedSeconds[item]!
    return { publishedSeconds, asked: this.#asked[item] }
  }

  *#published(seconds: number): Generator<number> {
    const { publishedSeconds } = this.#world.catalog
    for (let item = 0; item < publishedSeconds.length; item++) {
      if (this.#isCatalogued(item, seconds)) yield item
    }
  }

  #isCatalogued(item: number, seconds: number): boolean {
    if (this.#world.catalog.publishedSeconds[item]! > seconds) return false
    return this.#options.freshness || this.#asked[item] !== undefined
  }

  /** Since the last plan: what neighbours saw, and a sample of what could have been asked for. */
  #observe(seconds: number): void {
    const { neighbours } = this.#options
    for (; (neighbours[this.#nextReport]?.seconds ?? Infinity) <= seconds; this.#nextReport++) {
      const { item, seconds: at } = neighbours[this.#nextReport]!
      this.#asked[item] = askedNearby(this.#asked[item], at, 1)
    }
    const from = this.#world.trace.seconds[0]!
    const since = Math.max(this.#planned ?? from, from)
    const days = (seconds - since) / DAY
    for (let n = 0; n < SAMPLES_PER_PLAN; n++) {
      const item = Math.floor(this.#random() * this.#asked.length)
      const at = since + this.#random() * days * DAY
      if (!this.#isCatalogued(item, at)) continue
      this.#forecast.exposed(this.#prospect(item), at, (days * this.#asked.length) / SAMPLES_PER_PLAN)
    }
    this.#planned = seconds
    this.#forecast.refit()
  }
  #planned: number | undefined
}
