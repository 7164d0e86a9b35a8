/**
 * Which bundles to fetch for what is wanted: the cheapest set that a search by single exchanges
 * finds. Pure.
 *
 * A delta's part may need old bytes that are not here and that another delta, a helper, can rebuild
 * out of older ones that are: a chain. What is rebuilt on the way is used and not kept; the parts that
 * it takes are paid for once, however many bundles need them.
 *
 * From a server without ranges a bundle costs its whole file, and all others of that file nothing more.
 */
import type { Cid } from '../manifests/cid.ts'
import type { Bundle, PlanInput, Source, Want } from './plan-fill.ts'
import { bytesOf, without } from './spans.ts'
import type { Span } from './upstream.ts'

/** A bundle's bytes. Paid for once: to have what comes out of it, or because others need that as bases. */
export interface Load {
  readonly id: number
  readonly source: Source
  readonly span: Span
  /** Still to be fetched. */
  readonly bytes: number
}

export interface Choice {
  readonly source: Source
  readonly index: number
  readonly span: Span
  /** Its own, and those of the parts that make its bases. */
  readonly loads: ReadonlySet<Load>
  readonly wants: Want[]
}

type Sources = Pick<PlanInput, 'sources' | 'helpers' | 'holds' | 'staged' | 'ranges'>

/** Each want once, at one of the bundles; what no bundle has is `unobtainable`. */
export function chooseBundles(
  input: Sources,
  wants: readonly Want[],
): { readonly taken: Choice[]; readonly unobtainable: Want[] } {
  const loads = new Loads(input)
  const sources = [...input.sources, ...(input.helpers ?? [])]
  const bundles = new Map<string, Choice>()
  const unobtainable: Want[] = []
  const choicesOf = wants.map(want => {
    const choices = sources.flatMap(source => {
      const bundle = source.bundleOf(want.cid)
      const needed = bundle && loads.forBases(bundle.bases, loads.firstAfter(source))
      if (!needed) return []
      const { index, span } = bundle
      // of one part, some may need more than others
      const all = new Set([loads.of(source, span), ...needed])
      const ids = Array.from(all, ({ id }) => id).sort((a, b) => a - b)
      const key = `${source.path} ${index} ${ids.join(' ')}`
      const choice = bundles.get(key) ?? { source, index, span, loads: all, wants: [] }
      bundles.set(key, choice)
      return [choice]
    })
    if (choices.length === 0) unobtainable.push(want)
    return choices
  })
  const taken = cheapest(groupsOf([...bundles.values()], input), choicesOf)
  for (const [at, want] of wants.entries()) {
    const best = choicesOf[at]!.filter(choice => taken.has(choice)).reduce<Choice | undefined>(
      preferred,
      undefined,
    )
    best?.wants.push(want)
  }
  return { taken: joinedByBundle([...taken].filter(choice => choice.wants.length > 0)), unobtainable }
}

function joinedByBundle(choices: readonly Choice[]): Choice[] {
  const byBundle = new Map<string, Choice>()
  for (const choice of choices) {
    const key = `${choice.source.path} ${choice.index}`
    const before = byBundle.get(key)
    if (!before) byBundle.set(key, choice)
    else {
      const wants = [...before.wants, ...choice.wants].sort((a, b) => a.order - b.order)
      byBundle.set(key, { ...before, loads: before.loads.union(choice.loads), wants })
    }
  }
  return [...byBundle.values()]
}

/** Whether a bundle's bases are here or can be rebuilt. */
export function usable(input: Sources): (source: Source, bundle: Bundle) => boolean {
  const loads = new Loads(input)
  return (source, { bases }) => loads.forBases(bases, loads.firstAfter(source)) !== undefined
}

/** Finds what bases need that are not here, one delta after another, the newest first. */
class Loads {
  readonly #input: Sources
  readonly #helpers: readonly Source[]
  readonly #known = new Map<string, Load>()
  /** By the first helper that may be asked, and base. */
  readonly #ofBase: Map<Cid, ReadonlySet<Load> | undefined>[] = []

  constructor(input: Sources) {
    this.#input = input
    this.#helpers = input.helpers ?? []
  }

  /** The helper that may make bases of this source: any, or only those that are older than itself. */
  firstAfter(source: Source): number {
    return this.#helpers.indexOf(source) + 1
  }

