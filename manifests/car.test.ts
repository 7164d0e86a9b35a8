import { CarReader, CarWriter } from '@ipld/car'
import { CID } from 'multiformats/cid'
import { expect, it } from 'vitest'
import { parseCid, rawCidOf } from './cid.ts'
import { sha256Of } from './digest.ts'
import { carOf } from './car.ts'

const blocks = Array.from({ length: 300 }, (_, n) => {
  const bytes = Buffer.alloc(n * 97, `block ${n}`)
  return { cid: rawCidOf(sha256Of(bytes)), bytes }
})

it.each([1, 23, 24, 255, 256, 300])('equals the reference writer with %i roots', async rootCount => {
  const roots = blocks.slice(0, rootCount).map(block => block.cid)
  const { writer, out } = CarWriter.create(roots.map(root => CID.parse(root)))
  const written = Array.fromAsync(out)
  for (const { cid, bytes } of blocks) await writer.put({ cid: CID.parse(cid), bytes })
  await writer.close()
  const ours = Buffer.concat(await Array.fromAsync(carOf(roots, blocks)))
  expect(ours.equals(Buffer.concat(await written))).toBe(true)
})

it('is read by the reference reader', async () => {
  const roots = [parseCid(blocks[7]?.cid ?? '')]
  const reader = await CarReader.fromBytes(Buffer.concat(await Array.fromAsync(carOf(roots, blocks))))
  expect((await reader.getRoots()).map(String)).toEqual(roots)
  expect((await Array.fromAsync(reader.blocks())).map(({ cid }) => String(cid))).toEqual(
    blocks.map(b => b.cid),
  )
})
