import fc from 'fast-check'
import { expect, it } from 'vitest'
import { type Cid, digestOf, rawCidOf } from './cid.ts'
import { sha256Of } from './digest.ts'
import { carOf } from './car.ts'
import { blocksOfCar } from './car-reader.ts'

const blocks = [0, 1, 200, 70_000].map(size => {
  const bytes = Buffer.alloc(size, `block of ${size} `)
  return { cid: rawCidOf(sha256Of(bytes)), bytes }
})
const archive = Buffer.concat(
  await Array.fromAsync(
    carOf(
      [blocks[0]?.cid ?? blocks[1]?.cid].filter(cid => cid !== undefined),
      blocks,
    ),
  ),
)

function* piecesOf(bytes: Uint8Array, pieceBytes: number): Generator<Uint8Array> {
  for (let from = 0; from < bytes.length; from += pieceBytes) yield bytes.subarray(from, from + pieceBytes)
}

async function read(bytes: Uint8Array, pieceBytes = 1000): Promise<{ cid: Cid; bytes: Uint8Array }[]> {
  return await Array.fromAsync(
    blocksOfCar(
      (async function* () {
        yield* piecesOf(bytes, pieceBytes)
      })(),
    ),
  )
}

it.each([1, 7, 4096, 1e6])('gives back what was written, in pieces of %i bytes', async pieceBytes => {
  const got = await read(archive, pieceBytes)
  expect(got.map(({ cid }) => cid)).toEqual(blocks.map(({ cid }) => cid))
  expect(got.every(({ bytes }, n) => Buffer.from(bytes).equals(blocks[n]?.bytes ?? Buffer.alloc(1)))).toBe(
    true,
  )
})

it('one damaged byte behind the header never gives a wrong block', async () => {
  await fc.assert(
    fc.asyncProperty(
      fc.integer({ min: 60, max: archive.length - 1 }),
      fc.integer({ min: 1, max: 255 }),
      async (at, flip) => {
        const damaged = Buffer.from(archive)
        damaged[at] = (damaged[at] ?? 0) ^ flip
        // a flip from one codec to the other leaves a block that is what its name says all the same
        const isOtherCodec = flip === (0x55 ^ 0x70) && archive[at] === 0x55
        const got = await read(damaged).catch(() => undefined)
        if (!isOtherCodec) expect(got).toBeUndefined()
        for (const { cid, bytes } of got ?? []) expect(digestOf(cid)).toBe(sha256Of(bytes))
      },
    ),
    { numRuns: 200, examples: [[61, 0x55 ^ 0x70]] },
  )
})

it('a cut archive is an error, unless it is cut between blocks', async () => {
  await expect(read(archive.subarray(0, archive.length - 1))).rejects.toMatchObject({ code: 'CHUNK_CORRUPT' })
})
