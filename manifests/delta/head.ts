/**
 * The head of a static delta: everything about it that is no content (docs/delta.md). Which bases
 * it copies from, which parts it has, which items of the new catalog it rebuilds, the extents of
 * those that have several, and which bases each extent needs. The parts of the catalog's own
 * change are the head's tail, so one request brings the new catalog, too.
 *
 * Numbers are in one compressed section; digests, which do not compress, follow it as they are.
 */
import { blake3 } from 'blake3'
import { cidBytes, cidOf, type Cid } from '../cid.ts'
import type { Sha256 } from '../digest.ts'
import type { ExtentRef } from '../extent.ts'
import { EXTENT_BYTES_MAX } from '../unixfs.ts'
import { ByteReader, ByteWriter } from '../varint.ts'
import { PART_BYTES_MAX } from './part.ts'
import { invalid, pack, readSectionHead, unpack, writeSectionHead } from './section.ts'
import { zigzag, zigzagged } from './zigzag.ts'

export const DELTA_MAGIC = Buffer.from('TLDELTA1')
const VERSION = 1
/** Bases are named by the first bytes of their digests: a wrong guess is found out by the result. */
const KEY_BYTES = 8
export const CHECK_BYTES = 8
const DIGEST_BYTES = 32

export interface DeltaBase {
  /** First 8 bytes of the CID's digest, in hex. */
  readonly key: string
  readonly sizeBytes: number
}

export interface DeltaPart {
  /** In the delta's file. */
  readonly offset: number
  readonly storedBytes: number
  /** First 8 bytes of the BLAKE3 of the stored bytes. */
  readonly check: Uint8Array
  /** Its extents are `firstExtent` to `firstExtent + extentCount - 1` of `DeltaHead.extents`. */
  readonly firstExtent: number
  readonly extentCount: number
  /** Indexes of bases, ascending: laid end to end they are what the part's addresses mean. */
  readonly bases: readonly number[]
}

/** How a list of extents comes out of older lists. */
export type TableRun =
  | { readonly kind: 'keep'; readonly root: number; readonly first: number; readonly count: number }
  | { readonly kind: 'new'; readonly extents: readonly NewExtent[] }

export interface NewExtent extends ExtentRef {
  /** Whether a part of this delta rebuilds it. */
  readonly rebuilt: boolean
}

/** A changed item. Without a table it has one extent, its root, which the catalog names. */
export interface ItemChange {
  /** Its place in the new catalog, from 0; −1 is the catalog itself. */
  readonly ordinal: number
  readonly table?: {
    /** Keys of the roots whose extents are kept. */
    readonly oldRoots: readonly string[]
    readonly runs: readonly TableRun[]
  }
}

export interface DeltaHead {
  readonly bases: readonly DeltaBase[]
  readonly parts: readonly DeltaPart[]
  /** How many of the parts are the catalog's, and lie in the head. */
  readonly catalogParts: number
  /** Ascending by ordinal. */
  readonly changes: readonly ItemChange[]
  /** For each rebuilt extent, in the order of `changes`: the indexes of the bases it needs. */
  readonly needs: readonly (readonly number[])[]
}

export function checkOf(stored: Uint8Array): Uint8Array {
  return Uint8Array.from(blake3(stored).subarray(0, CHECK_BYTES))
}

export function keyOf(cid: Cid): string {
  return cidBytes(cid).toString('hex', 4, 4 + KEY_BYTES)
}

/** How many rebuilt extents a change has. */
export function rebuiltOf({ table }: ItemChange): number {
  if (!table) return 1
  return table.runs.reduce(
    (sum, run) => sum + (run.kind === 'new' ? run.extents.filter(extent => extent.rebuilt).length : 0),
    0,
  )
}

/**
 * @param head `offset` of parts is not looked at: they lie one after another.
 * @param catalogParts the stored bytes of the first `head.catalogParts` parts.
 * @returns the head as it follows the magic, and the size of its numbers before compression.
 */
