import { describe, expect, it } from 'vitest'
import { bytesOf } from '../node/store/testing.ts'
import { extentFromPacks } from './heal-upstream.ts'
import { extentsOf, readCatalog } from './item-extents.ts'
import { openSlowProxy } from './test-proxy.ts'
import { openNode, openOrigin, signal } from './test-world.ts'

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
    const filling = node.fill([upstream], { skipRefresh: true })
    await expect.poll(() => node.staged.sizeBytes, { interval: 5 }).toBeGreaterThan(100_000)

    const [item] = await readCatalog(node.store, node.releases.releases()[0]!.current!, { signal })
    const extents = extentsOf(node.store, item!.root, item!.sizeBytes)!
    const healed = await Promise.all(extents.map(({ cid }) => extentFromPacks(cid, request, { signal })))
    await filling
    expect(Buffer.concat(healed.map(bytes => bytes!)).equals(film)).toBe(true)
    expect(upstream.wire.bytesDown).toBeLessThan(6.1 * MIB)
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