  of(source: Source, part: Span): Load {
    const { staged, ranges = true } = this.#input
    const lackingBytes = bytesOf(without([part], staged(source.path)))
    const isWhole = !ranges && lackingBytes > 0
    const span = isWhole ? { offset: 0, length: source.fileBytes } : part
    const key = `${source.path} ${span.offset} ${span.length}`
    let load = this.#known.get(key)
    if (!load) {
      // what is kept of the file comes again with the rest
      load = { id: this.#known.size, source, span, bytes: isWhole ? source.fileBytes : lackingBytes }
      this.#known.set(key, load)
    }
    return load
  }

  /** Undefined when a base cannot be had. */
  forBases(bases: readonly Cid[], first: number): ReadonlySet<Load> | undefined {
    const all = new Set<Load>()
    for (const base of bases) {
      if (this.#input.holds(base)) continue
      const loads = this.#forBase(base, first)
      if (!loads) return undefined
      for (const load of loads) all.add(load)
    }
    return all
  }

  #forBase(base: Cid, first: number): ReadonlySet<Load> | undefined {
    const known = (this.#ofBase[first] ??= new Map())
    if (known.has(base)) return known.get(base)
    let found: ReadonlySet<Load> | undefined
    for (let at = first; at < this.#helpers.length && !found; at++) {
      const source = this.#helpers[at]!
      const bundle = source.bundleOf(base)
      const deeper = bundle && this.forBases(bundle.bases, at + 1)
      if (deeper) found = new Set([...deeper, this.of(source, bundle.span)])
    }
    known.set(base, found)
    return found
  }
}

/** Of two bundles that are both taken: a frame needs nothing else to be right. */
function preferred(best: Choice | undefined, choice: Choice): Choice {
  return best && (best.source.kind === 'frame' || choice.source.kind === 'delta') ? best : choice
}

/** What is taken or left together: single bundles, or all of a file that comes whole. */
function groupsOf(bundles: readonly Choice[], { ranges = true }: Sources): readonly (readonly Choice[])[] {
  if (ranges) return bundles.map(bundle => [bundle])
  return [...Map.groupBy(bundles, ({ source }) => source.path).values()]
}

/**
 * Bundles that together have every extent, at a low price. Begins with all parts, with those that
 * need no others, and with all frames; takes or leaves single groups as long as that saves bytes;
 * the best result counts.
 */
function cheapest(
  groups: readonly (readonly Choice[])[],
  choicesOf: readonly (readonly Choice[])[],
): ReadonlySet<Choice> {
  const bundles = groups.flat()
  const isPart = ({ source }: Choice) => source.kind === 'delta'
  const starts: ((choice: Choice) => boolean)[] = [isPart, choice => !isPart(choice)]
  if (bundles.some(({ loads }) => loads.size > 1))
    starts.push(choice => isPart(choice) && choice.loads.size === 1)
  return starts
    .map(isTaken => improved(groups, choicesOf, new Basket(bundles.filter(isTaken))))
    .reduce((best, basket) => (basket.bytes < best.bytes ? basket : best)).taken
}

/** What is taken, and what that costs; bytes that several need are counted once. */
class Basket {
  readonly taken = new Set<Choice>()
  bytes = 0
  readonly #uses = new Map<Load, number>()

  constructor(choices: readonly Choice[]) {
    for (const choice of choices) this.add(choice)
  }

  add(choice: Choice): void {
    this.bytes += this.costOf(choice)
    this.taken.add(choice)
    for (const load of choice.loads) this.#uses.set(load, (this.#uses.get(load) ?? 0) + 1)
  }

  remove(choice: Choice): void {
    this.taken.delete(choice)
    for (const load of choice.loads) this.#uses.set(load, this.#uses.get(load)! - 1)
    this.bytes -= this.costOf(choice)
  }

  /** What it would add. */
  costOf({ loads }: Choice): number {
    let cost = 0
    for (const load of loads) if (!this.#uses.get(load)) cost += load.bytes
    return cost
  }

  cheapestOf(choices: readonly Choice[]): Choice {
    return choices.reduce((best, choice) => (this.costOf(choice) < this.costOf(best) ? choice : best))
  }
}

function improved(
  groups: readonly (readonly Choice[])[],
  choicesOf: readonly (readonly Choice[])[],
  basket: Basket,
): Basket {
  const ROUNDS_MAX = 4
  const { taken } = basket
  for (const choices of choicesOf) {
    if (choices.length > 0 && !choices.some(choice => taken.has(choice)))
      basket.add(basket.cheapestOf(choices))
  }
  const extentsOf = new Map<Choice, number[]>(groups.flat().map(bundle => [bundle, []]))
  for (const [extent, choices] of choicesOf.entries())
    for (const choice of choices) extentsOf.get(choice)!.push(extent)
  for (let round = 0, isBetter = true; isBetter && round < ROUNDS_MAX; round++) {
    isBetter = false
    for (const group of groups.toSorted((a, b) => weightOf(b) - weightOf(a))) {
      const left = group.filter(bundle => taken.has(bundle))
      if (left.length === 0) continue
      const before = basket.bytes
      for (const bundle of left) basket.remove(bundle)
      const orphans = new Set(left.flatMap(bundle => extentsOf.get(bundle)!)).values()
      const instead = coverOf(
        orphans.filter(extent => !choicesOf[extent]!.some(choice => taken.has(choice))),
        choicesOf,
        new Set(group),
        basket,
      )
      for (const other of instead ?? []) basket.add(other)
      if (instead && basket.bytes < before) isBetter = true
      else {
        for (const other of instead ?? []) basket.remove(other)
        for (const bundle of left) basket.add(bundle)
      }
    }
  }
  return basket
}

/** What else has these extents; undefined when nothing has one of them. */
function coverOf(
  extents: Iterable<number>,
  choicesOf: readonly (readonly Choice[])[],
  except: ReadonlySet<Choice>,
  basket: Basket,
): Set<Choice> | undefined {
  const cover = new Set<Choice>()
  for (const extent of extents) {
    const others = choicesOf[extent]!.filter(choice => !except.has(choice))
    if (others.length === 0) return undefined
    if (!others.some(choice => cover.has(choice))) cover.add(basket.cheapestOf(others))
  }
  return cover
}

function weightOf(group: readonly Choice[]): number {
  let bytes = 0
  for (const load of new Set(group.flatMap(({ loads }) => [...loads]))) bytes += load.bytes
  return bytes
}
