import { readdir } from 'node:fs/promises'
import { join } from 'node:path'
import { describe, expect, it } from 'vitest'
import { LearnedPolicy } from './policy/learned-policy.ts'
import { ASKED_FOR, type ContentStore } from './store.ts'
import {
  admit,
  extentFor,
  MIB,
  openTestStore,
  temporaryFolder,
  UNHURRIED,
  type TestExtent,
} from './testing.ts'

const extents = Array.from({ length: 10 }, (_, seed) => extentFor(seed, MIB))
const capacities = { hotBytesMax: 3 * MIB, warmBytesMax: 4 * MIB }

const tiersOf = (store: ContentStore, some: readonly TestExtent[] = extents) =>
  some.map(({ cid }) => store.tierOf(cid))
const hot = 'hot'
const warm = 'warm'

async function fill(store: ContentStore, some: readonly TestExtent[]): Promise<void> {
  for (const extent of some) await admit(store, extent)
  await store.settled()
}

async function filesOf(folder: string): Promise<number> {
  const names = await readdir(folder, { recursive: true })
  return names.filter(name => /ba[a-z2-7]{57}$/.test(name)).length
}

describe('tiers', () => {
  it('hold what they may, the newest hot, the oldest gone', async () => {
    await using folder = await temporaryFolder()
    await using store = await openTestStore(folder.path, capacities)
    await fill(store, extents)
    expect(tiersOf(store)).toEqual([null, null, null, warm, warm, warm, warm, hot, hot, hot])
    expect(store.usage()).toMatchObject({ hotBytes: 3 * MIB, warmBytes: 4 * MIB, extents: 7 })
    expect(await filesOf(join(folder.path, 'hot'))).toBe(3)
    expect(await filesOf(join(folder.path, 'warm'))).toBe(4)
    for (const { cid, bytes } of extents.slice(3))
      expect((await store.readExtent(cid, UNHURRIED)).equals(bytes)).toBe(true)
    const [event] = store.events(1000).filter(({ what }) => what === 'evicted')
    expect(event).toMatchObject({ subject: extents[2]!.cid, why: 'to make room' })
  })

  it('bring back up what is asked for again', async () => {
    await using folder = await temporaryFolder()
    await using store = await openTestStore(folder.path, capacities)
    await fill(store, extents)
    for (let time = 0; time < 2; time++) store.touch(extents[3]!.cid, MIB)
    await store.settled()
    expect(tiersOf(store)).toEqual([null, null, null, hot, warm, warm, warm, warm, hot, hot])
    expect((await store.readExtent(extents[3]!.cid, UNHURRIED)).equals(extents[3]!.bytes)).toBe(true)
  })

  it('are as they were after a restart, and smaller ones let go', async () => {
    await using folder = await temporaryFolder()
    {
      await using store = await openTestStore(folder.path, capacities)
      await fill(store, extents)
    }
    {
      await using store = await openTestStore(folder.path, capacities)
      await store.settled()
      expect(tiersOf(store)).toEqual([null, null, null, warm, warm, warm, warm, hot, hot, hot])
    }
    await using store = await openTestStore(folder.path, { hotBytesMax: MIB, warmBytesMax: 2 * MIB })
    await store.settled()
    expect(
      tiersOf(store)
        .filter(tier => tier !== null)
        .toSorted(),
    ).toEqual([hot, warm, warm])
    expect((await filesOf(join(folder.path, 'hot'))) + (await filesOf(join(folder.path, 'warm')))).toBe(3)
  })

  it('move small blocks, too', async () => {
    await using folder = await temporaryFolder()
    await using store = await openTestStore(folder.path, { hotBytesMax: 20_000, warmBytesMax: 40_000 })
    const small = Array.from({ length: 10 }, (_, seed) => extentFor(`small ${seed}`, 10_000))
    await fill(store, small)
    expect(tiersOf(store, small)).toEqual([null, null, null, null, warm, warm, warm, warm, hot, hot])
    for (const { cid, bytes } of small.slice(4))
      expect((await store.readExtent(cid, UNHURRIED)).equals(bytes)).toBe(true)
  })
})

