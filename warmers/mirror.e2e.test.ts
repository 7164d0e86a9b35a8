import { readdir, readFile, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { expect, it } from 'vitest'
import { sha256Of } from '../manifests/digest.ts'
import { noise } from '../manifests/testing/memory-item.ts'
import { packView } from '../node/pack-view.ts'
import { joinedRepoView, trustRepoView } from '../node/repo-view.ts'
import { fillMirror } from './mirror.ts'
import { openNode, openOrigin, signal } from './test-world.ts'
import { serve, staticFiles } from './testing.ts'

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
  const options = { folder: repository, partsFolder: join(hub.folder, 'parts'), reserveBytes: 0 }
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

  const view = joinedRepoView(trustRepoView(hub.trust), packView(repository))
  await using hubServer = await serve(
    staticFiles(async path => {
      const size = await view.size(path)
      const bytes =
        size === undefined ? undefined : await view.read(path, { offset: 0, length: size }, { signal })
      return bytes && Buffer.from(bytes)
    }),
  )
  await using tower = await openNode(origin.root)
  expect((await tower.fill([tower.upstream(hubServer.url)])).at(-1)).toMatchObject({
    type: 'done',
    complete: true,
  })
  expect((await tower.items('education/book'))['book.bin']?.equals(edited)).toBe(true)
})

it('a damaged copy is never passed on', async () => {
  await using origin = await openOrigin()
  await using hub = await openNode(origin.root)
  await using server = await origin.serve()
  const repository = join(hub.folder, 'repository')
  await origin.publish('education/book', { 'book.bin': book })
  await Array.fromAsync(
    fillMirror(hub.request([hub.upstream(server.url)]), {
      folder: repository,
      partsFolder: join(hub.folder, 'parts'),
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
