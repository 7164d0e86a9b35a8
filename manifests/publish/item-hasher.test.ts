import { describe, expect, it } from 'vitest'
import { sha256Of } from '../digest.ts'
import { chunksOf } from '../fastcdc.ts'
import { ExtentCutter, type CutExtent } from '../unixfs.ts'
import { stream } from '../vectors/vectors.ts'
import { SEGMENT_BYTES } from './hash-helper.ts'
import { hashSmallItem, openItemHasher, type HashedItem, type ReadInto } from './item-hasher.ts'

const BYTES = stream(3 * SEGMENT_BYTES + 100_000)
const ZEROS = Buffer.alloc(2 * SEGMENT_BYTES + 5)

function readOf(bytes: Uint8Array): ReadInto {
  return async (buffer, position) => {
    const piece = bytes.subarray(position, position + buffer.length)
    buffer.set(piece)
    return piece.length
  }
}

/** One chunk after the other, with nothing shared. */
async function slowly(bytes: Uint8Array): Promise<HashedItem> {
  const cutter = new ExtentCutter()
  const cuts: (CutExtent | undefined)[] = []
  for await (const { digest, sizeBytes } of chunksOf([bytes])) cuts.push(cutter.add({ digest, sizeBytes }))
  cuts.push(cutter.end())
  const extents = cuts.flatMap(cut =>
    cut ? [{ cid: cut.extent.cid, sizeBytes: cut.extent.sizeBytes, dagBytes: cut.extent.dagBytes }] : [],
  )
  return { sizeBytes: bytes.length, sha256: sha256Of(bytes), extents }
}

const SIZES = [
  0,
  1,
  16_384,
  300_000,
  SEGMENT_BYTES - 1,
  SEGMENT_BYTES,
  SEGMENT_BYTES + 1,
  2 * SEGMENT_BYTES,
  BYTES.length,
]

describe.each([1, 2] as const)('an item hasher with %i threads', threads => {
  it('equals the obvious slow way, whatever the size', { timeout: 30_000 }, async () => {
    await using hasher = openItemHasher(threads)
    for (const size of SIZES) {
      const item = BYTES.subarray(0, size)
      expect(await hasher.hash(readOf(item)), `${size} bytes`).toEqual(await slowly(item))
    }
    expect(await hasher.hash(readOf(ZEROS))).toEqual(await slowly(ZEROS))
  })

  it('tells what went wrong with reading, and takes the next item', async () => {
    await using hasher = openItemHasher(threads)
    const failing: ReadInto = async (buffer, position) => {
      if (position > 0) throw new Error('the disk has gone')
      return await readOf(BYTES)(buffer, position)
    }
    await expect(hasher.hash(failing)).rejects.toThrow('the disk has gone')
    const item = BYTES.subarray(0, 1_000_000)
    expect(await hasher.hash(readOf(item))).toEqual(await slowly(item))
  })
})

describe('hashSmallItem', () => {
  it('equals the obvious slow way', async () => {
    for (const size of SIZES.filter(size => size <= SEGMENT_BYTES)) {
      const item = BYTES.subarray(7, 7 + size)
      expect(hashSmallItem(item)).toEqual(await slowly(item))
    }
  })
})
