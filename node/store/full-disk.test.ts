import { execFileSync } from 'node:child_process'
import { readdirSync, rmSync, statfsSync, writeFileSync } from 'node:fs'
import { mkdir } from 'node:fs/promises'
import { join } from 'node:path'
import { describe, expect, it } from 'vitest'
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

const DISK_BYTES = 32 * MIB
const options = { hotBytesMax: 64 * MIB, warmBytesMax: 64 * MIB, reserveBytes: 6 * MIB }
const mayMount = process.getuid?.() === 0 && process.platform === 'linux'

/** A small file system of its own; only root can mount one. */
async function smallDisk(): Promise<AsyncDisposable & { readonly path: string }> {
  const folder = await temporaryFolder()
  const path = join(folder.path, 'disk')
  await mkdir(path)
  execFileSync('mount', ['-t', 'tmpfs', '-o', `size=${DISK_BYTES}`, 'tmpfs', path])
  return {
    path,
    async [Symbol.asyncDispose]() {
      execFileSync('umount', [path])
      await folder[Symbol.asyncDispose]()
    },
  }
}

function freeBytes(path: string): number {
  const { bavail, bsize } = statfsSync(path)
  return bavail * bsize
}

let hogs = 0

/** Takes all space but `left` bytes. */
function hog(path: string, left: number): void {
  writeFileSync(join(path, `hog-${hogs++}`), Buffer.alloc(Math.max(0, freeBytes(path) - left)))
}

async function present(store: ContentStore, extents: readonly TestExtent[]): Promise<number> {
  let count = 0
  for (const { cid, bytes } of extents) {
    if (!store.has(cid)) continue
    expect((await store.readExtent(cid, UNHURRIED)).equals(bytes)).toBe(true)
    count++
  }
  return count
}

describe.skipIf(!mayMount)('a disk smaller than the capacities', () => {
  const extents = Array.from({ length: 50 }, (_, seed) => extentFor(`full ${seed}`, MIB))

  it('is used up to the reserve, and never filled (I7)', async () => {
    await using disk = await smallDisk()
    await using store = await openTestStore(disk.path, options)
    for (const extent of extents) {
      await admit(store, extent)
      expect(freeBytes(disk.path)).toBeGreaterThan(2 * MIB)
    }
    await store.settled()
    const here = await present(store, extents)
    expect(here).toBeGreaterThan(15)
    expect(here).toBeLessThan(26)
    expect(store.has(extents.at(-1)!.cid)).toBe(true)
  })

  it('that somebody else fills: everything held is served, the node starts, and goes on once there is room', {
    timeout: 60_000,
  }, async () => {
    await using disk = await smallDisk()
    const held = extents.slice(0, 12)
    {
      await using store = await openTestStore(disk.path, options)
      await store.hold(
        held.map(({ cid }) => cid),
        'pinned',
      )
      await admit(store, ...held)
      await store.settled()
      hog(disk.path, 0)
      expect(freeBytes(disk.path)).toBe(0)
      await expect(admit(store, extents[20]!)).rejects.toMatchObject({ code: 'STORE_FULL' })
      expect(await present(store, held)).toBe(held.length)
    }
    {
      hog(disk.path, 0)
      await using store = await openTestStore(disk.path, options)
      await store.settled()
      expect(await present(store, held)).toBe(held.length)
      await expect(store.reserve(1000, 'a fill')).rejects.toMatchObject({ code: 'STORE_FULL' })
      for (const name of readdirSync(disk.path)) if (name.startsWith('hog')) rmSync(join(disk.path, name))
      await admit(store, extents[20]!)
      expect(await present(store, extents.slice(0, 21))).toBe(13)
    }
    expect(readdirSync(join(disk.path, 'hot', 'drafts'))).toEqual([])
    expect(readdirSync(join(disk.path, 'warm', 'drafts'))).toEqual([])
  })

  it('gives space back that others need, as long as it has some to give', async () => {
    await using disk = await smallDisk()
    await using store = await openTestStore(disk.path, options)
    await admit(store, ...extents.slice(0, 15))
    hog(disk.path, MIB)
    await expect
      .poll(async () => (await present(store, extents)) < 12 && freeBytes(disk.path) > 5 * MIB, {
        timeout: 10_000,
        interval: 200,
      })
      .toBe(true)
  })

  it('that cannot be written says what to do', async () => {
    await using disk = await smallDisk()
    await (await openTestStore(disk.path, options))[Symbol.asyncDispose]()
    execFileSync('mount', ['-o', 'remount,ro', disk.path])
    await expect(openTestStore(disk.path, options)).rejects.toMatchObject({
      code: 'STORE_READ_ONLY',
      message: expect.stringContaining('write access'),
    })
  })
})
