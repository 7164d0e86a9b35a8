/**
 * The deflate streams of a part, as a column of numbers: those of its bases, which are expanded and
 * laid behind the bases in the part's space, and those of its extents, which are made again after
 * the operations.
 */
import { ByteReader, type ByteWriter } from '../varint.ts'
import { STREAM_BYTES_MAX } from './deflate.ts'
import type { DeflateSettings } from './exact-deflate.ts'
import { invalid } from './section.ts'
import { zigzag, zigzagged } from './zigzag.ts'

/** A stream in the bases; addresses are those of the part. */
export interface BaseStream {
  readonly address: number
  readonly storedBytes: number
  readonly rawBytes: number
}

/** A stream of an extent; `from` and `rawBytes` are in the extent's inside. */
export interface ExtentStream extends DeflateSettings {
  /** Which of the part's extents. */
  readonly extent: number
  readonly from: number
  readonly rawBytes: number
  /** Of the stream's bytes these are left out at its beginning (another extent has them), and so many taken. */
  readonly skippedBytes: number
  readonly storedBytes: number
}

export interface PartStreams {
  readonly ofBases: readonly BaseStream[]
  /** By extent, then by place. */
  readonly ofExtents: readonly ExtentStream[]
}

export const NO_STREAMS: PartStreams = { ofBases: [], ofExtents: [] }
/** All of a part's streams, expanded. */
const RAW_BYTES_MAX = 64 * 1024 * 1024
const STORED_BYTES_MAX = 8 * 1024 * 1024

/** Writes nothing when there are none. */
export function writeStreams(out: ByteWriter, { ofBases, ofExtents }: PartStreams): void {
  if (ofBases.length + ofExtents.length === 0) return
  out.varint(ofBases.length)
  let expected = 0
  for (const { address, storedBytes, rawBytes } of ofBases) {
    out
      .varint(zigzag(address - expected))
      .varint(storedBytes)
      .varint(rawBytes)
    expected = address + storedBytes
  }
  let at = { extent: 0, from: 0 }
  for (const { extent, from, rawBytes, skippedBytes, storedBytes, level, memLevel } of ofExtents) {
    out.varint(extent - at.extent).varint(from - (extent === at.extent ? at.from : 0))
    out
      .varint(rawBytes)
      .varint(skippedBytes)
      .varint(storedBytes)
      .varint(level * 16 + memLevel)
    at = { extent, from: from + rawBytes }
  }
}

/** @param basesBytes of all bases; @param extentCount of the part. @throws EdgeError `DELTA_INVALID` */
export function readStreams(column: ByteReader, basesBytes: number, extentCount: number): PartStreams {
  if (column.left === 0) return NO_STREAMS
  let left = RAW_BYTES_MAX
  const rawBytesNext = () => {
    const rawBytes = column.varint(Math.min(STREAM_BYTES_MAX, left))
    left -= rawBytes
    return rawBytes
  }
  let expected = 0
  const ofBases = Array.from({ length: column.varint(column.left) }, () => {
    const address = expected + zigzagged(column.varint())
    const storedBytes = column.varint(STORED_BYTES_MAX)
    expected = address + storedBytes
    if (address < 0 || expected > basesBytes) throw invalid('a stream lies outside its bases')
    return { address, storedBytes, rawBytes: rawBytesNext() }
  })
  const ofExtents: ExtentStream[] = []
  let at = { extent: 0, from: 0 }
  while (column.left > 0) {
    const extent = at.extent + column.varint(extentCount)
    const from = column.varint(RAW_BYTES_MAX) + (extent === at.extent ? at.from : 0)
    const rawBytes = rawBytesNext()
    const skippedBytes = column.varint(STORED_BYTES_MAX)
    const storedBytes = column.varint(STORED_BYTES_MAX)
    const settings = column.varint(9 * 16 + 9)
    const [level, memLevel] = [Math.floor(settings / 16), settings % 16]
    if (extent >= extentCount || level < 1 || memLevel > 9) throw invalid('a stream makes no sense')
    ofExtents.push({ extent, from, rawBytes, skippedBytes, storedBytes, level, memLevel })
    at = { extent, from: from + rawBytes }
  }
  return { ofBases, ofExtents }
}
