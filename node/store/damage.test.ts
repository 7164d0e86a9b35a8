import { readdir, readFile, truncate, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { describe, expect, it } from 'vitest'
import { sha256Of } from '../../manifests/digest.ts'
import { admit, openTestStore, temporaryFolder, UNHURRIED, type TestExtent } from './testing.ts'
import { EXTENTS, flip, flipRounds, NEIGHBOUR, readAll } from './testing-damage.ts'

describe('one flipped bit', () => {
  it('anywhere in the store is never served, and costs what it hit: 60 places', {
    timeout: 120_000,
  }, async () => {
    const refused = await flipRounds(60, 'short', (outcomes, where) =>
      expect(outcomes, where).not.toContain('wrong'),
    )
    // a page of the database holds some blocks; only its first page is the way to all of them
    expect(refused.filter(count => count > 10).length).toBeLessThan(6)
  })
})

describe('damage is mended', () => {
  it('chunk by chunk from a heal source, whole when a chunk is not enough', async () => {
    await using folder = await temporaryFolder()
    {
      await using store = await openTestStore(folder.path)
      await admit(store, ...EXTENTS)
    }
    const damaged = EXTENTS.slice(-5)
    for (const [number, extent] of damaged.entries()) {
      const path = pathOf(folder.path, extent)
      if (number === 0) await truncate(path, 10)
      else await flip(path, 70_000 * number)
    }
    await using store = await openTestStore(folder.path, { healMs: 5000 })
    expect((await readAll(store)).filter(outcome => outcome === 'refused')).toHaveLength(5)
    expect(store.usage().quarantined).toBe(5)
    store.onHeal({ name: 'dead', fetchChunk: () => Promise.reject(new Error('no route')) })
    store.onHeal({
      name: 'liar',
      fetchChunk: async () => Buffer.from('anything'),
      fetchExtent: async () => Buffer.alloc(9),
    })
    store.onHeal(NEIGHBOUR)
    const progress = []
    for await (const step of store.verify({ ...UNHURRIED, heal: true })) progress.push(step)
    expect(progress.at(-1)).toMatchObject({ extents: EXTENTS.length, damaged: 5, healed: 5 })
    expect(await readAll(store)).toEqual(EXTENTS.map(() => 'right'))
    expect(store.usage()).toMatchObject({ quarantined: 0, healed: 5 })
    expect(store.events(100).filter(({ what }) => what === 'healed')[0]).toMatchObject({
      why: 'from neighbour',
    })
  })

  it('answers those who wait from one flight, within the time given', async () => {
    await using folder = await temporaryFolder()
    await using store = await openTestStore(folder.path, { healMs: 300 })
    const extent = EXTENTS.at(-1)!
    await admit(store, extent)
    await flip(pathOf(folder.path, extent), 200_000)
    const view = store.view(extent.cid)!
    const link = view.linkAt(200_000)
    const chunk = { digest: view.digestAt(link), sizeBytes: view.sizeOf(link) }
    const offset = view.startOf(link)
    expect(() => store.readChunkInto(extent.cid, offset, chunk, Buffer.alloc(chunk.sizeBytes))).toThrow(
      expect.objectContaining({ code: 'CHUNK_CORRUPT' }),
    )
    let asked = 0
    store.onHeal({ name: 'hangs', fetchChunk: () => new Promise(() => asked++) })
    const began = performance.now()
    const healing = [1, 2, 3].map(() => store.healChunk(extent.cid, offset, chunk, UNHURRIED))
    for (const outcome of await Promise.allSettled(healing)) {
      expect(outcome).toMatchObject({ status: 'rejected', reason: { code: 'CHUNK_ABSENT' } })
    }
    expect(performance.now() - began).toBeLessThan(1500)
    expect(asked).toBe(1)

    const gone = new AbortController()
    const leaver = store.healChunk(extent.cid, offset, chunk, gone)
    gone.abort(new Error('walked away'))
    await expect(leaver).rejects.toThrow('walked away')
    // the other chunks of a damaged extent are served all along
    const first = { digest: view.digestAt(0), sizeBytes: view.sizeOf(0) }
    store.readChunkInto(extent.cid, 0, first, Buffer.alloc(first.sizeBytes))
  })
})

describe('a damaged database', () => {
  it('is set aside and made again while everything is served', async () => {
    await using folder = await temporaryFolder()
    {
      await using store = await openTestStore(folder.path)
      await admit(store, ...EXTENTS)
    }
    const path = join(folder.path, 'node.db')
    const bytes = await readFile(path)
    // the middle of the file: some pages of some tables
    bytes.fill(0x55, bytes.length >> 1, (bytes.length >> 1) + 20_000)
    await writeFile(path, bytes)
    await using store = await openTestStore(folder.path)
    const files = EXTENTS.filter(({ bytes: content }) => content.length > 32 * 1024)
    for (const { cid, bytes: content } of files) {
      expect((await store.readExtent(cid, UNHURRIED)).equals(content)).toBe(true)
    }
    await store.settled()
    const outcomes = await readAll(store)
    expect(outcomes).not.toContain('wrong')
    expect(outcomes.filter(outcome => outcome === 'right').length).toBeGreaterThan(EXTENTS.length / 2)
    await admit(store, ...EXTENTS)
    expect(await readAll(store)).toEqual(EXTENTS.map(() => 'right'))
  })

  it('of noise, or none at all, costs the small blocks and nothing else', async () => {
    for (const noise of [Buffer.alloc(50_000, 'noise'), Buffer.alloc(0), Buffer.from('SQLite format 3\0')]) {
      await using folder = await temporaryFolder()
      {
        await using store = await openTestStore(folder.path)
        await admit(store, ...EXTENTS)
      }
      await writeFile(join(folder.path, 'node.db'), noise)
      await using store = await openTestStore(folder.path)
      await store.settled()
      for (const { cid, bytes } of EXTENTS.filter(({ bytes: content }) => content.length > 32 * 1024)) {
        expect((await store.readExtent(cid, UNHURRIED)).equals(bytes)).toBe(true)
      }
      const leftovers = (await readdir(folder.path)).filter(name => name.includes('damaged'))
      expect(leftovers).toEqual([])
    }
  })
})

function pathOf(folder: string, { cid, extent, node }: TestExtent): string {
  const digest = node ? sha256Of(node.bytes) : extent.chunks[0]!.digest
  return join(folder, 'hot', 'extents-v1', digest.slice(0, 2), cid)
}
