import { describe, expect, it } from 'vitest'
import type { Cid } from '../manifests/cid.ts'
import { bytesOf } from '../node/store/testing.ts'
import { extentFromPacks } from './heal-upstream.ts'
import { extentsOf, readCatalog } from './item-extents.ts'
import { openSlowProxy } from './test-proxy.ts'
import { openNode, openOrigin, signal, type TestNode } from './test-world.ts'
import { repeatedBytes } from './testing.ts'

const MIB = 1024 * 1024
const film = bytesOf('film', 6 * MIB)

describe('a heal from the upstream', () => {
  it('beside a fill that has the same bundle under way pays for nothing twice', async () => {
    await using origin = await openOrigin()
    await using server = await origin.serve()
    await using node = await openNode(origin.root)
    await origin.publish('media/films', { 'film.mp4': film }, { priority: 3 })
    await node.fill([node.upstream(server.url)], { limits: { priorityMax: 2 } })
    await using proxy = await openSlowProxy(server.url, { delayMs: 5, bytesPerSecond: 3 * MIB })
    const upstream = node.upstream(proxy.url, { connectionsMax: 4 })
    const request = node.request([upstream])
    const before = server.requests.length
    const filling = node.fill([upstream], { skipRefresh: true })
    await expect.poll(() => node.staged.sizeBytes, { interval: 5 }).toBeGreaterThan(100_000)

    const [item] = await readCatalog(node.store, node.releases.releases()[0]!.current!, { signal })
    const extents = extentsOf(node.store, item!.root, item!.sizeBytes)!
    const healed = await Promise.all(extents.map(({ cid }) => extentFromPacks(cid, request, { signal })))
    await filling
    expect(Buffer.concat(healed.map(bytes => bytes!)).equals(film)).toBe(true)
    expect(upstream.wire.bytesDown).toBeLessThan(6.1 * MIB)
    expect(repeatedBytes(server.requests.slice(before))).toBe(0)
  })

  it('of many items in one frame, beside a fill of others, takes the frame once', async () => {
    await using origin = await openOrigin()
    await using server = await origin.serve()
    await using node = await openNode(origin.root)
    const names = Array.from({ length: 24 }, (_, n) => `notes/${n}.bin`)
    await origin.publish('media/notes', Object.fromEntries(names.map(name => [name, bytesOf(name, 100_000)])))
    await node.fill([node.upstream(server.url)])
    const cids = await cidsOf(node)
    await node.store.remove(cids.slice(12), 'test')
    await using proxy = await openSlowProxy(server.url, { delayMs: 5, bytesPerSecond: 3 * MIB })
    const upstream = node.upstream(proxy.url, { connectionsMax: 4 })
    const request = node.request([upstream])
    const before = server.requests.length
    const filling = node.fill([upstream], { skipRefresh: true })
    const heal = (some: readonly Cid[]) =>
      Promise.all(some.map(cid => extentFromPacks(cid, request, { signal })))
    const healed = heal(cids.slice(0, 6)) // before the fill has begun
    await expect.poll(() => node.staged.sizeBytes, { interval: 5 }).toBeGreaterThan(100_000)
    const later = heal(cids.slice(6, 12))
    expect((await filling).at(-1)).toMatchObject({ complete: true })
    for (const bytes of [...(await healed), ...(await later)]) expect(bytes).toHaveLength(100_000)
    const requests = server.requests.slice(before)
    expect(requests.length).toBeGreaterThan(5)
    expect(repeatedBytes(requests)).toBe(0)
    // one after another, too
    const asked = server.requests.length
    for (const cid of cids.slice(12, 18)) await extentFromPacks(cid, request, { signal })
    expect(repeatedBytes(server.requests.slice(asked))).toBe(0)
    await node.fill([upstream], { skipRefresh: true })
    expect(node.staged.sizeBytes).toBe(0)
  })

  it('that comes wrong is refused, and the next one does not believe it either', async () => {
    await using origin = await openOrigin()
    let isWrong = false
    await using server = await origin.serve(honest => async (request, response) => {
      const end = response.end.bind(response)
      response.end = ((bytes: unknown) =>
        end(
          isWrong && request.url!.includes('/packs/') ? Buffer.alloc((bytes as Buffer).length) : bytes,
        )) as typeof end
      await honest(request, response)
    })
    await using node = await openNode(origin.root)
    await origin.publish('media/films', { 'film.mp4': film })
    await node.fill([node.upstream(server.url)])
    const [cid] = await cidsOf(node)
    const heal = () => extentFromPacks(cid!, node.request([node.upstream(server.url)]), { signal })
    isWrong = true
    await expect(heal()).rejects.toMatchObject({ code: 'CHUNK_CORRUPT' })
    isWrong = false
    expect(film.subarray(0, 1000).equals((await heal())!.subarray(0, 1000))).toBe(true)
  })

  it('brings one frame, and is accounted for as a heal', async () => {
    await using origin = await openOrigin()
    await using server = await origin.serve()
    await using node = await openNode(origin.root)
    await origin.publish('media/films', { 'film.mp4': film })
    const upstream = node.upstream(server.url)
    await node.fill([upstream])
    const before = upstream.wire.bytesDown
    const [item] = await readCatalog(node.store, node.releases.releases()[0]!.current!, { signal })
    const [first] = extentsOf(node.store, item!.root, item!.sizeBytes)!
    const bytes = await extentFromPacks(first!.cid, node.request([upstream]), { signal })
    expect(film.subarray(0, first!.sizeBytes).equals(bytes!)).toBe(true)
    expect(upstream.wire.bytesDown - before).toBeLessThan(first!.sizeBytes + 20_000)
    expect(node.records.some(({ reason }) => reason === 'heal')).toBe(true)
  })
})

async function cidsOf({ store, releases }: TestNode): Promise<Cid[]> {
  const entries = await readCatalog(store, releases.releases()[0]!.current!, { signal })
  return entries.flatMap(({ root, sizeBytes }) => extentsOf(store, root, sizeBytes)!.map(({ cid }) => cid))
}
