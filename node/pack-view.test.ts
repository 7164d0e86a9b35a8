import { mkdir, mkdtempDisposable, readFile, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import fc from 'fast-check'
import { expect, it } from 'vitest'
import { sha256Of } from '../manifests/digest.ts'
import { packPath } from '../manifests/manifest.ts'
import { noise } from '../manifests/testing/memory-item.ts'
import { packView } from './pack-view.ts'

const options = { signal: new AbortController().signal }
const pack = noise(3_500_000, 1)
const path = packPath(sha256Of(pack))

async function withPack() {
  const folder = await mkdtempDisposable(join(tmpdir(), 'tower-packs-'))
  await mkdir(join(folder.path, 'packs'))
  await writeFile(join(folder.path, path), pack)
  return {
    folder,
    file: join(folder.path, path),
    view: packView(folder.path),
    [Symbol.asyncDispose]: () => folder.remove(),
  }
}

it('gives any range of a pack', async () => {
  await using at = await withPack()
  expect(await at.view.size(path)).toBe(pack.length)
  const someRange = fc.tuple(fc.nat(pack.length - 1), fc.nat(2_000_000))
  await fc.assert(
    fc.asyncProperty(someRange, async ([offset, length]) => {
      const wanted = pack.subarray(offset, offset + length)
      const got = await at.view.read(path, { offset, length: wanted.length }, options)
      expect(wanted.equals(got ?? Buffer.alloc(0))).toBe(true)
    }),
    { numRuns: 50 },
  )
})

it('never gives a damaged byte, whether it was damaged before the first read or after', async () => {
  await using at = await withPack()
  await at.view.read(path, { offset: 0, length: 10 }, options)
  const bytes = await readFile(at.file)
  bytes[2_000_000] = (bytes[2_000_000] ?? 0) ^ 4
  await writeFile(at.file, bytes)
  const damaged = at.view.read(path, { offset: 1_900_000, length: 200_000 }, options)
  await expect(damaged).rejects.toMatchObject({ code: 'CHUNK_CORRUPT' })
  const anew = packView(at.folder.path).read(path, { offset: 0, length: 10 }, options)
  await expect(anew).rejects.toMatchObject({ code: 'CHUNK_CORRUPT' })
})

it('shows packs, deltas and manifests, and nothing else of the folder', async () => {
  await using at = await withPack()
  const folder = join(at.folder.path, 'targets', 'health', 'who')
  await mkdir(folder, { recursive: true })
  const manifest = `targets/health/who/${sha256Of('{}')}.manifest.json`
  await writeFile(join(at.folder.path, manifest), '{}')
  expect(String(await at.view.read(manifest, { offset: 0, length: 2 }, options))).toBe('{}')
  await writeFile(join(folder, 'notes.json'), 'x')
  await writeFile(join(at.folder.path, 'packs', 'notes.txt'), 'x')
  for (const other of [
    'targets/health/who/notes.json',
    'packs/notes.txt',
    'packs/../secret',
    `packs/${sha256Of('none')}.pack`,
  ]) {
    expect(await at.view.size(other)).toBeUndefined()
  }
})
