/** Disks that turn read-only, vanish, stall or forget what time it is; injected in the file layer. */
import { rename } from 'node:fs/promises'
import { join } from 'node:path'
import { afterEach, expect, it, vi } from 'vitest'
import { EdgeError } from '../../manifests/errors.ts'
import { ExtentFiles } from './extent-files.ts'
import { LearnedPolicy } from './policy/learned-policy.ts'
import type { ContentStore } from './store.ts'
import {
  admit,
  extentFor,
  MIB,
  openTestStore,
  temporaryFolder,
  UNHURRIED,
  type TestExtent,
} from './testing.ts'

const extents = Array.from({ length: 16 }, (_, seed) => extentFor(`faulty ${seed}`, MIB))
const capacities = { hotBytesMax: 3 * MIB, warmBytesMax: 4 * MIB }
const [pinned, ...others] = extents

afterEach(() => {
  vi.restoreAllMocks()
})

/** Only what is right, or nothing. */
async function readAll(store: ContentStore, some: readonly TestExtent[]): Promise<number> {
  let read = 0
  for (const { cid, bytes } of some) {
    const found = await store.readExtent(cid, UNHURRIED).catch(() => undefined)
    if (!found) continue
    expect(found.equals(bytes)).toBe(true)
    read++
  }
  return read
}

async function filled(folder: string): Promise<ContentStore> {
  const store = await openTestStore(folder, capacities)
  await store.hold([pinned!.cid], 'pinned')
  for (const extent of extents.slice(0, 8)) await admit(store, extent)
  await store.settled()
  return store
}

/** What the disk of `tier` says from now on to every write. */
function breakWrites(tier: 'hot' | 'warm', fail: () => Promise<void>): void {
  const { write, linkTo } = ExtentFiles.prototype
  const isIts = (files: ExtentFiles, extent: TestExtent) => files.pathOf(extent.cid).includes(`/${tier}/`)
  vi.spyOn(ExtentFiles.prototype, 'write').mockImplementation(async function (this: ExtentFiles, ...args) {
    if (isIts(this, pinned!)) await fail()
    return write.apply(this, args)
  })
  vi.spyOn(ExtentFiles.prototype, 'linkTo').mockImplementation(async function (
    this: ExtentFiles,
    other,
    cid,
  ) {
    if (isIts(other, pinned!)) await fail()
    return linkTo.call(this, other, cid)
  })
}

it.for(['STORE_READ_ONLY', 'STORE_FULL', 'EIO'] as const)(
  'a hot disk that answers %s takes nothing with it',
  async code => {
    await using folder = await temporaryFolder()
    await using store = await filled(folder.path)
    const before = await readAll(store, extents)
    breakWrites('hot', async () => {
      throw code === 'EIO'
        ? Object.assign(new Error('i/o error'), { code })
        : new EdgeError(code, 'the hot disk')
    })
    for (const extent of extents.slice(8, 12)) {
      const admitted = admit(store, extent)
      if (code === 'STORE_FULL') await admitted.catch(() => undefined)
      else await admitted
      if (code !== 'STORE_FULL') expect(store.tierOf(extent.cid)).toBe('warm')
    }
    await store.settled()
    expect(await readAll(store, [pinned!])).toBe(1)
    expect(await readAll(store, extents)).toBeGreaterThanOrEqual(Math.min(before, 4))
    vi.restoreAllMocks()
    await admit(store, extents[13]!)
    expect(await readAll(store, [pinned!, extents[13]!])).toBe(2)
  },
)

it('a warm disk that cannot be written leaves the hot one working, and nothing is lost in a demotion', async () => {
  await using folder = await temporaryFolder()
  await using store = await filled(folder.path)
  const hotOnes = extents.filter(({ cid }) => store.tierOf(cid) === 'hot')
  breakWrites('warm', async () => {
    throw new EdgeError('STORE_READ_ONLY', 'the warm disk')
  })
  for (const extent of extents.slice(8, 11)) await admit(store, extent)
  await store.settled()
  expect(await readAll(store, [...hotOnes, pinned!])).toBeGreaterThanOrEqual(hotOnes.length)
  expect(await readAll(store, extents.slice(8, 11))).toBe(3)
})

