/**
 * What every `RepositoryStorage` must do; each implementation runs this in its tests.
 */
import { expect, it } from 'vitest'
import { sha256Of, type Sha256 } from '../digest.ts'
import type { RepositoryStorage } from './storage.ts'

const PATH = 'packs/one.pack'
const digestPath = (sha256: Sha256) => `packs/${sha256}.pack`

/** @param open an empty repository; another call with the same `place` opens the same one again. */
export function storageContract(
  open: (place?: string) => Promise<AsyncDisposable & { storage: RepositoryStorage; place: string }>,
): void {
  it('gives back what was written, whole or in ranges', async () => {
    await using opened = await open()
    const { storage } = opened
    const bytes = Buffer.from('0123456789')
    await storage.write(PATH, bytes)
    expect(await storage.size(PATH)).toBe(10)
    expect(Buffer.from((await storage.read(PATH))!)).toEqual(bytes)
    expect(Buffer.from((await storage.read(PATH, { offset: 3, length: 4 }))!).toString()).toBe('3456')
    expect(Buffer.from((await storage.read(PATH, { offset: 8, length: 4 }))!).toString()).toBe('89')
    await storage.write(PATH, Buffer.from('other'))
    expect(Buffer.from((await storage.read(PATH))!).toString()).toBe('other')
  })

  it('has nothing that was not written', async () => {
    await using opened = await open()
    const { storage } = opened
    expect(await storage.read(PATH)).toBeUndefined()
    expect(await storage.read(PATH, { offset: 0, length: 1 })).toBeUndefined()
    expect(await storage.size(PATH)).toBeUndefined()
    expect(await storage.list('packs/')).toEqual([])
    await storage.remove(PATH)
  })

  it('writes an empty file', async () => {
    await using opened = await open()
    await opened.storage.write(PATH, new Uint8Array())
    expect(await opened.storage.size(PATH)).toBe(0)
    expect((await opened.storage.read(PATH))!).toHaveLength(0)
  })

  it('lets one of several writers make a file that must be new', async () => {
    await using opened = await open()
    const { storage } = opened
    const results = await Promise.allSettled(
      ['a', 'b', 'c'].map(text => storage.write(PATH, Buffer.from(text), { ifAbsent: true })),
    )
    expect(results.map(({ status }) => status).sort()).toEqual(['fulfilled', 'rejected', 'rejected'])
    for (const result of results)
      if (result.status === 'rejected') expect(result.reason).toMatchObject({ code: 'PUBLISH_CONFLICT' })
    const winner = ['a', 'b', 'c'][results.findIndex(({ status }) => status === 'fulfilled')]
    expect(Buffer.from((await storage.read(PATH))!).toString()).toBe(winner)
  })

  it('names a file by what came', async () => {
    await using opened = await open()
    const { storage } = opened
    const parts = [Buffer.from('first '), Buffer.alloc(100_000, 'x'), Buffer.alloc(0)]
    const whole = Buffer.concat(parts)
    const pieces = async function* () {
      yield* parts
    }
    expect(await storage.add(digestPath, pieces())).toEqual({
      sha256: sha256Of(whole),
      sizeBytes: whole.length,
    })
    expect(Buffer.from((await storage.read(digestPath(sha256Of(whole))))!)).toEqual(whole)
    await storage.add(digestPath, pieces())
    expect(await storage.list('packs/')).toEqual([digestPath(sha256Of(whole))])
  })

  it('keeps nothing of a file whose bytes did not all come', async () => {
    await using opened = await open()
    const failing = async function* () {
      yield Buffer.from('half')
      throw new Error('the other half is lost')
    }
    await expect(opened.storage.add(digestPath, failing())).rejects.toThrow('the other half is lost')
    expect(await opened.storage.list('packs/')).toEqual([])
  })

  it('lists what is beneath a folder, sorted, and forgets what is removed', async () => {
    await using opened = await open()
    const { storage } = opened
    const paths = [
      'targets/a/b/2.manifest.json',
      'targets/a/b/1.manifest.json',
      'targets/c/d/3.manifest.json',
      'packs/x.pack',
    ]
    for (const path of paths) await storage.write(path, Buffer.from(path))
    expect(await storage.list('targets/')).toEqual(paths.slice(0, 3).sort())
    expect(await storage.list('targets/a/b/')).toEqual(paths.slice(0, 2).sort())
    await storage.remove(paths[0]!)
    expect(await storage.list('targets/a/b/')).toEqual([paths[1]])
    expect(await storage.read(paths[0]!)).toBeUndefined()
  })

  it('is held by one publisher at a time', async () => {
    await using opened = await open()
    await using again = await open(opened.place)
    {
      await using _held = await opened.storage.lock()
      await expect(again.storage.lock()).rejects.toMatchObject({ code: 'PUBLISH_CONFLICT' })
    }
    await using _next = await again.storage.lock()
  })
}
