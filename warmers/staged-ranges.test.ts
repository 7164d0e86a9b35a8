import { randomBytes } from 'node:crypto'
import { readdir, stat } from 'node:fs/promises'
import { join } from 'node:path'
import { describe, expect, it } from 'vitest'
import { openStagedRanges, type StagedRanges } from './staged-ranges.ts'
import { temporaryFolder } from './testing.ts'

const path = 'packs/00ff.pack'
const file = randomBytes(1000)

describe('staged ranges', () => {
  it('are found again after a restart, and continued where they ended', async () => {
    await using folder = await temporaryFolder()
    {
      await using staged = await openStagedRanges(folder.path)
      await using a = await staged.append(path, 100)
      await a.write(file.subarray(100, 150))
      await a.write(file.subarray(150, 180))
      // no close: as a kill leaves it
      await expect.poll(() => staged.spans(path)).toEqual([{ offset: 100, length: 80 }])
      await using staged2 = await openStagedRanges(folder.path)
      expect(staged2.spans(path)).toEqual([{ offset: 100, length: 80 }])
    }
    await using staged = await openStagedRanges(folder.path)
    await write(staged, 180, 20, 100)
    await write(staged, 200, 100)
    expect(staged.spans(path)).toEqual([{ offset: 100, length: 200 }])
    expect((await staged.read(path, { offset: 120, length: 150 })).equals(file.subarray(120, 270))).toBe(true)
    expect((await readdir(folder.path)).sort()).toEqual(['packs~00ff.pack@100', 'packs~00ff.pack@200'])
    await expect(staged.read(path, { offset: 90, length: 20 })).rejects.toMatchObject({
      code: 'CHUNK_ABSENT',
    })
  })

  it('are put together from parts, and dropped when used', async () => {
    await using folder = await temporaryFolder()
    await using staged = await openStagedRanges(folder.path)
    for (const offset of [500, 300, 0]) await write(staged, offset, 200)
    expect((await staged.read(path, { offset: 310, length: 380 })).equals(file.subarray(310, 690))).toBe(true)
    await staged.drop(path, [{ offset: 290, length: 300 }])
    expect(staged.spans(path)).toEqual([
      { offset: 0, length: 200 },
      { offset: 500, length: 200 },
    ])
    {
      await using begun = await staged.append(path, 250)
      await staged.drop(path, [{ offset: 240, length: 20 }])
      await begun.write(file.subarray(250, 260))
    }
    expect(staged.spans(path)).toContainEqual({ offset: 250, length: 10 })
    await staged.discard(path, [
      { offset: 259, length: 1 },
      { offset: 690, length: 1 },
    ])
    expect(staged.spans(path)).toEqual([{ offset: 0, length: 200 }])
    await staged.retain(new Set(['deltas/other.delta']))
    expect(staged.spans(path)).toEqual([])
    expect(staged.sizeBytes).toBe(0)
    await staged[Symbol.asyncDispose]()
    expect(await readdir(folder.path)).toEqual([])
  })

  it('are written into files that were used up, unless somebody has these open', async () => {
    await using folder = await temporaryFolder()
    {
      await using staged = await openStagedRanges(folder.path)
      const whole = { offset: 0, length: 1000 }
      await write(staged, 0, 700)
      const used = await inodesOf(folder.path)
      await staged.drop(path, [whole])
      expect(await inodesOf(folder.path)).toEqual(used)
      await write(staged, 500, 200)
      expect(await inodesOf(folder.path)).toEqual(used)
      expect(staged.spans(path)).toEqual([{ offset: 500, length: 200 }])
      const back = await staged.read(path, { offset: 500, length: 200 })
      expect(back.equals(file.subarray(500, 700))).toBe(true)
      {
        await using late = await staged.append(path, 700, 500)
        await staged.drop(path, [whole])
        await write(staged, 0, 300)
        await late.write(file.subarray(700, 800))
      }
      expect(await inodesOf(folder.path)).not.toEqual(used)
      expect((await staged.read(path, { offset: 0, length: 300 })).equals(file.subarray(0, 300))).toBe(true)
      await staged.discard(path, [whole])
    }
    expect(await readdir(folder.path)).toEqual([])
  })

  it('keep what comes faster than the disk writes, in order', async () => {
    await using folder = await temporaryFolder()
    await using staged = await openStagedRanges(folder.path)
    const long = randomBytes(3_000_000)
    {
      await using part = await staged.append(path, 0)
      const pieces = Array.from({ length: 1000 }, (_, n) => long.subarray(n * 3000, n * 3000 + 3000))
      for (const piece of pieces) await part.write(piece)
    }
    expect((await staged.read(path, { offset: 0, length: long.length })).equals(long)).toBe(true)
  })
})

async function write(staged: StagedRanges, offset: number, length: number, begin = offset): Promise<void> {
  await using part = await staged.append(path, offset, begin)
  await part.write(file.subarray(offset, offset + length))
}

async function inodesOf(folder: string): Promise<readonly number[]> {
  const names = await readdir(folder)
  return await Promise.all(names.map(async name => (await stat(join(folder, name))).ino))
}
