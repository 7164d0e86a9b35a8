/**
 * Makes a part of drafts: tries the ways of saying them, keeps the shortest.
 *
 * How much is tried depends on how much there is: small updates, where every byte counts, are
 * compressed several times at the best level; large ones are estimated at a fast level first.
 */
import {
  BLOCK_BYTES,
  bytesIn,
  type DictionaryRule,
  dictionaryOf,
  type LiteralRun,
  literalRunsOf,
  runsWithin,
} from './dictionary.ts'
import type { Draft, Said, Way } from './draft.ts'
import { WAYS } from './draft.ts'
import type { OldBytes } from './old-bytes.ts'
import type { OldLayout } from './old-layout.ts'
import {
  type AddressRange,
  DICTIONARY_BYTES_MAX,
  encodePart,
  FRAME_RAW_BYTES_MAX,
  type Operation,
  type PartContent,
  type PartFrame,
} from './part.ts'
import type { PartStreams } from './part-streams.ts'
import { originsOf } from './provenance.ts'
import { pack } from './section.ts'

export interface BuiltPart {
  readonly stored: Buffer
  /** Indexes of the layout's extents, ascending. */
  readonly bases: readonly number[]
  /** For each extent of the part, those of the bases that it cannot do without. */
  readonly needs: readonly (readonly number[])[]
}

/** From little to much. */
const RULES: readonly DictionaryRule[] = [
  { around: 128, ahead: 2 ** 14 },
  { around: 512, ahead: 2 ** 16 },
  { around: 2048, ahead: 2 ** 18 },
  { around: 8192, ahead: 2 ** 20 },
]
/** The one that serves for estimates, and is tried first. */
const USUAL_RULE = 2
const NO_RULE: DictionaryRule = { around: 0, ahead: 0 }
const FAST_LEVEL = 3
const ESTIMATE_LEVEL = 6
const GOOD_LEVEL = 19
const BEST_LEVEL = 22
/** What the good level makes of what the estimate's level makes. */
const ESTIMATE_FACTOR = 0.85
/** An operation, packed. */
const OPERATION_BYTES = 4.5
/** Literals that shrink to less than this at the fast level are worth an effort. */
const SHRUNK_RATIO_MAX = 0.5
/** Up to this many in a part, several dictionaries are tried. */
const THOROUGH_BYTES = 1024 * 1024
/** Per delta: literals for which the ways are compared at the good level, all ways together, and packed at the best. */
const CLOSELY_BYTES = 6 * 1024 * 1024
const BEST_BYTES = 4 * 1024 * 1024

type Effort = 'thorough' | 'best' | 'usual'

export class PartBuilder {
  readonly #layout: OldLayout
  readonly #old: OldBytes
  #scratch: Buffer | undefined
  #closelyLeft = CLOSELY_BYTES
  #bestLeft = BEST_BYTES

  constructor(layout: OldLayout, old: OldBytes) {
    this.#layout = layout
    this.#old = old
  }

