import { chmod, readdir, readFile, rename, rm, unlink, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { describe, expect, it } from 'vitest'
import { rawCidOf, type Cid } from '../../manifests/cid.ts'
import { sha256Of } from '../../manifests/digest.ts'
import { formatLine } from './format-mark.ts'
import { admit, bytesOf, extentFor, MIB, openTestStore, temporaryFolder, UNHURRIED } from './testing.ts'

const small = extentFor('small', 1_000)
const block = extentFor('block', 40_000)
const large = extentFor('large', 3 * MIB)

describe('what was admitted', () => {
  it('comes back, also after closing and opening', async () => {
    await using folder = await temporaryFolder()
    {
      await using store = await openTestStore(folder.path)
      await admit(store, small, block, large)
      for (const { cid, bytes } of [small, block, large]) {
        expect((await store.readExtent(cid, UNHURRIED)).equals(bytes)).toBe(true)
      }
    }
    await using store = await openTestStore(folder.path)
    for (const { cid, bytes } of [small, block, large]) {
      expect(store.has(cid)).toBe(true)
      expect((await store.readExtent(cid, UNHURRIED)).equals(bytes)).toBe(true)
    }
  })

  it('keeps the node, and gives any range of the content', async () => {
    await using folder = await temporaryFolder()
    await using store = await openTestStore(folder.path)
    await admit(store, large)
    expect(Buffer.from(store.node(large.cid)!)).toEqual(Buffer.from(large.node!.bytes))
    for (const [offset, length] of [
      [0, 1],
      [100_000, 1_000_000],
      [3 * MIB - 5, 5],
      [0, 3 * MIB],
      [7, 0],
    ] as const) {
      const range = await store.readRange(large.cid, offset, length, UNHURRIED)
      expect(range.equals(large.bytes.subarray(offset, offset + length))).toBe(true)
    }
    await expect(store.readRange(large.cid, 3 * MIB, 1, UNHURRIED)).rejects.toMatchObject({
      code: 'RANGE_OUTSIDE_ITEM',
    })
  })

  it('is refused when it is not what the CID says, and nothing of it stays', async () => {
    await using folder = await temporaryFolder()
    await using store = await openTestStore(folder.path)
    for (const { cid, bytes } of [small, block, large]) {
      const wrong = Buffer.from(bytes)
      wrong[bytes.length >> 1]! ^= 1
      await expect(store.admitExtent(cid, wrong, 'fastcdc-v1', 'test')).rejects.toMatchObject({
        code: 'CHUNK_CORRUPT',
      })
      expect(store.has(cid)).toBe(false)
    }
    await expect(store.admitNodes([{ cid: large.cid, bytes: bytesOf('x', 100) }])).rejects.toMatchObject({
      code: 'CHUNK_CORRUPT',
    })
    expect(await readdir(join(folder.path, 'hot', 'drafts'))).toEqual([])
  })

  it('may come twice at once, and empty items need not come at all', async () => {
    await using folder = await temporaryFolder()
    await using store = await openTestStore(folder.path)
    await admit(store, large, large, block, block)
    expect(store.usage().extents).toBe(2)
    expect(store.has(rawCidOf(sha256Of('')))).toBe(true)
    expect(store.absentOf([rawCidOf(sha256Of('')), large.cid, small.cid])).toEqual(new Set([small.cid]))
  })
})

describe('opening', () => {
  it('is refused to a second owner, and granted to a reader', async () => {
    await using folder = await temporaryFolder()
    await using owner = await openTestStore(folder.path)
    await admit(owner, small, large)
    const began = performance.now()
    await expect(openTestStore(folder.path)).rejects.toMatchObject({ code: 'STORE_LOCKED' })
    expect(performance.now() - began).toBeLessThan(1000)

    await using reader = await openTestStore(folder.path, { mode: 'reader' })
    expect((await reader.readExtent(large.cid, UNHURRIED)).equals(large.bytes)).toBe(true)
    await admit(owner, block)
    expect((await reader.readExtent(block.cid, UNHURRIED)).equals(block.bytes)).toBe(true)
    await expect(admit(reader, block)).rejects.toMatchObject({ code: 'STORE_READ_ONLY' })
  })

  it('is refused for a store of a newer format', async () => {
    await using folder = await temporaryFolder()
    await (await openTestStore(folder.path))[Symbol.asyncDispose]()
    await writeFile(join(folder.path, 'store-format'), formatLine(2))
    await expect(openTestStore(folder.path)).rejects.toMatchObject({ code: 'STORE_FORMAT' })
    await writeFile(join(folder.path, 'store-format'), formatLine(1))
    await using _store = await openTestStore(folder.path)
  })

  it.skipIf(process.getuid?.() === 0)('says what to do when the folder cannot be written', async () => {
    await using folder = await temporaryFolder()
    await chmod(folder.path, 0o500)
    await expect(openTestStore(folder.path)).rejects.toMatchObject({ code: 'STORE_READ_ONLY' })
    await chmod(folder.path, 0o700)
  })
})

describe('files behind our back', () => {
  it('a file that is gone is absent, one that appears is adopted, strays are swept', async () => {
    await using folder = await temporaryFolder()
    const path = (cid: Cid, digest: string) => join(folder.path, 'hot', 'extents-v1', digest.slice(0, 2), cid)
    const other = extentFor('other', 2 * MIB)
    const digestOf = (extent: typeof large) => sha256Of(extent.node!.bytes)
    {
      await using store = await openTestStore(folder.path)
      await admit(store, large, other)
    }
    const kept = await readFile(path(large.cid, digestOf(large)))
    await unlink(path(large.cid, digestOf(large)))
    await writeFile(join(folder.path, 'hot', 'extents-v1', 'ab', 'stray'), '').catch(() => undefined)
    {
      await using store = await openTestStore(folder.path)
      await store.settled()
      expect(store.has(large.cid)).toBe(false)
      expect((await store.readExtent(other.cid, UNHURRIED)).equals(other.bytes)).toBe(true)
    }
    await writeFile(path(large.cid, digestOf(large)), kept)
    await using store = await openTestStore(folder.path)
    await store.settled()
    expect((await store.readExtent(large.cid, UNHURRIED)).equals(large.bytes)).toBe(true)
  })

  it('swapped files are found out', async () => {
    await using folder = await temporaryFolder()
    const other = extentFor('other', 3 * MIB)
    await using store = await openTestStore(folder.path)
    await admit(store, large, other)
    const path = ({ cid, node }: typeof large) =>
      join(folder.path, 'hot', 'extents-v1', sha256Of(node!.bytes).slice(0, 2), cid)
    await rename(path(large), join(folder.path, 'aside'))
    await rename(path(other), path(large))
    await rename(join(folder.path, 'aside'), path(other))
    for (const { cid } of [large, other]) {
      await expect(store.readExtent(cid, UNHURRIED)).rejects.toMatchObject({ code: 'CHUNK_CORRUPT' })
      expect(store.has(cid)).toBe(false)
    }
    await admit(store, large, other)
    for (const { cid, bytes } of [large, other])
      expect((await store.readExtent(cid, UNHURRIED)).equals(bytes)).toBe(true)
  })

  it('a warm tier that is not mounted loses nothing', async () => {
    await using folder = await temporaryFolder()
    const options = { hotBytesMax: 4 * MIB, warmBytesMax: 64 * MIB }
    const extents = [1, 2, 3].map(seed => extentFor(seed, 3 * MIB))
    {
      await using store = await openTestStore(folder.path, options)
      for (const extent of extents) await admit(store, extent)
      await store.settled()
      expect(extents.map(({ cid }) => String(store.tierOf(cid))).toSorted()).toEqual(['hot', 'warm', 'warm'])
    }
    await rename(join(folder.path, 'warm'), join(folder.path, 'elsewhere'))
    {
      await using store = await openTestStore(folder.path, options)
      await store.settled()
      const hot = extents.find(({ cid }) => store.tierOf(cid) === 'hot')!
      expect((await store.readExtent(hot.cid, UNHURRIED)).equals(hot.bytes)).toBe(true)
    }
    await rm(join(folder.path, 'warm'), { recursive: true })
    await rename(join(folder.path, 'elsewhere'), join(folder.path, 'warm'))
    await using store = await openTestStore(folder.path, options)
    await store.settled()
    for (const { cid, bytes } of extents)
      expect((await store.readExtent(cid, UNHURRIED)).equals(bytes)).toBe(true)
  })

  it('a hot tier that is gone leaves the warm one', async () => {
    await using folder = await temporaryFolder()
    await using store = await openTestStore(folder.path)
    await admit(store, small, large)
    await store.settled()
    await rm(join(folder.path, 'hot'), { recursive: true })
    const other = extentFor('other', 2 * MIB)
    await admit(store, other)
    await store.settled()
    expect(store.tierOf(other.cid)).toBe('warm')
    expect((await store.readExtent(other.cid, UNHURRIED)).equals(other.bytes)).toBe(true)
    expect((await store.readExtent(small.cid, UNHURRIED)).equals(small.bytes)).toBe(true)
  })
})

describe('a reader', () => {
  it('follows the owner when the database is replaced', { timeout: 20_000 }, async () => {
    await using folder = await temporaryFolder()
    await using owner = await openTestStore(folder.path)
    await admit(owner, large)
    await using reader = await openTestStore(folder.path, { mode: 'reader' })
    expect(reader.has(large.cid)).toBe(true)
    await owner[Symbol.asyncDispose]()
    await writeFile(join(folder.path, 'node.db'), 'noise')
    await using again = await openTestStore(folder.path)
    await again.settled()
    await admit(again, block)
    await expect.poll(() => reader.has(block.cid), { timeout: 10_000 }).toBe(true)
    expect((await reader.readExtent(block.cid, UNHURRIED)).equals(block.bytes)).toBe(true)
  })

  it('of a store that nobody made yet says so', async () => {
    await using folder = await temporaryFolder()
    await expect(openTestStore(folder.path, { mode: 'reader' })).rejects.toMatchObject({ code: 'NOT_READY' })
  })
})
