import { mkdtempDisposable, readFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { extentOf } from './chunk-rule.ts'
import { rawCidOf } from './cid.ts'
import { sha256Of } from './digest.ts'
import type { DagNode } from './extent.ts'
import { packPath, type PackRef } from './manifest.ts'
import {
  expandFrame,
  FRAME_BYTES_MAX,
  frameExtents,
  openPackDirectory,
  parsePackDirectory,
  type PackDirectory,
} from './pack.ts'
import { folderStorage } from './publish/folder-storage.ts'
import type { PackExtent } from './publish/frame-groups.ts'
import { writtenFrames } from './publish/frame-writer.ts'
import { writePacks } from './publish/pack-writer.ts'
import { itemDag } from './unixfs.ts'
import { stream, vectors } from './vectors/vectors.ts'

interface Vectors {
  items: string[]
  packWithoutDirectory: string
  directory: string
}

const TEXT = Buffer.from(
  Array.from({ length: 60_000 }, (_, at) => `line ${at} says the same as the others\n`).join(''),
)

function packExtent(bytes: Uint8Array): PackExtent {
  const single = bytes.length < 100_000
  const { extent, node } = extentOf(bytes, 'fastcdc-v1', single)
  return { cid: extent.cid, bytes, ...(node && { node: node.bytes }) }
}

async function written(extents: (PackExtent | undefined)[], nodes: DagNode[] = [], packBytesMax?: number) {
  await using folder = await mkdtempDisposable(join(tmpdir(), 'pack-'))
  const storage = folderStorage(folder.path)
  const frames = writtenFrames(
    (async function* () {
      yield* extents
    })(),
    { level: 3, isUpdate: false },
    async () => undefined,
  )
  const refs = await writePacks(frames, {
    storage,
    nodes,
    level: 3,
    ...(packBytesMax !== undefined && { packBytesMax }),
  })
  const packs: { ref: PackRef; bytes: Buffer; directory: PackDirectory }[] = []
  for (const ref of refs) {
    const bytes = await readFile(join(folder.path, packPath(ref.sha256)))
    packs.push({ ref, bytes, directory: await openPackDirectory(storedDirectory(bytes, ref), ref.directory) })
  }
  return packs
}

const storedDirectory = (bytes: Buffer, { directory: { offset, size } }: PackRef) =>
  bytes.subarray(offset, offset + size)

async function extentFrom(pack: { bytes: Buffer; directory: PackDirectory }, cid: PackExtent['cid']) {
  const [place] = pack.directory.find(cid)
  if (!place) return undefined
  const frame = pack.directory.frames[place.frame]!
  const raw = await expandFrame(frame, pack.bytes.subarray(frame.offset, frame.offset + frame.storedBytes))
  const index = place.index && pack.bytes.subarray(place.index.offset, place.index.offset + place.index.size)
  return { bytes: Buffer.from(raw.subarray(place.offset, place.offset + place.sizeBytes)), index }
}

describe('packs', () => {
  it('have the bytes of the vector', async () => {
    const { items, packWithoutDirectory, directory } = vectors('pack.json') as Vectors
    const [pack] = await written(items.map(item => packExtent(Buffer.from(item))))
    expect(pack!.bytes.subarray(0, pack!.ref.directory.offset).toString('hex')).toBe(packWithoutDirectory)
    const parsed = parsePackDirectory(Buffer.from(directory, 'hex'))
    for (const item of items)
      expect(parsed.find(rawCidOf(sha256Of(item)))).toEqual(pack!.directory.find(rawCidOf(sha256Of(item))))
    expect(pack!.directory.frames).toEqual(parsed.frames)
  })

  it('give back every extent with its node, whatever was put in', async () => {
    const source = stream(3_000_000)
    const anyExtents = fc.uniqueArray(
      fc.tuple(fc.nat(1_000_000), fc.oneof(fc.nat(3000), fc.nat(2_000_000))),
      { minLength: 1, maxLength: 12 },
    )
    await fc.assert(
      fc.asyncProperty(anyExtents, fc.boolean(), async (cuts, compressible) => {
        const from = compressible ? TEXT : source
        const extents = cuts.map(([at, size]) => packExtent(from.subarray(at, at + size)))
        const [pack] = await written(extents)
        for (const { cid, bytes, node } of extents) {
          const found = await extentFrom(pack!, cid)
          expect(found?.bytes.equals(bytes)).toBe(true)
          expect(found?.index && Buffer.from(found.index)).toEqual(node && Buffer.from(node))
        }
        expect(pack!.directory.find(rawCidOf(sha256Of('not there')))).toEqual([])
      }),
      { numRuns: 15 },
    )
  })

  it('put small extents together, large ones alone, and leave plain what does not shrink', async () => {
    const noise = stream(2_000_000)
    const large = packExtent(noise.subarray(0, 1_500_000))
    const small = Array.from({ length: 20 }, (_, at) => packExtent(TEXT.subarray(at * 1000, at * 1000 + 900)))
    const [pack] = await written([
      ...small.slice(0, 10),
      large,
      ...small.slice(10),
      undefined,
      packExtent(Buffer.from('catalog')),
    ])
    expect(pack!.directory.frames.map(({ codec, extents }) => [codec, extents])).toEqual([
      ['plain', 1],
      ['zstd', 20],
      ['plain', 1],
    ])
    const raw = await expandFrame(
      pack!.directory.frames[1]!,
      pack!.bytes.subarray(8 + 1_500_000, 8 + 1_500_000 + pack!.directory.frames[1]!.storedBytes),
    )
    expect(frameExtents(pack!.directory, 1, raw).map(({ bytes }) => sha256Of(bytes))).toEqual(
      small.map(({ bytes }) => sha256Of(bytes)),
    )
  })

  it('begin another pack before they grow too large; the nodes above extents are in the last', async () => {
    const noise = stream(3_000_000)
    const extents = Array.from({ length: 10 }, (_, at) =>
      packExtent(noise.subarray(at * 200_000, at * 200_000 + 200_000)),
    )
    const own = [packExtent(noise.subarray(0, 1_200_000)), packExtent(noise.subarray(1_200_000, 2_500_000))]
    const { nodes } = itemDag(
      own.map(({ cid, bytes }) => ({ cid, sizeBytes: bytes.length, dagBytes: bytes.length + 1 })),
    )
    const packs = await written([...extents, ...own], nodes, 2_100_000)
    expect(packs.map(({ bytes }) => bytes.length <= 2_100_000)).toEqual([true, true, true])
    expect(packs.map(({ directory }) => directory.nodes.length)).toEqual([0, 0, 1])
    expect(packs[2]!.directory.nodes[0]).toMatchObject({ cid: nodes[0]!.cid })
    for (const { cid } of [...extents, ...own])
      expect(packs.filter(pack => pack.directory.find(cid).length === 1)).toHaveLength(1)
  })

  it('are not written for nothing', async () => {
    expect(await written([])).toEqual([])
  })

  it('take one frame of no bytes for an empty item', async () => {
    const [pack] = await written([packExtent(Buffer.alloc(0))])
    expect((await extentFrom(pack!, rawCidOf(sha256Of(''))))?.bytes).toHaveLength(0)
  })
})

describe('a damaged or hostile pack directory', () => {
  it('is refused with any byte changed', async () => {
    const [pack] = await written([packExtent(Buffer.from('a')), packExtent(TEXT)])
    const stored = storedDirectory(pack!.bytes, pack!.ref)
    for (let at = 0; at < stored.length; at++) {
      const damaged = Buffer.from(stored)
      damaged[at]! ^= 0x10
      await expect(openPackDirectory(damaged, pack!.ref.directory)).rejects.toMatchObject({
        code: 'PACK_INVALID',
      })
    }
    const { directory } = pack!.ref
    await expect(
      openPackDirectory(stored, { ...directory, rawSize: directory.rawSize - 1 }),
    ).rejects.toMatchObject({ code: 'PACK_INVALID' })
    await expect(
      openPackDirectory(stored, { ...directory, offset: directory.offset + 1 }),
    ).rejects.toMatchObject({ code: 'PACK_INVALID' })
  })

  it('never costs more than its bytes, whatever they are', () => {
    const survives = (bytes: Uint8Array) => {
      try {
        const directory = parsePackDirectory(bytes)
        for (const frame of directory.frames) expect(frame.rawBytes).toBeLessThanOrEqual(FRAME_BYTES_MAX)
      } catch (error) {
        expect(error).toMatchObject({ code: 'PACK_INVALID' })
      }
    }
    fc.assert(fc.property(fc.uint8Array({ maxLength: 100 }), survives), { numRuns: 1000 })
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 100 }), bytes =>
        survives(Buffer.concat([Buffer.of(1, 1, 0), bytes])),
      ),
      { numRuns: 1000 },
    )
    survives(Buffer.from('01ffffffffffff0f', 'hex'))
    survives(Buffer.from('01010000ffffffffffff0f', 'hex'))
  })

  it('does not let a frame expand past its size', async () => {
    const [pack] = await written([packExtent(TEXT)])
    const frame = pack!.directory.frames[0]!
    const stored = pack!.bytes.subarray(frame.offset, frame.offset + frame.storedBytes)
    await expect(expandFrame({ ...frame, rawBytes: 1000 }, stored)).rejects.toMatchObject({
      code: 'PACK_INVALID',
    })
    await expect(expandFrame(frame, stored.subarray(1))).rejects.toMatchObject({ code: 'PACK_INVALID' })
  })
})