  async build(drafts: readonly Draft[]): Promise<BuiltPart> {
    const candidates = waysWorthTrying(drafts).map(way =>
      this.#candidate(
        drafts.map(({ said }) => said[way]),
        drafts,
      ),
    )
    const closely = await this.#isWorthLookingClosely(candidates)
    let best: { size: number; candidate: Candidate } | undefined
    for (const candidate of candidates.length > 1 ? candidates : []) {
      const size = await this.#estimate(candidate, closely)
      if (!best || size < best.size) best = { size, candidate }
    }
    const candidate = best?.candidate ?? candidates[0]!
    const content = await this.#content(candidate, await this.#effortFor(candidate))
    const bases = candidate.bases.filter(index => !this.#layout.extents[index]!.stream)
    return {
      stored: await encodePart(content),
      bases,
      needs: await needsOf(candidate, content, this.#layout),
    }
  }

  #candidate(said: readonly Said[], drafts: readonly Draft[]): Candidate {
    const bases = basesOf(said, drafts, this.#layout)
    const layout = this.#layout
    const own = new Set(bases)
    const space = new PartSpace(layout, bases)
    const extents = said.map(({ operations }) =>
      operations.map(operation =>
        operation.copyBytes > 0 ? { ...operation, address: space.of(operation.address) } : operation,
      ),
    )
    return {
      bases,
      space,
      extents,
      runs: literalRunsOf(extents),
      literals: Buffer.concat(said.map(({ literals }) => literals)),
      differences: Buffer.concat(said.map(({ differences }) => differences)),
      likeBlocks: likeBlocksOf(said, drafts, own, space, layout),
      streams: {
        ofBases: bases.flatMap(index => {
          const { stream, sizeBytes } = layout.extents[index]!
          return stream
            ? [{ address: space.of(stream.from), storedBytes: stream.to - stream.from, rawBytes: sizeBytes }]
            : []
        }),
        ofExtents: drafts.flatMap(({ streams }, extent) => streams.map(stream => ({ extent, ...stream }))),
      },
    }
  }

  /** Not pictures and the like, of which no level takes more off; and only so much in one delta. */
  async #isWorthLookingClosely(candidates: readonly Candidate[]): Promise<boolean> {
    const bytes = candidates.reduce((sum, { literals }) => sum + literals.length, 0)
    if (candidates.length < 2 || bytes > this.#closelyLeft || !(await this.#shrinks(candidates[0]!)))
      return false
    this.#closelyLeft -= bytes
    return true
  }

  async #effortFor(candidate: Candidate): Promise<Effort> {
    const { length } = candidate.literals
    if (length > this.#bestLeft || !(await this.#shrinks(candidate))) return 'usual'
    this.#bestLeft -= length
    return length <= THOROUGH_BYTES ? 'thorough' : 'best'
  }

  async #shrinks(candidate: Candidate): Promise<boolean> {
    const { length } = candidate.literals
    return (await this.#sizeOf(candidate, FAST_LEVEL)) < length * SHRUNK_RATIO_MAX + 1024
  }

  async #estimate(candidate: Candidate, closely: boolean): Promise<number> {
    const size = await this.#sizeOf(candidate, closely ? GOOD_LEVEL : ESTIMATE_LEVEL)
    const differences = (await pack(candidate.differences, NONE, closely ? GOOD_LEVEL : ESTIMATE_LEVEL))
      .stored.length
    const operations = candidate.extents.reduce((sum, { length }) => sum + length, 0)
    return size * (closely ? 1 : ESTIMATE_FACTOR) + differences + operations * OPERATION_BYTES
  }

  /** Of the literals. */
  async #sizeOf(candidate: Candidate, level: number): Promise<number> {
    let bytes = 0
    for (let from = 0; from < candidate.literals.length; from += FRAME_RAW_BYTES_MAX) {
      const choice = await this.#likelyChoice(candidate, from)
      bytes += (await this.#attempt(candidate, from, choice, level)).section.stored.length
    }
    return bytes
  }

  async #attempt(candidate: Candidate, from: number, choice: Choice, level: number): Promise<PartFrame> {
    const bytes = candidate.literals.subarray(from, from + FRAME_RAW_BYTES_MAX)
    return { ...choice, section: await pack(bytes, await this.#dictionary(candidate, from, choice), level) }
  }

  /** By a fast look: the usual dictionary, or one with further blocks. */
  async #likelyChoice(candidate: Candidate, from: number): Promise<Choice> {
    const { choices, usual, extended } = this.#choicesFor(candidate, from)
    const plain = choices[usual]!
    if (!extended) return plain
    const [without, withBlocks] = [
      await this.#attempt(candidate, from, plain, ESTIMATE_LEVEL),
      await this.#attempt(candidate, from, extended, ESTIMATE_LEVEL),
    ]
    return withBlocks.section.stored.length < without.section.stored.length ? extended : plain
  }

  async #content(candidate: Candidate, effort: Effort): Promise<PartContent> {
    const { literals, differences, extents } = candidate
    const frames: PartFrame[] = []
    for (let from = 0; from < literals.length; from += FRAME_RAW_BYTES_MAX)
      frames.push(await this.#frame(candidate, from, effort))
    return {
      extents,
      frames,
      differences: await pack(differences, NONE, BEST_LEVEL),
      streams: candidate.streams,
    }
  }

  async #frame(candidate: Candidate, from: number, effort: Effort): Promise<PartFrame> {
    if (effort !== 'thorough') {
      const choice = await this.#likelyChoice(candidate, from)
      return this.#attempt(candidate, from, choice, effort === 'best' ? BEST_LEVEL : GOOD_LEVEL)
    }
    const { choices, usual, extended } = this.#choicesFor(candidate, from)
    let best = await this.#attempt(candidate, from, choices[usual]!, BEST_LEVEL)
    const improve = async (choice: Choice | undefined) => {
      const other = choice && (await this.#attempt(candidate, from, choice, BEST_LEVEL))
      const isBetter = other !== undefined && other.section.stored.length < best.section.stored.length
      if (isBetter) best = other
      return isBetter
    }
    // Uphill, in the direction that pays.
    if (!(await improve(choices[usual + 1]))) {
      for (let at = usual - 1; at >= 0 && (await improve(choices[at])); at--);
    }
    await improve(extended)
    return best
  }

