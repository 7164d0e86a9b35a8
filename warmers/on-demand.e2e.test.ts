import { describe, expect, it } from 'vitest'
import { bytesOf } from '../node/store/testing.ts'
import { extentsOf, readCatalog } from './item-extents.ts'
import { openOnDemand } from './on-demand.ts'
import { openNode, openOrigin, signal, type Files } from './test-world.ts'

const MIB = 1024 * 1024
const FILES: Files = {
  'film.mp4': bytesOf('film', 12 * MIB),
  'other.mp4': bytesOf('other', 5 * MIB),
  'note.txt': 'a note',
}

/** A node that knows the catalog of bulk content and has nothing of it. */
async function world() {
  const stack = new AsyncDisposableStack()
  const origin = stack.use(await openOrigin())
  const server = stack.use(await origin.serve())
  const node = stack.use(await openNode(origin.root))
  await origin.publish('media/films', FILES, { priority: 3 })
  const upstream = node.upstream(server.url)
  await node.fill([upstream], { limits: { priorityMax: 2 } })
  const stop = new AbortController()
  const allowed = { fetch: true }
  const onDemand = openOnDemand({
    ...node.request([upstream]),
    signal: stop.signal,
    open: () =>
      allowed.fetch
        ? { upstreams: [upstream], signal: new AbortController().signal, [Symbol.dispose]() {} }
        : undefined,
  })
  const manifest = node.releases.releases()[0]!.current!
  const entries = await readCatalog(node.store, manifest, { signal })
  const extentsHere = (path: string) => {
    const item = entries.find(entry => entry.path === path)
    if (!item) return []
    const { root, sizeBytes } = item
    return (extentsOf(node.store, root, sizeBytes) ?? []).map(({ cid }) => node.store.has(cid))
  }
  /** Until the item's first extent is here. */
  const bring = (path: string, options = { signal }) =>
    onDemand.bring({ dataset: 'media/films', path, isHere: () => extentsHere(path)[0] === true }, options)
  return {
    bring,
    node,
    upstream,
    server,
    onDemand,
    allowed,
    entries,
    extentsHere,
    stop,
    [Symbol.asyncDispose]: () => stack.disposeAsync(),
  }
}

describe('on demand', () => {
  it('an absent item comes, its beginning first, and nothing else', async () => {
    await using at = await world()
    const before = at.upstream.wire.bytesDown
    await at.bring('film.mp4')
    expect(at.extentsHere('film.mp4')[0]).toBe(true)
    await expect.poll(() => at.extentsHere('film.mp4').every(Boolean), { timeout: 10_000 }).toBe(true)
    expect(at.extentsHere('other.mp4').some(Boolean)).toBe(false)
    expect(at.upstream.wire.bytesDown - before).toBeLessThan(12.2 * MIB)
  })

  it('forty who ask for the same cost one fetch', async () => {
    await using at = await world()
    const before = at.upstream.wire.bytesDown
    await Promise.all(Array.from({ length: 40 }, () => at.bring('other.mp4')))
    await expect.poll(() => at.extentsHere('other.mp4').every(Boolean), { timeout: 10_000 }).toBe(true)
    expect(at.upstream.wire.bytesDown - before).toBeLessThan(5.2 * MIB)
  })

  it('beside a fill of the same nothing is fetched twice', async () => {
    await using at = await world()
    const before = at.upstream.wire.bytesDown
    await Promise.all([at.bring('film.mp4'), at.node.fill([at.upstream])])
    await expect.poll(() => at.extentsHere('film.mp4').every(Boolean), { timeout: 10_000 }).toBe(true)
    expect(at.upstream.wire.bytesDown - before).toBeLessThan(17.3 * MIB)
    await at.node.items('media/films')
  })

  it('many items asked for at once are prepared once', async () => {
    await using at = await world()
    let times = 0
    const missing = at.node.releases.missing.bind(at.node.releases)
    at.node.releases.missing = dataset => {
      times++
      return missing(dataset)
    }
    await Promise.all(['film.mp4', 'other.mp4', 'note.txt'].map(path => at.bring(path)))
    const before = times
    await expect.poll(() => at.extentsHere('film.mp4').every(Boolean), { timeout: 10_000 }).toBe(true)
    expect(times).toBe(before)
    expect(times).toBeLessThan(5)
  })

  it('what was lost since is found missing again', async () => {
    await using at = await world()
    await at.bring('other.mp4')
    await expect.poll(() => at.extentsHere('other.mp4').every(Boolean), { timeout: 10_000 }).toBe(true)
    const other = at.entries.find(({ path }) => path === 'other.mp4')!
    const lost = extentsOf(at.node.store, other.root, other.sizeBytes)!.map(({ cid }) => cid)
    await at.node.store.remove(lost, 'test')
    expect(at.extentsHere('other.mp4')[0]).toBe(false)
    await at.bring('other.mp4')
    expect(at.extentsHere('other.mp4')[0]).toBe(true)
  })

  it('one who leaves does not stop it for the others', async () => {
    await using at = await world()
    const leaving = new AbortController()
    const left = at.bring('film.mp4', { signal: leaving.signal })
    const stays = at.bring('film.mp4')
    leaving.abort(new Error('out of range'))
    await expect(left).rejects.toThrow('out of range')
    await stays
    expect(at.extentsHere('film.mp4')[0]).toBe(true)
  })

  it('says when it may not, or cannot', async () => {
    await using at = await world()
    at.allowed.fetch = false
    await expect(at.bring('film.mp4')).rejects.toMatchObject({
      code: 'ITEM_ABSENT',
    })
    at.allowed.fetch = true
    await expect(at.bring('no such thing')).rejects.toMatchObject({
      code: 'ITEM_ABSENT',
    })
    await at.server[Symbol.asyncDispose]()
    await expect(at.bring('film.mp4')).rejects.toMatchObject({
      code: 'UPSTREAM_UNREACHABLE',
    })
  })
})