export async function encodeHead(
  head: DeltaHead,
  catalogParts: readonly Uint8Array[],
): Promise<{ bytes: Buffer; rawSize: number }> {
  const numbers = new ByteWriter()
  const digests = new ByteWriter()
  numbers.varint(VERSION).varint(head.bases.length)
  for (const { key, sizeBytes } of head.bases) {
    numbers.varint(sizeBytes)
    digests.bytes(Buffer.from(key, 'hex'))
  }
  numbers.varint(head.parts.length).varint(head.catalogParts)
  for (const { storedBytes, extentCount, check } of head.parts) {
    numbers.varint(storedBytes).varint(extentCount)
    digests.bytes(check)
  }

  numbers.varint(head.changes.length)
  let expectedOrdinal = -1
  for (const { ordinal, table } of head.changes) {
    numbers.varint(ordinal - expectedOrdinal).varint(table?.runs.length ?? 0)
    expectedOrdinal = ordinal + 1
    if (!table) continue
    numbers.varint(table.oldRoots.length)
    for (const key of table.oldRoots) digests.bytes(Buffer.from(key, 'hex'))
    let expectedFirst = 0
    for (const run of table.runs) {
      if (run.kind === 'keep') {
        numbers
          .varint(run.count * 2)
          .varint(run.root)
          .varint(zigzag(run.first - expectedFirst))
        expectedFirst = run.first + run.count
        continue
      }
      numbers.varint(run.extents.length * 2 + 1)
      for (const { cid, sizeBytes, dagBytes, rebuilt } of run.extents) {
        numbers.varint(sizeBytes).varint((dagBytes - sizeBytes) * 2 + (rebuilt ? 1 : 0))
        digests.bytes(cidBytes(cid).subarray(4))
      }
    }
  }

  let expectedBase = 0
  for (const needs of head.needs) expectedBase = writeIndexes(numbers, needs, expectedBase)
  // A dictionary may reach into bases that none of its extents needs in the end.
  for (const { bases, firstExtent, extentCount } of head.parts) {
    const needed = new Set(head.needs.slice(firstExtent, firstExtent + extentCount).flat())
    const others = bases.filter(base => !needed.has(base))
    writeIndexes(numbers, others, 0)
  }

  const section = await pack(numbers.done(), new Uint8Array(0), 22)
  const out = new ByteWriter()
  writeSectionHead(out, section)
  out.bytes(section.stored).bytes(digests.done())
  for (const part of catalogParts) out.bytes(part)
  return { bytes: Buffer.from(out.done()), rawSize: numbers.length }
}

/**
 * @param bytes the whole head, authentic.
 * @throws EdgeError `DELTA_INVALID`
 */