  /** Dictionaries that fit, from little to much, at least one, at worst none; and one with further blocks. */
  #choicesFor(candidate: Candidate, from: number): { choices: Choice[]; usual: number; extended?: Choice } {
    const choices: Choice[] = RULES.map(rule => ({ rule, blocks: [] })).filter(choice =>
      this.#ranges(candidate, from, choice),
    )
    if (choices.length === 0) choices.push({ rule: NO_RULE, blocks: [] })
    const smallest = choices[0]!
    const blocks = this.#blocksFor(candidate, from, smallest)
    const usual = Math.min(USUAL_RULE, choices.length - 1)
    return { choices, usual, ...(blocks.length > 0 && { extended: { ...smallest, blocks } }) }
  }

  /** Blocks that are like the literals and not in the dictionary yet, as many as fit, the most alike first. */
  #blocksFor(candidate: Candidate, from: number, choice: Choice): number[] {
    const covered = this.#ranges(candidate, from, choice)!
    const room = Math.floor((DICTIONARY_BYTES_MAX - bytesIn(covered)) / BLOCK_BYTES)
    const isCovered = (block: number) =>
      covered.some(range => range.from <= block * BLOCK_BYTES && range.to >= (block + 1) * BLOCK_BYTES)
    const open = [...candidate.likeBlocks].filter(([block]) => !isCovered(block))
    const most = open.sort(([a, votes], [b, others]) => others - votes || a - b).slice(0, Math.max(room, 0))
    return most.map(([block]) => block).sort((a, b) => a - b)
  }

  #ranges(
    { runs, space, literals }: Candidate,
    from: number,
    { rule, blocks }: Choice,
  ): AddressRange[] | undefined {
    const to = Math.min(from + FRAME_RAW_BYTES_MAX, literals.length)
    return dictionaryOf(runsWithin(runs, from, to), rule, blocks, space.sizeBytes)
  }

  async #dictionary(candidate: Candidate, from: number, choice: Choice): Promise<Buffer> {
    const ranges = candidate.space.layoutRanges(this.#ranges(candidate, from, choice)!)
    // one at a time: megabytes for each attempt would be garbage that is collected late
    this.#scratch ??= Buffer.allocUnsafeSlow(DICTIONARY_BYTES_MAX)
    return this.#old.read(ranges, this.#scratch)
  }
}

type Choice = Omit<PartFrame, 'section'>

interface Candidate {
  readonly streams: PartStreams
  readonly bases: readonly number[]
  readonly space: PartSpace
  /** Addresses here and below are those of the part. */
  readonly extents: readonly (readonly Operation[])[]
  readonly runs: readonly LiteralRun[]
  readonly literals: Buffer
  readonly differences: Buffer
  /** Blocks of 1 KiB, and how many bytes of theirs are like literals. */
  readonly likeBlocks: ReadonlyMap<number, number>
}

const NONE = new Uint8Array(0)
/** Extents with so many bytes like literals are worth being a base for that alone; only some. */
const LIKE_BYTES_MIN = 512
const LIKE_EXTENTS_MAX = 16

function waysWorthTrying(drafts: readonly Draft[]): Way[] {
  const differ = WAYS.filter(
    (way, at) =>
      at === 0 || drafts.some(({ said }) => said[way].operations.length !== said.few.operations.length),
  )
  return differ
}

/** Old extents that are copied from, or are much like literals; for what copies nothing, those at its place. */
function basesOf(said: readonly Said[], drafts: readonly Draft[], layout: OldLayout): number[] {
  const bases = new Set<number>()
  const add = (range: AddressRange) => {
    for (const index of layout.extentsIn(range)) bases.add(index)
  }
  for (const [at, { operations }] of said.entries()) {
    for (const { copyBytes, address } of operations) add({ from: address, to: address + copyBytes })
    if (copiesNothing(operations)) add(drafts[at]!.place)
  }
  const votes = new Map<number, number>()
  for (const { from, to } of drafts.flatMap(({ like }) => like)) {
    const index = layout.extentAt(from)
    votes.set(index, (votes.get(index) ?? 0) + to - from)
  }
  const liked = [...votes].filter(([index, bytes]) => bytes >= LIKE_BYTES_MIN && !bases.has(index))
  for (const [index] of liked
    .sort(([a, bytes], [b, others]) => others - bytes || a - b)
    .slice(0, LIKE_EXTENTS_MAX))
    bases.add(index)
  for (const index of [...bases]) {
    const { stream } = layout.extents[index]!
    if (stream) add(stream)
  }
  return [...bases].sort((a, b) => a - b)
}

