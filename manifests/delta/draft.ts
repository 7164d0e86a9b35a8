/**
 * One new extent on its way into a part: the ways in which it could be said.
 *
 * `few` copies only what is long, and leaves the rest to zstd and its dictionary; `many` copies what
 * is shorter, too. `alike` copies what is merely alike and adds differences: better for databases
 * and other binary tables, where every record has a number that went up by one.
 */
import type { ChunkRule, ExtentRef } from '../extent.ts'
import type { NewStream } from './containers.ts'
import { extended, type ReadOld } from './extension.ts'
import type { Match, Matches } from './match-pool.ts'
import type { AddressRange, Operation } from './part.ts'

export const WAYS = ['few', 'many', 'alike'] as const
export type Way = (typeof WAYS)[number]

/** Addresses are those of the older release's layout. */
export interface Said {
  readonly operations: readonly Operation[]
  readonly literals: Uint8Array
  readonly differences: Uint8Array
}

export interface Draft {
  readonly extent: ExtentRef
  readonly rule: ChunkRule
  /** Deflate streams that are made again after the operations, in order. */
  readonly streams: readonly NewStream[]
  readonly said: Readonly<Record<Way, Said>>
  /** Old bytes that are like some literals, but are too short to be copied. */
  readonly like: readonly AddressRange[]
  /** Where the extent would be in the older release. */
  readonly place: AddressRange
  /** Where the older release goes on after what the end of the extent is like. */
  readonly end: number
}

/** Shorter copies cost more than zstd needs to say the same. Tried on text, tables and books. */
const COPY_BYTES_MIN = { few: 1024, many: 256 } as const
/** Likenesses with fewer equal bytes are not worth an operation. */
const ALIKE_EQUAL_BYTES_MIN = 32
/** So long an equal stretch is copied on its own: its differences, all 0, would only take memory. */
const EQUAL_APART_BYTES_MIN = 4096
const NOTHING = new Uint8Array(0)

/** @param anchors all of the extent: it is made of chunks that the older release has. */
export function draftOfCopies(
  extent: ExtentRef,
  rule: ChunkRule,
  place: AddressRange,
  anchors: readonly Match[],
): Draft {
  const operations = anchors.map(({ length, address }) => ({
    literalBytes: 0,
    copyBytes: length,
    address,
    alike: false,
  }))
  const said = { operations, literals: NOTHING, differences: NOTHING }
  const last = anchors.at(-1)
  return {
    extent,
    rule,
    streams: [],
    said: { few: said, many: said, alike: said },
    like: [],
    place,
    end: last ? last.address + last.length : place.to,
  }
}

/**
 * @param bytes the extent's, or its inside's when it has streams.
 * @param oldBytes the bytes at an address.
 */
export async function draftOf(
  extent: ExtentRef,
  rule: ChunkRule,
  place: AddressRange,
  bytes: Uint8Array,
  matches: Matches,
  streams: readonly NewStream[],
  oldBytes: ReadOld,
): Promise<Draft> {
  const equal = joined(matches.equal)
  const few = literally(
    bytes,
    equal.filter(({ length }) => length >= COPY_BYTES_MIN.few),
  )
  const last = equal.findLast(({ length }) => length >= COPY_BYTES_MIN.few)
  return {
    extent,
    rule,
    streams,
    said: {
      few,
      many: literally(
        bytes,
        equal.filter(({ length }) => length >= COPY_BYTES_MIN.many),
      ),
      alike: few.literals.length === 0 ? few : await withDifferences(bytes, matches, oldBytes),
    },
    like: matches.alike
      .filter(({ length }) => length < COPY_BYTES_MIN.few)
      .map(({ address, length }) => ({ from: address, to: address + length })),
    place,
    end: last ? last.address + last.length : place.to,
  }
}

function literally(bytes: Uint8Array, copies: readonly Match[]): Said {
  const operations: Operation[] = []
  const literals: Uint8Array[] = []
  let at = 0
  for (const copy of copies) {
    operations.push({
      literalBytes: copy.at - at,
      copyBytes: copy.length,
      address: copy.address,
      alike: false,
    })
    literals.push(bytes.subarray(at, copy.at))
    at = copy.at + copy.length
  }
  if (at < bytes.length) {
    operations.push({ literalBytes: bytes.length - at, copyBytes: 0, address: 0, alike: false })
    literals.push(bytes.subarray(at))
  }
  return { operations, literals: Buffer.concat(literals), differences: NOTHING }
}

async function withDifferences(
  bytes: Uint8Array,
  { alike, equal }: Matches,
  oldBytes: ReadOld,
): Promise<Said> {
  const worthIt = alike.filter(({ equalBytes }) => equalBytes >= ALIKE_EQUAL_BYTES_MIN)
  const apart = joined(equal).filter(({ length }) => length >= EQUAL_APART_BYTES_MIN)
  const operations: Operation[] = []
  const literals: Uint8Array[] = []
  const differences: Uint8Array[] = []
  let at = 0
  let nextApart = 0
  const copy = async (from: number, to: number, address: number, exact: boolean) => {
    operations.push({ literalBytes: from - at, copyBytes: to - from, address, alike: !exact })
    literals.push(bytes.subarray(at, from))
    if (!exact)
      differences.push(
        differenceOf(bytes.subarray(from, to), await oldBytes([{ from: address, to: address + to - from }])),
      )
    at = to
  }
  for (const { at: from, length, address, equalBytes } of await extended(worthIt, bytes, oldBytes)) {
    const end = from + length
    let next = from
    while (nextApart < apart.length && apart[nextApart]!.at < end) {
      const exact = apart[nextApart]!
      const exactFrom = Math.max(exact.at, next)
      const exactTo = Math.min(exact.at + exact.length, end)
      if (exactFrom > next) await copy(next, exactFrom, address + next - from, false)
      if (exactTo > exactFrom) await copy(exactFrom, exactTo, address + exactFrom - from, true)
      next = Math.max(exactTo, next)
      if (exact.at + exact.length > end) break
      nextApart += 1
    }
    if (next < end) await copy(next, end, address + next - from, equalBytes === length)
  }
  if (at < bytes.length) {
    operations.push({ literalBytes: bytes.length - at, copyBytes: 0, address: 0, alike: false })
    literals.push(bytes.subarray(at))
  }
  return { operations, literals: Buffer.concat(literals), differences: Buffer.concat(differences) }
}

function differenceOf(next: Uint8Array, old: Uint8Array): Uint8Array {
  const difference = new Uint8Array(next.length)
  for (let at = 0; at < next.length; at++) difference[at] = next[at]! - old[at]!
  return difference
}

/** Matches that go on in each other, on both sides, are one. */
export function joined(matches: readonly Match[]): Match[] {
  const result: Match[] = []
  for (const match of matches) {
    const last = result.at(-1)
    if (last && last.at + last.length === match.at && last.address + last.length === match.address) {
      result[result.length - 1] = { ...last, length: last.length + match.length }
    } else result.push({ at: match.at, length: match.length, address: match.address })
  }
  return result
}