it.for(['hot', 'warm'] as const)(
  'a %s disk that vanishes leaves the other one serving, and comes back with what it had',
  async tier => {
    await using folder = await temporaryFolder()
    await using store = await filled(folder.path)
    const there = extents.filter(({ cid }) => store.tierOf(cid) === tier)
    const elsewhere = extents.filter(({ cid }) => ![tier, null].includes(store.tierOf(cid)))
    const path = join(folder.path, tier)
    await rename(path, `${path}.unmounted`)
    await readAll(store, there) // open files may still answer; wrong they never are
    expect(await readAll(store, elsewhere)).toBe(elsewhere.length)
    await rename(`${path}.unmounted`, path)
    await store.settled()
    expect(await readAll(store, there)).toBe(there.length)
  },
)

it('a hot disk that is gone when the node starts is made anew, and the warm tier is served', async () => {
  await using folder = await temporaryFolder()
  let warm: readonly TestExtent[] = []
  {
    await using store = await filled(folder.path)
    warm = extents.filter(({ cid }) => store.tierOf(cid) === 'warm')
  }
  await rename(join(folder.path, 'hot'), join(folder.path, 'lost'))
  await using store = await openTestStore(folder.path, capacities)
  expect(await readAll(store, warm)).toBe(warm.length)
  await store.settled()
  await admit(store, ...others.slice(8, 10))
  expect(await readAll(store, others.slice(8, 10))).toBe(2)
})

it('a slow hot disk delays its writers and nobody else', async () => {
  await using folder = await temporaryFolder()
  await using store = await filled(folder.path)
  let waiting = 0
  const gate = Promise.withResolvers<void>()
  breakWrites('hot', async () => {
    waiting++
    await gate.promise
  })
  const slow = admit(store, extents[9]!)
  await vi.waitFor(() => expect(waiting).toBeGreaterThan(0))
  expect(await readAll(store, extents.slice(0, 8))).toBeGreaterThan(5)
  await store.admitNodes([])
  gate.resolve()
  await slow
  expect(await readAll(store, [extents[9]!])).toBe(1)
})

it('capacities halved at a restart: what must not leave stays, the rest makes room, with the default policy', async () => {
  await using folder = await temporaryFolder()
  const held = extents.slice(0, 2)
  const policy = (capacityBytes: number, hotBytesMax: number) =>
    new LearnedPolicy({ capacityBytes, hotBytesMax, journal: true })
  {
    await using store = await openTestStore(folder.path, { ...capacities, policy })
    await store.hold([held[0]!.cid], 'pinned')
    await store.hold([held[1]!.cid], 'mustHave')
    for (const extent of extents.slice(0, 7)) await admit(store, extent)
    await store.settled()
  }
  await using store = await openTestStore(folder.path, { hotBytesMax: MIB, warmBytesMax: 2 * MIB, policy })
  expect(await readAll(store, held)).toBe(2)
  await store.settled()
  expect(store.usage().extents).toBe(3)
  expect(await readAll(store, held)).toBe(2)
})

it('a clock that goes back a year changes nothing that is kept, and learning goes on', async () => {
  await using folder = await temporaryFolder()
  let nowMs = Date.UTC(2026, 5, 1)
  const options = { hotBytesMax: 3 * MIB, warmBytesMax: 4 * MIB, now: () => nowMs }
  {
    await using store = await openTestStore(folder.path, options)
    await store.hold([pinned!.cid], 'pinned')
    await admit(store, ...extents.slice(0, 6))
    for (const { cid } of extents.slice(0, 6)) store.touch(cid, MIB)
    nowMs -= 365 * 86_400_000
    for (const { cid } of extents.slice(0, 6)) store.touch(cid, MIB)
    await admit(store, extents[6]!)
    await store.settled()
    expect(await readAll(store, extents.slice(0, 7))).toBe(7)
  }
  await using store = await openTestStore(folder.path, options)
  await store.settled()
  expect(await readAll(store, extents.slice(0, 7))).toBe(7)
  await admit(store, ...extents.slice(7, 12))
  expect(store.has(pinned!.cid)).toBe(true)
})
