/**
 * A part: what rebuilds some neighbouring extents, stored as one run of bytes of the delta's file
 * (docs/delta.md). Operations say, extent by extent: take so many literal bytes, copy so many from
 * an address, and so on. Addresses are places in the part's bases, laid end to end.
 *
 * A copy may be of bytes that are only alike; then so many bytes of differences are added to it.
 * Literals are kept in frames of at most 1 MiB, each compressed against old bytes (dictionary.ts).
 * The fields of the operations are kept in columns: equal things beside each other compress better.
 */
import { ByteReader, ByteWriter } from '../varint.ts'
import { BLOCK_BYTES, dictionaryOf, literalRunsOf, runsWithin, type DictionaryRule } from './dictionary.ts'
import { type PartStreams, readStreams, writeStreams } from './part-streams.ts'
import {
  invalid,
  pack,
  readSectionHead,
  type Section,
  type SectionHead,
  unpack,
  writeSectionHead,
} from './section.ts'
import { zigzag, zigzagged } from './zigzag.ts'

/** Longest output of a frame. */
export const FRAME_RAW_BYTES_MAX = 1024 * 1024
/** Longest dictionary of a frame. */
export const DICTIONARY_BYTES_MAX = 2 * 1024 * 1024
/** A part ends with the extent that takes it past a limit; an extent's inside has at most 16 MiB. */
export const PART_LITERAL_BYTES_MAX = 18 * 1024 * 1024
export const PART_DIFFERENCE_BYTES_MAX = 26 * 1024 * 1024
/** As stored: operations, differences, literals, none of which grow when they are packed. */
export const PART_BYTES_MAX = 64 * 1024 * 1024
const FRAMES_MAX = 32
const OPERATIONS_BYTES_MAX = 16 * 1024 * 1024
const COLUMNS = 6

/** Take `literalBytes` of the literals, then copy `copyBytes` from `address`; either may be 0. */
export interface Operation {
  readonly literalBytes: number
  readonly copyBytes: number
  readonly address: number
  /** Whether differences are added to what is copied. */
  readonly alike: boolean
}

export interface AddressRange {
  readonly from: number
  /** Exclusive. */
  readonly to: number
}

export interface PartFrame {
  readonly section: Section
  readonly rule: DictionaryRule
  /** Further blocks of its dictionary, ascending. */
  readonly blocks: readonly number[]
}

export interface PartContent {
  /** The operations of each extent, in order. All but an extent's last operation copy. */
  readonly extents: readonly (readonly Operation[])[]
  readonly frames: readonly PartFrame[]
  readonly differences: Section
  readonly streams: PartStreams
}

/** @returns the part as it is stored. */
export async function encodePart({ extents, frames, differences, streams }: PartContent): Promise<Buffer> {
  const columns = Array.from({ length: COLUMNS }, () => new ByteWriter())
  const [rules, blocks, literals, copies, jumps, deflated] = columns as SixOf<ByteWriter>
  writeStreams(deflated, streams)
  for (const frame of frames) {
    rules
      .varint(exponentOf(frame.rule.around))
      .varint(exponentOf(frame.rule.ahead))
      .varint(frame.blocks.length)
    let expected = 0
    for (const block of frame.blocks) {
      blocks.varint(block - expected)
      expected = block + 1
    }
  }
  let expected = 0
  for (const { literalBytes, copyBytes, address, alike } of extents.flat()) {
    literals.varint(literalBytes)
    copies.varint(copyBytes * 2 + (alike ? 1 : 0))
    if (copyBytes > 0) jumps.varint(zigzag(address - (expected + literalBytes)))
    expected = copyBytes > 0 ? address + copyBytes : expected + literalBytes
  }
  const raw = new ByteWriter()
  for (const column of columns) raw.varint(column.length)
  for (const column of columns) raw.bytes(column.done())
  const operations = await pack(raw.done(), NONE, 22)

  const sections = [operations, differences, ...frames.map(({ section }) => section)]
  const out = new ByteWriter().varint(frames.length)
  for (const section of sections) writeSectionHead(out, section)
  for (const { stored } of sections) out.bytes(stored)
  return Buffer.from(out.done())
}

export interface DecodedPart extends Omit<PartContent, 'frames'> {
  readonly frames: readonly (PartFrame & { readonly dictionary: readonly AddressRange[] })[]
}

/**
 * @param sizes bytes of each of the part's extents.
 * @param basesBytes of all its bases.
 * @throws EdgeError `DELTA_INVALID` unless every extent gets exactly its bytes from within bounds.
 */
