/**
 * A part: what rebuilds some neighbouring extents, stored as one run of bytes of the delta's file
 * (docs/delta.md). Operations say, extent by extent: take so many literal bytes, copy so many from
 * an address, and so on. Addresses are places in the part's bases, laid end to end. Literals are
 * kept in frames of about 1 MiB, each zstd-compressed against its own ranges of the bases.
 *
 * The fields of the operations are kept in columns: equal things beside each other compress better.
 */
import { ByteReader, ByteWriter } from '../varint.ts'
import { invalid, pack, readSectionHead, type Section, type SectionHead, unpack, writeSectionHead } from './section.ts'

/** Longest output of a frame. Runs are cut there. */
export const FRAME_RAW_BYTES_MAX = 1024 * 1024
/** Longest dictionary of a frame. */
export const DICTIONARY_BYTES_MAX = 2 * 1024 * 1024
/** A part ends with the extent that takes it past one frame; an extent has at most 8 MiB. */
export const PART_RAW_BYTES_MAX = 10 * 1024 * 1024
const FRAMES_MAX = 64
const OPERATIONS_BYTES_MAX = 16 * 1024 * 1024

/** Take `literalBytes` of the literals, then copy `copyBytes` from `address`; either may be 0. */
export interface Operation {
  readonly literalBytes: number
  readonly copyBytes: number
  readonly address: number
}

export interface AddressRange {
  readonly from: number
  /** Exclusive. */
  readonly to: number
}

export interface PartFrame {
  readonly section: Section
  /** Sorted, disjoint: their bytes, joined, are the dictionary. */
  readonly dictionary: readonly AddressRange[]
}

/**
 * @param extents the operations of each extent, in order. All but an extent's last operation copy.
 */
export async function encodePart(extents: readonly (readonly Operation[])[], frames: readonly PartFrame[]): Promise<Buffer> {
  const gaps = new ByteWriter()
  const lengths = new ByteWriter()
  const literals = new ByteWriter()
  const copies = new ByteWriter()
  const jumps = new ByteWriter()

  for (const { dictionary } of frames) {
    lengths.varint(dictionary.length)
    let at = 0
    for (const { from, to } of dictionary) {
      gaps.varint(from - at)
      lengths.varint(to - from)
      at = to
    }
  }
  let expected = 0
  for (const operations of extents) {
    for (const { literalBytes, copyBytes, address } of operations) {
      literals.varint(literalBytes)
      copies.varint(copyBytes)
      if (copyBytes === 0) continue
      jumps.varint(zigzag(address - (expected + literalBytes)))
      expected = address + copyBytes
    }
  }

  const columns = [gaps, lengths, literals, copies, jumps]
  const raw = new ByteWriter()
  for (const column of columns) raw.varint(column.length)
  for (const column of columns) raw.bytes(column.done())
  const operations = await pack(raw.done(), NONE, 22)

  const out = new ByteWriter()
  writeSectionHead(out, operations)
  out.varint(frames.length)
  for (const { section } of frames) writeSectionHead(out, section)
  out.bytes(operations.stored)
  for (const { section } of frames) out.bytes(section.stored)
  return Buffer.from(out.done())
}

export interface DecodedPart {
  readonly extents: readonly (readonly Operation[])[]
  readonly frames: readonly PartFrame[]
}

/**
 * @param sizes bytes of each of the part's extents.
 * @param addressMax bytes of all its bases.
 * @throws EdgeError `DELTA_INVALID` unless every extent gets exactly its bytes from within bounds.
 */
export async function decodePart(stored: Uint8Array, sizes: readonly number[], addressMax: number): Promise<DecodedPart> {
  const reader = new ByteReader(stored, 'DELTA_INVALID')
  const operationsHead = readSectionHead(reader, OPERATIONS_BYTES_MAX)
  const heads: SectionHead[] = []
  for (let left = reader.varint(FRAMES_MAX); left > 0; left--) heads.push(readSectionHead(reader, FRAME_RAW_BYTES_MAX))
  const raw = await unpack({ ...operationsHead, stored: reader.bytes(operationsHead.storedBytes) }, NONE)
  const sections = heads.map(head => ({ ...head, stored: reader.bytes(head.storedBytes) }))
  reader.end()

  const inside = new ByteReader(raw, 'DELTA_INVALID')
  const lengthsOfColumns = Array.from({ length: 5 }, () => inside.varint(raw.length))
  const [gaps, lengths, literals, copies, jumps] = lengthsOfColumns.map(
    length => new ByteReader(inside.bytes(length), 'DELTA_INVALID'),
  ) as [ByteReader, ByteReader, ByteReader, ByteReader, ByteReader]
  inside.end()

  const frames = sections.map(section => ({ section, dictionary: readRanges(gaps, lengths, addressMax) }))
  let expected = 0
  const extents = sizes.map(sizeBytes => {
    const operations: Operation[] = []
    for (let left = sizeBytes; left > 0; ) {
      const literalBytes = literals.varint(left)
      const copyBytes = copies.varint(left - literalBytes)
      if (literalBytes + copyBytes === 0) throw invalid('an operation does nothing')
      left -= literalBytes + copyBytes
      let address = 0
      if (copyBytes > 0) {
        address = expected + literalBytes + zigzagged(jumps.varint())
        if (address < 0 || address + copyBytes > addressMax) throw invalid('a copy lies outside its bases')
        expected = address + copyBytes
      }
      operations.push({ literalBytes, copyBytes, address })
    }
    return operations
  })
  for (const column of [gaps, lengths, literals, copies, jumps]) column.end()
  const literalBytes = extents.flat().reduce((sum, operation) => sum + operation.literalBytes, 0)
  if (literalBytes !== frames.reduce((sum, { section }) => sum + section.rawBytes, 0) || literalBytes > PART_RAW_BYTES_MAX) {
    throw invalid('a part has more or fewer literals than its operations take')
  }
  return { extents, frames }
}

export function zigzag(value: number): number {
  return value < 0 ? -2 * value - 1 : 2 * value
}

export function zigzagged(value: number): number {
  return value % 2 === 0 ? value / 2 : -(value + 1) / 2
}

const NONE = new Uint8Array(0)

function readRanges(gaps: ByteReader, lengths: ByteReader, addressMax: number): AddressRange[] {
  const ranges: AddressRange[] = []
  let at = 0
  let left = DICTIONARY_BYTES_MAX
  for (let count = lengths.varint(DICTIONARY_BYTES_MAX); count > 0; count--) {
    const from = at + gaps.varint(addressMax)
    const length = lengths.varint(left)
    at = from + length
    left -= length
    if (length === 0 || at > addressMax) throw invalid('a dictionary lies outside its bases')
    ranges.push({ from, to: at })
  }
  return ranges
}