const copiesNothing = (operations: readonly Operation[]) =>
  operations.every(({ copyBytes }) => copyBytes === 0)

function likeBlocksOf(
  said: readonly Said[],
  drafts: readonly Draft[],
  bases: ReadonlySet<number>,
  space: PartSpace,
  layout: OldLayout,
): Map<number, number> {
  const blocks = new Map<number, number>()
  const vote = (range: AddressRange) => {
    for (const index of layout.extentsIn(range)) {
      if (!bases.has(index)) continue
      const { address, sizeBytes } = layout.extents[index]!
      const start = space.of(address) - address
      const from = Math.max(range.from, address) + start
      const to = Math.min(range.to, address + sizeBytes) + start
      for (let at = from; at < to; ) {
        const block = Math.floor(at / BLOCK_BYTES)
        const end = Math.min(to, (block + 1) * BLOCK_BYTES)
        blocks.set(block, (blocks.get(block) ?? 0) + end - at)
        at = end
      }
    }
  }
  for (const [at, { like, place }] of drafts.entries()) {
    for (const range of like) vote(range)
    if (copiesNothing(said[at]!.operations)) vote(place)
  }
  return blocks
}

/** By extent, the old extents that it copies from and those that its literals came out of. */
async function needsOf(
  { bases, space, extents, runs }: Candidate,
  { frames }: PartContent,
  layout: OldLayout,
): Promise<number[][]> {
  const origins: Int32Array[] = []
  let from = 0
  for (const { section, rule, blocks } of frames) {
    const to = from + section.rawBytes
    const dictionary =
      section.coding === 1 ? dictionaryOf(runsWithin(runs, from, to), rule, blocks, space.sizeBytes)! : []
    origins.push(
      await originsOf(
        section,
        dictionary,
        address => space.baseAt(address),
        base => space.endOf(base),
      ),
    )
    from = to
  }
  let literal = 0
  return extents.map(operations => {
    const needed = new Set<number>()
    const need = (index: number) => {
      const { stream } = layout.extents[index]!
      for (const base of stream ? layout.extentsIn(stream) : [index]) needed.add(base)
    }
    for (const { literalBytes, copyBytes, address } of operations) {
      for (const end = literal + literalBytes; literal < end; literal++) {
        const origin = origins[Math.floor(literal / FRAME_RAW_BYTES_MAX)]![literal % FRAME_RAW_BYTES_MAX]!
        if (origin >= 0) need(bases[origin]!)
      }
      for (const range of space.layoutRanges([{ from: address, to: address + copyBytes }])) {
        for (const index of layout.extentsIn(range)) need(index)
      }
    }
    return [...needed].sort((a, b) => a - b)
  })
}

/** A part's own addresses: its bases laid end to end. */
class PartSpace {
  readonly #layout: OldLayout
  readonly #bases: readonly number[]
  readonly #starts: readonly number[]
  readonly #startOf: ReadonlyMap<number, number>
  readonly sizeBytes: number

  constructor(layout: OldLayout, bases: readonly number[]) {
    this.#layout = layout
    this.#bases = bases
    let start = 0
    this.#starts = bases.map(base => {
      start += layout.extents[base]!.sizeBytes
      return start - layout.extents[base]!.sizeBytes
    })
    this.#startOf = new Map(bases.map((base, at) => [base, this.#starts[at]!]))
    this.sizeBytes = start
  }

  /** Of an address of the layout that is in one of the bases. */
  of(address: number): number {
    const base = this.#layout.extentAt(address)
    return this.#startOf.get(base)! + address - this.#layout.extents[base]!.address
  }

  /** The place among the bases of the one that has this address of the part. */
  baseAt(address: number): number {
    let first = 0
    let last = this.#starts.length - 1
    while (first < last) {
      const middle = (first + last + 1) >> 1
      if (this.#starts[middle]! <= address) first = middle
      else last = middle - 1
    }
    return first
  }

  endOf(place: number): number {
    return this.#starts[place + 1] ?? this.sizeBytes
  }

  /** The same bytes by addresses of the layout; in order, not joined. */
  layoutRanges(ranges: readonly AddressRange[]): AddressRange[] {
    const result: AddressRange[] = []
    for (const { from, to } of ranges) {
      for (let at = from; at < to; ) {
        const place = this.baseAt(at)
        const { address, sizeBytes } = this.#layout.extents[this.#bases[place]!]!
        const end = Math.min(to, this.#starts[place]! + sizeBytes)
        result.push({ from: address + at - this.#starts[place]!, to: address + end - this.#starts[place]! })
        at = end
      }
    }
    return result
  }
}
