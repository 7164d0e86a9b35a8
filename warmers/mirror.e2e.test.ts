import { readdir, readFile, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { pathToFileURL } from 'node:url'
import { expect, it, vi } from 'vitest'
import { sha256Of } from '../manifests/digest.ts'
import type { Manifest } from '../manifests/manifest.ts'
import { noise } from '../manifests/testing/memory-item.ts'
import { packView } from '../node/pack-view.ts'
import { openFileUpstream } from './file-upstream.ts'
import { extentFromPacks } from './heal-upstream.ts'
import { extentsOf, readCatalog } from './item-extents.ts'
import { fillMirror } from './mirror.ts'
import { planMirror } from './mirror-plan.ts'
import { openOnDemand } from './on-demand.ts'
import { openRangeMemory } from './range-memory.ts'
import { openSlowProxy } from './test-proxy.ts'
import { wantedWhole } from './shared-staging.ts'
import { openNode, openOrigin, serveCopy, signal } from './test-world.ts'
import { repeatedBytes } from './testing.ts'

const book = noise(6_000_000, 1)
const edited = Buffer.concat([
  book.subarray(0, 3_000_000),
  Buffer.from('new words'),
  book.subarray(3_000_000),
])

it('keeps packs and deltas byte for byte, and another tower fills from it', async () => {
  await using origin = await openOrigin()
  await using hub = await openNode(origin.root)
  await using server = await origin.serve()
  const repository = join(hub.folder, 'repository')
  const options = { folder: repository, reserveBytes: 0 }
  const fillHub = () => Array.fromAsync(fillMirror(hub.request([hub.upstream(server.url)]), options))

  await origin.publish('education/book', { 'book.bin': book, 'a.txt': 'a' })
  await fillHub()
  await origin.publish('education/book', { 'book.bin': edited, 'a.txt': 'a' })
  const events = await fillHub()
  expect(events.at(-1)).toMatchObject({ type: 'done', complete: true })
  for (const folder of ['packs', 'deltas']) {
    const names = (await readdir(join(origin.folder, folder))).sort()
    expect((await readdir(join(repository, folder))).sort()).toEqual(names)
    for (const name of names) {
      expect(sha256Of(await readFile(join(repository, folder, name)))).toBe(name.slice(0, 64))
    }
  }

  await using hubServer = await serveCopy(hub, repository)
  await using tower = await openNode(origin.root)
  expect((await tower.fill([tower.upstream(hubServer.url)])).at(-1)).toMatchObject({
    type: 'done',
    complete: true,
  })
  expect((await tower.items('education/book'))['book.bin']?.equals(edited)).toBe(true)
})

it.each([
  ['with ranges', true],
  ['without', false],
])(
  'takes what its plan says from a server %s: a first fill, an update, and what a cut left',
  async (_, ranges) => {
    await using origin = await openOrigin()
    await using hub = await openNode(origin.root)
    let isCut = false
    await using server = await origin.serve(honest => async (request, response) => {
      if (!ranges) delete request.headers.range
      if (isCut && /^bytes=1\d{6}-/.test(request.headers.range ?? '')) {
        await vi.waitUntil(() => hub.staged.sizeBytes > 500_000)
        return void response.destroy()
      }
      return honest(request, response)
    })
    const folder = join(hub.folder, 'repository')
    const open = () => {
      const rangeMemory = openRangeMemory(join(hub.folder, 'upstreams.json'))
      return hub.request([hub.upstream(server.url)], { rangeMemory })
    }
    const planAndFill = async () => {
      const { wire, contentBytes, spent } = await planMirror(open(), { folder })
      const events = await Array.fromAsync(fillMirror(open(), { folder, reserveBytes: 0 }))
      expect(events.at(-1)).toMatchObject({ type: 'done', complete: true, contentBytes, wire })
      return wire.down + spent.down
    }
    const sizeOf = ({ packs, deltas }: Manifest) =>
      [...packs, ...deltas].reduce((bytes, { size }) => bytes + size, 0)

    const first = await origin.publish('education/book', { 'book.bin': book, 'a.txt': 'a' })
    const firstBytes = await planAndFill()
    expect(firstBytes).toBeGreaterThan(sizeOf(first.manifest))
    // without ranges the first answer was cut
    expect(firstBytes).toBeLessThan(sizeOf(first.manifest) + (ranges ? 20_000 : 500_000))
    const second = await origin.publish('education/book', { 'book.bin': edited, 'a.txt': 'a' })
    expect(await planAndFill()).toBeLessThan(sizeOf(second.manifest) + 20_000)
    if (!ranges) return

    const third = await origin.publish('education/book', { 'book.bin': noise(2_500_000, 9), 'a.txt': 'a' })
    isCut = true
    await expect(Array.fromAsync(fillMirror(open(), { folder, reserveBytes: 0 }))).rejects.toMatchObject({
      code: 'UPSTREAM_UNREACHABLE',
    })
    isCut = false
    expect(hub.staged.sizeBytes).toBeGreaterThan(500_000)
    expect(await planAndFill()).toBeLessThan(sizeOf(third.manifest) - 500_000)
  },
)

it('a damaged copy is never passed on', async () => {
  await using origin = await openOrigin()
  await using hub = await openNode(origin.root)
  await using server = await origin.serve()
  const repository = join(hub.folder, 'repository')
  await origin.publish('education/book', { 'book.bin': book })
  await Array.fromAsync(
    fillMirror(hub.request([hub.upstream(server.url)]), {
      folder: repository,
      reserveBytes: 0,
    }),
  )
  const [name = ''] = await readdir(join(repository, 'packs'))
  const pack = await readFile(join(repository, 'packs', name))
  pack[1_000_000] = (pack[1_000_000] ?? 0) ^ 1
  await writeFile(join(repository, 'packs', name), pack)
  const read = packView(repository).read(`packs/${name}`, { offset: 0, length: pack.length }, { signal })
  await expect(read).rejects.toMatchObject({ code: 'CHUNK_CORRUPT' })
})

it('beside readers and heals of the same release no byte is fetched twice', async () => {
  await using origin = await openOrigin()
  await using server = await origin.serve()
  await using hub = await openNode(origin.root)
  const films = { 'a.mp4': noise(5_000_000, 2), 'b.mp4': noise(4_000_000, 3), 'note.txt': 'a note' }
  const { manifest } = await origin.publish('media/films', films, { priority: 3 })
  // the catalog and the directories come before: a reader may ask at once
  await hub.fill([hub.upstream(server.url)], { limits: { priorityMax: 2 } })
  await using proxy = await openSlowProxy(server.url, { delayMs: 5, bytesPerSecond: 4_000_000 })
  const upstream = hub.upstream(proxy.url)
  const request = hub.request([upstream])
  const folder = join(hub.folder, 'repository')
  const own = openFileUpstream(pathToFileURL(`${folder}/`), () => undefined)
  const window = { upstreams: [own, upstream], signal, [Symbol.dispose]() {} }
  const onDemand = openOnDemand({ ...request, signal, open: () => window })
  const entries = await readCatalog(hub.store, manifest, { signal })
  const cidsOf = (path: string) => {
    const { root, sizeBytes } = entries.find(entry => entry.path === path)!
    return extentsOf(hub.store, root, sizeBytes)!.map(({ cid }) => cid)
  }
  const isHere = (path: string) => cidsOf(path).every(cid => hub.store.has(cid))
  const bring = (path: string) =>
    onDemand.bring({ dataset: 'media/films', path, isHere: () => isHere(path) }, { signal })

  const before = server.requests.length
  const mirroring = Array.fromAsync(fillMirror(request, { folder, reserveBytes: 0 }))
  const reading = bring('b.mp4')
  await expect.poll(() => hub.staged.sizeBytes, { interval: 5 }).toBeGreaterThan(500_000)
  const healing = Promise.all(
    cidsOf('a.mp4').map(cid => extentFromPacks(cid, { ...request, upstreams: [own, upstream] }, { signal })),
  )
  await reading
  const healed = await healing
  expect(Buffer.concat(healed.map(bytes => bytes!)).equals(films['a.mp4'])).toBe(true)
  expect((await mirroring).at(-1)).toMatchObject({ type: 'done', complete: true })

  const requests = server.requests.slice(before)
  expect(requests.length).toBeGreaterThan(20)
  expect(repeatedBytes(requests)).toBe(0)
  const fileBytes = [...manifest.packs, ...manifest.deltas].reduce((sum, { size }) => sum + size, 0)
  expect(upstream.wire.bytesDown).toBeLessThan(fileBytes + 300 * requests.length + 2000)
  expect(await hub.items('media/films')).toMatchObject({ 'a.mp4': films['a.mp4'], 'b.mp4': films['b.mp4'] })
  expect(hub.staged.sizeBytes).toBe(0)
})

it('without room is refused beforehand, with the shortfall, and nothing is kept for it', async () => {
  await using origin = await openOrigin()
  await using server = await origin.serve()
  await using hub = await openNode(origin.root)
  await origin.publish('education/book', { 'book.bin': noise(500_000, 4) })
  const options = { folder: join(hub.folder, 'repository'), reserveBytes: 1e15 }
  const before = server.requests.length
  const filling = Array.fromAsync(fillMirror(hub.request([hub.upstream(server.url)]), options))
  await expect(filling).rejects.toMatchObject({
    code: 'STORE_FULL',
    message: expect.stringMatching(/\d+ bytes short/) as string,
  })
  expect(server.requests.slice(before).filter(request => request.includes('packs'))).toEqual([])
  expect(wantedWhole(hub.staged).size).toBe(0)
})
