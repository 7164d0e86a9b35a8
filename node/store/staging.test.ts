import { appendFile, readdir, readFile, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { describe, expect, it } from 'vitest'
import { Staging } from './staging.ts'
import { bytesOf, temporaryFolder } from './testing.ts'

const key = 'packs/abc.pack@1048576'

describe('a staged part', () => {
  it('grows, is read, and goes', async () => {
    await using folder = await temporaryFolder()
    const staging = new Staging(join(folder.path, 'staging'))
    const part = staging.part(key)
    expect(await part.sizeBytes()).toBe(0)
    const pieces = [bytesOf(1, 1000), bytesOf(2, 70_000), bytesOf(3, 1)]
    await Promise.all(pieces.map(piece => part.append(piece)))
    const whole = Buffer.concat(pieces)
    expect(await part.sizeBytes()).toBe(whole.length)
    expect(await part.read(0, whole.length)).toEqual(whole)
    expect(await part.read(999, 5)).toEqual(whole.subarray(999, 1004))
    expect(await part.read(whole.length - 1, 100)).toEqual(whole.subarray(-1))
    expect(staging.part(key)).toBe(part)
    await part.discard()
    expect(await staging.part(key).sizeBytes()).toBe(0)
    expect(await staging.usedBytes()).toBe(0)
    await staging.close()
  })

  it('is there again for another process of the same boot, all of it', async () => {
    await using folder = await temporaryFolder()
    const killed = new Staging(folder.path)
    await killed.part(key).append(bytesOf(1, 5000))
    // not closed: the process was killed
    const staging = new Staging(folder.path)
    expect(await staging.part(key).sizeBytes()).toBe(5000)
    expect(await staging.part(key).read(0, 5000)).toEqual(bytesOf(1, 5000))
    await Promise.all([staging.close(), killed.close()])
  })

  it('counts only as far as it was synced after a power cut', async () => {
    await using folder = await temporaryFolder()
    const staging = new Staging(folder.path)
    await staging.part(key).append(bytesOf(1, 5000))
    await staging.close()
    const [file] = (await readdir(folder.path)).filter(name => !name.endsWith('.synced'))
    const path = join(folder.path, file!)
    const [, size] = (await readFile(`${path}.synced`, 'latin1')).split(' ')
    expect(Number(size)).toBe(5000)
    // another boot, and a tail that never reached the disk
    await writeFile(`${path}.synced`, `another-boot ${size}`)
    await appendFile(path, Buffer.alloc(3000))

    const after = new Staging(folder.path)
    expect(await after.part(key).sizeBytes()).toBe(5000)
    await after.part(key).append(Buffer.from('more'))
    expect((await after.part(key).read(4998, 6)).subarray(2).toString()).toBe('more')
    await after.close()
  })

  it('that nobody wants any more is swept', async () => {
    await using folder = await temporaryFolder()
    const staging = new Staging(folder.path)
    await staging.part(key).append(bytesOf(1, 5000))
    await staging.close()
    expect(await staging.prune(Date.now(), 60_000)).toBe(0)
    expect(await staging.prune(Date.now() + 120_000, 60_000)).toBeGreaterThanOrEqual(5000)
    expect(await readdir(folder.path)).toEqual([])
  })
})