export async function parseHead(bytes: Uint8Array, rawSize: number): Promise<DeltaHead> {
  const outer = new ByteReader(bytes, 'DELTA_INVALID')
  const sectionHead = readSectionHead(outer, rawSize)
  if (sectionHead.rawBytes !== rawSize) throw invalid('its head has another size than was signed')
  const section = { ...sectionHead, stored: outer.bytes(sectionHead.storedBytes) }
  const numbers = new ByteReader(await unpack(section, new Uint8Array(0)), 'DELTA_INVALID')
  /** Nothing can be listed without taking at least a byte of the numbers. */
  const count = () => numbers.varint(numbers.left)
  const key = () => Buffer.from(outer.bytes(KEY_BYTES)).toString('hex')

  if (numbers.varint() !== VERSION) throw invalid('another version')
  const bases = Array.from({ length: count() }, () => ({
    key: key(),
    sizeBytes: numbers.varint(EXTENT_BYTES_MAX),
  }))
  const partCount = count()
  const catalogParts = numbers.varint(partCount)
  const partHeads = Array.from({ length: partCount }, () => ({
    storedBytes: numbers.varint(PART_BYTES_MAX),
    extentCount: numbers.varint(),
    check: Uint8Array.from(outer.bytes(CHECK_BYTES)),
  }))

  let ordinal = -1
  const changes = Array.from({ length: count() }, () => {
    ordinal += numbers.varint()
    const runCount = count()
    return runCount === 0 ? { ordinal: ordinal++ } : { ordinal: ordinal++, table: readTable(runCount) }
  })
  function readTable(runCount: number): NonNullable<ItemChange['table']> {
    const oldRoots = Array.from({ length: count() }, key)
    let expected = 0
    const runs = Array.from({ length: runCount }, (): TableRun => {
      const head = numbers.varint()
      const extents = Math.floor(head / 2)
      if (head % 2 === 0) {
        const root = numbers.varint(Math.max(oldRoots.length - 1, 0))
        const first = expected + zigzagged(numbers.varint())
        expected = first + extents
        if (first < 0 || oldRoots.length === 0) throw invalid('a kept run begins nowhere')
        return { kind: 'keep', root, first, count: extents }
      }
      if (extents > numbers.left) throw invalid('too many extents')
      return {
        kind: 'new',
        extents: Array.from({ length: extents }, () => {
          const sizeBytes = numbers.varint(EXTENT_BYTES_MAX)
          const more = numbers.varint(EXTENT_BYTES_MAX)
          const cid = cidOf('dag-pb', Buffer.from(outer.bytes(DIGEST_BYTES)).toString('hex') as Sha256)
          return { cid, sizeBytes, dagBytes: sizeBytes + Math.floor(more / 2), rebuilt: more % 2 === 1 }
        }),
      }
    })
    return { oldRoots, runs }
  }

  const extentCount = changes.reduce((sum, change) => sum + rebuiltOf(change), 0)
  if (extentCount > numbers.left) throw invalid('too many extents')
  let expectedBase = 0
  const needs = Array.from({ length: extentCount }, () => {
    const indexes = readIndexes(numbers, bases.length, expectedBase)
    expectedBase = (indexes.at(-1) ?? expectedBase - 1) + 1
    return indexes
  })

  let firstExtent = 0
  let offset =
    DELTA_MAGIC.length +
    bytes.length -
    partHeads.slice(0, catalogParts).reduce((sum, part) => sum + part.storedBytes, 0)
  const parts = partHeads.map(head => {
    const others = readIndexes(numbers, bases.length, 0)
    const own = needs.slice(firstExtent, firstExtent + head.extentCount).flat()
    const part = {
      ...head,
      offset,
      firstExtent,
      bases: [...new Set([...own, ...others])].sort((a, b) => a - b),
    }
    firstExtent += head.extentCount
    offset += head.storedBytes
    return part
  })
  numbers.end()
  if (firstExtent !== extentCount) throw invalid('its parts have more or fewer extents than its items')
  if (outer.left !== parts.slice(0, catalogParts).reduce((sum, part) => sum + part.storedBytes, 0)) {
    throw invalid("the catalog's parts do not end the head")
  }
  return { bases, parts, catalogParts, changes, needs }
}

/** Ascending indexes, the first one relative to where the last list ended. @returns where this one ends */
function writeIndexes(out: ByteWriter, indexes: readonly number[], expected: number): number {
  out.varint(indexes.length)
  for (const [at, index] of indexes.entries()) {
    out.varint(at === 0 ? zigzag(index - expected) : index - expected)
    expected = index + 1
  }
  return expected
}

function readIndexes(from: ByteReader, end: number, expected: number): number[] {
  const length = from.varint(from.left)
  return Array.from({ length }, (_, at) => {
    const jump = from.varint()
    const index = expected + (at === 0 ? zigzagged(jump) : jump)
    if (index < 0 || index >= end) throw invalid('an extent needs a base that is not listed')
    expected = index + 1
    return index
  })
}
