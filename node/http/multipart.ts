/**
 * `multipart/byteranges` (RFC 9110 §14.6): the parts' heads between the slices, and the length, known
 * before the first byte is read.
 */
import { randomBytes } from 'node:crypto'
import type { ByteRange } from '../../manifests/extent.ts'
import type { ChunkSlice, OpenItem } from '../library.ts'
import { contentRange } from './ranges.ts'

export interface Multipart {
  readonly boundary: string
  readonly lengthBytes: number
  /** Slices to send, and ready bytes between them. */
  readonly steps: Iterator<ChunkSlice | Buffer>
}

/** @param ranges at least two, within the item. */
export function multipartOf(item: OpenItem, ranges: readonly ByteRange[]): Multipart {
  // 128 random bits: no content can be made to hold it.
  const boundary = `towerlight-${randomBytes(16).toString('hex')}`
  const heads = ranges.map((range, i) =>
    Buffer.from(
      `${i === 0 ? '' : '\r\n'}--${boundary}\r\nContent-Type: ${item.mediaType}\r\nContent-Range: ${contentRange(range, item.sizeBytes)}\r\n\r\n`,
    ),
  )
  const tail = Buffer.from(`\r\n--${boundary}--\r\n`)
  const bodyBytes = ranges.reduce((sum, { first, last }) => sum + last - first + 1, 0)
  const lengthBytes = heads.reduce((sum, head) => sum + head.length, bodyBytes + tail.length)

  function* steps(): Generator<ChunkSlice | Buffer> {
    for (const [i, range] of ranges.entries()) {
      yield heads[i]!
      yield* item.slices(range)
    }
    yield tail
  }
  return { boundary, lengthBytes, steps: steps() }
}
