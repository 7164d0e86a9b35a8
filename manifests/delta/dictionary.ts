/**
 * Which old bytes a frame of literals is compressed against. Both sides work it out by this rule
 * from the operations, so it costs nothing to say.
 *
 * Each run of literals asks for the bytes that it replaced and some on either side, the more the
 * longer it is; a long run also for what comes ahead of its place. A frame may name further blocks.
 */
import { type AddressRange, DICTIONARY_BYTES_MAX, type Operation } from './part.ts'

/** In bytes; powers of two, or 0. */
export interface DictionaryRule {
  /** At most this much on either side of what a run replaced. */
  readonly around: number
  /** This much ahead of a run of at least 16 KiB. */
  readonly ahead: number
}

/** Literals that stand between two copies. Offsets in the part's literals, addresses in its bases. */
export interface LiteralRun {
  readonly from: number
  readonly to: number
  /** Where the copy before has ended, or would have. */
  readonly before: number
  /** Where the copy after begins; −1 when there is none. */
  readonly after: number
}

export const BLOCK_BYTES = 1024
/** Shorter runs are better off without. */
const SHORT_RUN_BYTES = 12
const LONG_RUN_BYTES = 16 * 1024
const SLACK_BYTES = 64 * 1024

export function literalRunsOf(extents: readonly (readonly Operation[])[]): LiteralRun[] {
  const runs: LiteralRun[] = []
  let at = 0
  let before = 0
  for (const { literalBytes, copyBytes, address } of extents.flat()) {
    if (literalBytes > 0)
      runs.push({ from: at, to: at + literalBytes, before, after: copyBytes > 0 ? address : -1 })
    at += literalBytes
    before = copyBytes > 0 ? address + copyBytes : before + literalBytes
  }
  return runs
}

/**
 * @param runs those that have bytes in the frame.
 * @param blocks numbers of further blocks of 1 KiB, ascending.
 * @returns sorted, apart from each other; undefined when they would be too long.
 */
export function dictionaryOf(
  runs: readonly LiteralRun[],
  rule: DictionaryRule,
  blocks: readonly number[],
  addressMax: number,
): AddressRange[] | undefined {
  const wanted = blocks.map(block => ({ from: block * BLOCK_BYTES, to: (block + 1) * BLOCK_BYTES }))
  if (rule.around > 0) for (const run of runs) wanted.push(...rangesFor(run, rule))
  const clipped = wanted.map(({ from, to }) => ({ from: Math.max(from, 0), to: Math.min(to, addressMax) }))
  const ranges = joinedRanges(clipped.filter(({ from, to }) => from < to))
  return bytesIn(ranges) <= DICTIONARY_BYTES_MAX ? ranges : undefined
}

/** Those of `runs` that have bytes in `from` to `to`. */
export function runsWithin(runs: readonly LiteralRun[], from: number, to: number): LiteralRun[] {
  return runs.filter(run => run.from < to && run.to > from)
}

export function joinedRanges(ranges: readonly AddressRange[]): AddressRange[] {
  const result: AddressRange[] = []
  for (const range of ranges.toSorted((a, b) => a.from - b.from)) {
    const last = result.at(-1)
    if (last && range.from <= last.to)
      result[result.length - 1] = { from: last.from, to: Math.max(last.to, range.to) }
    else result.push(range)
  }
  return result
}

export function bytesIn(ranges: readonly AddressRange[]): number {
  return ranges.reduce((sum, { from, to }) => sum + to - from, 0)
}

function rangesFor({ from, to, before, after }: LiteralRun, rule: DictionaryRule): AddressRange[] {
  const length = to - from
  if (length < SHORT_RUN_BYTES) return []
  const around = Math.min(rule.around, length * 8)
  const replaced = after >= before && after - before <= length * 4 + SLACK_BYTES
  const ranges = [{ from: before - around, to: (replaced ? after : before) + around }]
  if (!replaced && after >= 0) ranges.push({ from: after - around, to: after + around })
  if (length >= LONG_RUN_BYTES) ranges.push({ from: before - rule.ahead, to: before })
  return ranges
}