export async function decodePart(
  stored: Uint8Array,
  sizes: readonly number[],
  basesBytes: number,
): Promise<DecodedPart> {
  const reader = new ByteReader(stored, 'DELTA_INVALID')
  const frameCount = reader.varint(FRAMES_MAX)
  const operationsHead = readSectionHead(reader, OPERATIONS_BYTES_MAX)
  const differencesHead = readSectionHead(reader, PART_DIFFERENCE_BYTES_MAX)
  const frameHeads = Array.from({ length: frameCount }, () => readSectionHead(reader, FRAME_RAW_BYTES_MAX))
  const sectionOf = (head: SectionHead): Section => ({ ...head, stored: reader.bytes(head.storedBytes) })
  const operations = sectionOf(operationsHead)
  const differences = sectionOf(differencesHead)
  const frameSections = frameHeads.map(sectionOf)
  reader.end()

  const inside = new ByteReader(await unpack(operations, NONE), 'DELTA_INVALID')
  const lengths = Array.from({ length: COLUMNS }, () => inside.varint(inside.left))
  const columns = lengths.map(length => new ByteReader(inside.bytes(length), 'DELTA_INVALID'))
  inside.end()
  const [rules, blocks, literals, copies, jumps, deflated] = columns as SixOf<ByteReader>

  const streams = readStreams(deflated, basesBytes, sizes.length)
  const addressMax = basesBytes + streams.ofBases.reduce((sum, { rawBytes }) => sum + rawBytes, 0)
  const insideSizes = insideSizesOf(sizes, streams)
  const frameRules = frameSections.map(() => readRule(rules, blocks, addressMax))
  const extents = readOperations(insideSizes, addressMax, literals, copies, jumps)
  for (const column of columns) column.end()

  const runs = literalRunsOf(extents)
  let from = 0
  const frames = frameSections.map((section, at) => {
    const { rule, blocks } = frameRules[at]!
    const to = from + section.rawBytes
    const dictionary = dictionaryOf(runsWithin(runs, from, to), rule, blocks, addressMax)
    if (!dictionary) throw invalid('a dictionary is too long')
    from = to
    return { section, rule, blocks, dictionary }
  })
  if ((runs.at(-1)?.to ?? 0) !== from || from > PART_LITERAL_BYTES_MAX) {
    throw invalid('a part has more or fewer literals than its operations take')
  }
  const alikeBytes = extents.flat().reduce((sum, { alike, copyBytes }) => sum + (alike ? copyBytes : 0), 0)
  if (alikeBytes !== differences.rawBytes)
    throw invalid('a part has more or fewer differences than its operations take')
  return { extents, frames, differences, streams }
}

const NONE = new Uint8Array(0)
type SixOf<T> = [T, T, T, T, T, T]

/** What the operations of each extent build. */
function insideSizesOf(sizes: readonly number[], { ofExtents }: PartStreams): number[] {
  const insides = [...sizes]
  for (const { extent, rawBytes, storedBytes } of ofExtents) insides[extent]! += rawBytes - storedBytes
  const ends = new Map<number, number>()
  for (const { extent, from, rawBytes } of ofExtents) ends.set(extent, from + rawBytes)
  if ([...ends].some(([extent, end]) => end > insides[extent]!) || insides.some(size => size < 0)) {
    throw invalid('streams are longer than their extent')
  }
  return insides
}

function readOperations(
  sizes: readonly number[],
  addressMax: number,
  literals: ByteReader,
  copies: ByteReader,
  jumps: ByteReader,
): Operation[][] {
  let expected = 0
  return sizes.map(sizeBytes => {
    const operations: Operation[] = []
    for (let left = sizeBytes; left > 0; ) {
      const literalBytes = literals.varint(left)
      const copy = copies.varint((left - literalBytes) * 2 + 1)
      const copyBytes = Math.floor(copy / 2)
      if (literalBytes + copyBytes === 0) throw invalid('an operation does nothing')
      left -= literalBytes + copyBytes
      const address = copyBytes > 0 ? expected + literalBytes + zigzagged(jumps.varint()) : 0
      if (address < 0 || address + copyBytes > addressMax) throw invalid('a copy lies outside its bases')
      expected = copyBytes > 0 ? address + copyBytes : expected + literalBytes
      operations.push({ literalBytes, copyBytes, address, alike: copy % 2 === 1 })
    }
    return operations
  })
}

function readRule(
  rules: ByteReader,
  blocks: ByteReader,
  addressMax: number,
): { rule: DictionaryRule; blocks: number[] } {
  const rule = { around: powerOf(rules.varint(EXPONENT_MAX)), ahead: powerOf(rules.varint(EXPONENT_MAX)) }
  let expected = 0
  const blockList = Array.from({ length: rules.varint(DICTIONARY_BYTES_MAX / BLOCK_BYTES) }, () => {
    const block = expected + blocks.varint(Math.ceil(addressMax / BLOCK_BYTES))
    expected = block + 1
    return block
  })
  return { rule, blocks: blockList }
}

const EXPONENT_MAX = 22

/** 0 for 0, otherwise one more than the power of two. */
function exponentOf(bytes: number): number {
  return bytes === 0 ? 0 : Math.log2(bytes) + 1
}

function powerOf(exponent: number): number {
  return exponent === 0 ? 0 : 2 ** (exponent - 1)
}