describe('what was fetched because somebody asked', () => {
  const ask = (store: ContentStore, { cid, bytes }: TestExtent) =>
    store.admitExtent(cid, bytes, 'fastcdc-v1', ASKED_FOR)

  it('passes through: it evicts nothing, is read meanwhile, and leaves when others have come after it', async () => {
    await using folder = await temporaryFolder()
    await using store = await openTestStore(folder.path, { ...capacities, passingBytesMax: 2 * MIB })
    await fill(store, extents.slice(0, 7))
    for (const extent of extents.slice(7)) {
      await ask(store, extent)
      expect((await store.readExtent(extent.cid, UNHURRIED)).equals(extent.bytes)).toBe(true)
    }
    await store.settled()
    expect(tiersOf(store, extents.slice(0, 7))).not.toContain(null)
    expect(tiersOf(store, extents.slice(7))).toEqual([null, warm, warm])
    expect(await filesOf(folder.path)).toBe(9)
  })

  it('is kept when the policy wants it: asked for before it came, or while it was here', async () => {
    await using folder = await temporaryFolder()
    await using store = await openTestStore(folder.path, { ...capacities, passingBytesMax: 0 })
    await fill(store, extents.slice(0, 7))
    store.touch(extents[7]!.cid, MIB)
    await ask(store, extents[7]!)
    await ask(store, extents[8]!)
    store.touch(extents[8]!.cid, MIB)
    await ask(store, extents[9]!)
    await store.settled()
    expect(store.has(extents[7]!.cid) && store.has(extents[8]!.cid)).toBe(true)
    expect(store.usage().extents).toBe(8) // seven, and the last one on its way through
  })

  it('is no more than the tiers hold after a restart', async () => {
    await using folder = await temporaryFolder()
    {
      await using store = await openTestStore(folder.path, capacities)
      await fill(store, extents.slice(0, 7))
      await ask(store, extents[8]!)
      await store.settled()
      expect(await filesOf(folder.path)).toBe(8)
    }
    await using store = await openTestStore(folder.path, capacities)
    await store.settled()
    expect(await filesOf(folder.path)).toBe(7)
  })
})

describe('what a plan expects', () => {
  it('stays until it is used, and what it gives up leaves first', async () => {
    await using folder = await temporaryFolder()
    const policy = (capacityBytes: number, hotBytesMax: number) =>
      new LearnedPolicy({ capacityBytes, hotBytesMax })
    await using store = await openTestStore(folder.path, { ...capacities, policy })
    const of = ({ cid }: TestExtent, requestsPerDay: number) => ({ cid, sizeBytes: MIB, requestsPerDay })
    await fill(store, extents.slice(0, 7))
    const [given, ...kept] = extents.slice(0, 7)
    await store.expect([of(given!, 0), ...kept.map(extent => of(extent, 5)), of(extents[7]!, 5)])
    await fill(store, [extents[7]!])
    expect(tiersOf(store, [given!])).toEqual([null])
    expect([...kept, extents[7]!].every(({ cid }) => store.has(cid))).toBe(true)
  })
})

describe('what is held', () => {
  it('is never evicted, held before or after it came, across restarts (I4)', async () => {
    await using folder = await temporaryFolder()
    const [first, second, ...others] = extents
    {
      await using store = await openTestStore(folder.path, capacities)
      await fill(store, [first!])
      await store.hold([first!.cid, second!.cid], 'pinned')
      await fill(store, [second!])
      await fill(store, others)
      expect([first, second].every(extent => store.has(extent!.cid))).toBe(true)
      expect(store.usage().heldBytes).toBe(2 * MIB)
    }
    await using store = await openTestStore(folder.path, capacities)
    await fill(store, others.toReversed())
    expect([first, second].every(extent => store.has(extent!.cid))).toBe(true)
    expect(await store.remove([first!.cid], 'a test')).toBe(0)

    await store.release([first!.cid, second!.cid], 'pinned')
    await fill(store, others)
    await fill(store, others.toReversed())
    expect(store.has(first!.cid)).toBe(false)
    expect(await store.remove([others.at(0)!.cid], 'a test')).toBe(MIB)
  })

  it('may fill the store, and then nothing else fits: with the shortfall, and nothing half there (I7)', async () => {
    await using folder = await temporaryFolder()
    await using store = await openTestStore(folder.path, capacities)
    const held = extents.slice(0, 7)
    await store.hold(
      held.map(({ cid }) => cid),
      'mustHave',
    )
    await fill(store, held)
    await expect(admit(store, extents[8]!)).rejects.toMatchObject({ code: 'STORE_FULL' })
    expect(held.every(({ cid }) => store.has(cid))).toBe(true)
    await expect(store.reserve(5_000, 'a test')).rejects.toThrow(
      /needs 5000 bytes and 0 can be had: 5000 short/,
    )
  })
})

describe('reservations', () => {
  it('are promises: nobody else gets the bytes until they are given back', async () => {
    await using folder = await temporaryFolder()
    await using store = await openTestStore(folder.path, capacities)
    const first = await store.reserve(5 * MIB, 'a fill')
    await expect(store.reserve(3 * MIB, 'another')).rejects.toMatchObject({ code: 'STORE_FULL' })
    first.use(4 * MIB)
    using second = await store.reserve(3 * MIB, 'another')
    expect(store.usage().reservedBytes).toBe(MIB + second.bytes)
    first[Symbol.dispose]()
    expect(store.usage().reservedBytes).toBe(second.bytes)
  })

  it('never count on the reserve of the disk', async () => {
    await using folder = await temporaryFolder()
    await using store = await openTestStore(folder.path, { reserveBytes: 2 ** 52, hotBytesMax: 2 ** 40 })
    await expect(store.reserve(1, 'a test')).rejects.toMatchObject({ code: 'STORE_FULL' })
    await expect(admit(store, extents[0]!)).rejects.toMatchObject({ code: 'STORE_FULL' })
  })
})
