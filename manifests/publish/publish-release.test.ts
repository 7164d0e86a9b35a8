import { createHash, randomBytes } from 'node:crypto'
import { appendFileSync, renameSync, writeFileSync } from 'node:fs'
import { chmod, mkdir, readFile, rm, symlink, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { describe, expect, it } from 'vitest'
import { packPath } from '../manifest.ts'
import { stream } from '../vectors/vectors.ts'
import { publishRelease } from './publish-release.ts'
import { ReleaseReader } from './release-reader.ts'
import {
  currentManifest,
  NOW,
  openBench,
  plainSigner,
  readRelease,
  treeOf,
  type Files,
} from './test-folders.ts'

const noise = (seed: string, sizeBytes: number) => {
  const parts: Buffer[] = []
  for (let at = 0; at * 64 < sizeBytes; at++)
    parts.push(createHash('sha512').update(`${seed} ${at}`).digest())
  return Buffer.concat(parts).subarray(0, sizeBytes)
}
const LESSONS: Files = {
  'index.html': '<h1>Physics</h1>',
  'units/heat.html': '<h1>Heat</h1>'.repeat(500),
  'media/lab.mp4': stream(12_000_000),
  'data/table.csv': 'a,b\n1,2\n'.repeat(200_000),
  empty: '',
}

function expectSame(read: Map<string, Buffer>, files: Files): void {
  expect([...read.keys()].sort()).toEqual(Object.keys(files).sort())
  for (const [path, content] of Object.entries(files))
    expect(read.get(path)?.equals(Buffer.from(content)), path).toBe(true)
}

describe('publishRelease', () => {
  it('makes a release from which the folder can be read back', async () => {
    await using bench = await openBench(LESSONS)
    const report = await bench.publish({ title: 'Physics' })
    expect(report).toMatchObject({ revision: 1, changed: true, items: 5, skipped: [] })
    expect(report.itemBytes).toBe(Object.values(LESSONS).reduce((sum, content) => sum + content.length, 0))
    expect(report.manifest).toMatchObject({
      dataset: 'education/test',
      title: 'Physics',
      priority: 1,
      published: '2026-11-20T09:30:00Z',
    })
    expectSame(await bench.read(), LESSONS)
    expect(await currentManifest(bench.storage, 'education/test')).toEqual(report.manifest)
  })

  it('gives the same bytes for the same folder, on one thread or two', async () => {
    await using one = await openBench(LESSONS)
    await using two = await openBench(Object.fromEntries(Object.entries(LESSONS).toReversed()))
    await one.publish({ threads: 1 })
    await two.publish({ threads: 2 })
    expect(treeOf(two.repo)).toEqual(treeOf(one.repo))
  })

  it('takes its date from the caller when given', async () => {
    await using bench = await openBench({ a: 'a' })
    expect((await bench.publish({ date: new Date(1e12) })).manifest.published).toBe('2001-09-09T01:46:40Z')
  })

  it('reads an unchanged folder and writes nothing', async () => {
    await using bench = await openBench(LESSONS)
    await bench.publish({ title: 'Physics' })
    const before = treeOf(bench.repo, true)
    await bench.write({ empty: '' }) // another time, the same bytes
    expect(await bench.publish()).toMatchObject({
      revision: 1,
      changed: false,
      packBytes: 0,
      deltaBytes: 0,
      removed: 0,
    })
    expect(treeOf(bench.repo, true)).toEqual(before)
  })

  it('packs only what is new, and keeps what was', async () => {
    await using bench = await openBench(LESSONS)
    const first = await bench.publish()
    const edited = Buffer.from(LESSONS['media/lab.mp4'] as Buffer)
    edited.write('an edit', 11_500_000)
    await bench.write({ 'media/lab.mp4': edited, 'units/light.html': 'Light' })
    await bench.remove('index.html')
    const second = await bench.publish()
    const { 'index.html': _gone, ...kept } = LESSONS
    expectSame(await bench.read(), { ...kept, 'media/lab.mp4': edited, 'units/light.html': 'Light' })
    expect(second).toMatchObject({ revision: 2, changed: true, items: 5 })
    expect(second.packedBytes).toBeLessThan(6_000_000)
    expect(second.manifest.packs[0]).toEqual(first.manifest.packs[0])
    expect(second.manifest.deltas).toMatchObject([{ from: 1 }])
    expect(second.deltaBytes).toBeLessThan(10_000)
    expectSame(await readRelease(bench.storage, first.manifest), LESSONS)
  })

  it('packs content once, however many items have it', async () => {
    const film = noise('film', 3_000_000)
    await using bench = await openBench({ a: film, b: film, 'c/d': film })
    expect((await bench.publish()).packedBytes).toBeLessThan(3_001_000)
    expectSame(await bench.read(), { a: film, b: film, 'c/d': film })
  })

  it('publishes a change of title, priority or pins alone', async () => {
    await using bench = await openBench({ a: 'a' })
    await bench.publish({ title: 'One', pin: { ipfs: true, s3: false } })
    expect(await bench.publish({ title: 'One' })).toMatchObject({ changed: false })
    const second = await bench.publish({ title: 'Two' })
    expect(second).toMatchObject({ changed: true, revision: 2, packBytes: 0 })
    expect(second.manifest).toMatchObject({ title: 'Two', pin: { ipfs: true, s3: false } })
    expect(await bench.publish({ priority: 3 })).toMatchObject({ changed: true, revision: 3 })
  })

  it('gives health the first class, education the second, and items their own when asked to', async () => {
    await using bench = await openBench({ 'a/first': '1', b: '2' })
    expect((await bench.publish({}, 'health/first-aid')).manifest.priority).toBe(0)
    const { manifest } = await bench.publish(
      { priorityOf: path => (path.startsWith('a/') ? 0 : undefined) },
      'other/things',
    )
    expect(manifest.priority).toBe(2)
    const entries = await Array.fromAsync((await ReleaseReader.open(bench.storage, manifest)).entries())
    expect(entries.map(entry => entry.priority)).toEqual([0, undefined])
  })

  it.each([
    'with space.txt',
    'ünï/cödé.txt',
    'e\u0301.txt',
    '日本語/教科書.html',
    '😀',
    'a'.repeat(255),
    `${'é'.repeat(127)}a`,
    '%2e%2e%2f',
    '-rf *',
    '"quoted" \'and\' {braces}',
    '...',
    '.hidden/file',
  ])('publishes the name %j as it is', async name => {
    await using bench = await openBench({ [name]: 'content' })
    await bench.publish()
    expectSame(await bench.read(), { [name]: 'content' })
  })
})

describe('a wrong folder', () => {
  it('that is empty, or has only folders, is refused', async () => {
    await using bench = await openBench()
    await mkdir(join(bench.folder, 'a/b'), { recursive: true })
    await expect(bench.publish()).rejects.toMatchObject({ code: 'PUBLISH_FOLDER_EMPTY' })
  })

  it('that is not there, or is a file, is refused', async () => {
    await using bench = await openBench({ file: 'x' })
    const request = { dataset: 'a/b', repository: bench.storage, signer: plainSigner, now: NOW }
    await expect(publishRelease({ ...request, folder: join(bench.folder, 'none') })).rejects.toMatchObject({
      code: 'PUBLISH_FOLDER_UNREADABLE',
      message: expect.stringContaining('ENOENT') as string,
    })
    await expect(publishRelease({ ...request, folder: join(bench.folder, 'file') })).rejects.toMatchObject({
      code: 'PUBLISH_FOLDER_UNREADABLE',
      message: expect.stringContaining('not a folder') as string,
    })
  })

  it.each([
    ['file', 'secret', 'secret'],
    ['folder', 'closed/within', 'closed'],
  ])('with an unreadable %s is refused, naming it', async (_, path, closed) => {
    await using bench = await openBench({ a: 'a', [path]: 'b' })
    await chmod(join(bench.folder, closed), 0)
    await chmod(join(bench.repo, '..'), 0o777)
    using _nobody = withoutPrivileges()
    await expect(bench.publish()).rejects.toMatchObject({
      code: 'PUBLISH_FOLDER_UNREADABLE',
      message: expect.stringMatching(new RegExp(`${closed}.*EACCES`)) as string,
    })
  })

  it('with symbolic links is published without them, and says so', async () => {
    await using bench = await openBench({ a: 'a' })
    await writeFile(join(bench.repo, '..', 'outside'), 'not to be published')
    await symlink('../outside', join(bench.folder, 'link'))
    await symlink('/etc', join(bench.folder, 'folder-link'))
    await symlink('nowhere', join(bench.folder, 'broken'))
    const report = await bench.publish()
    expect(report.skipped.map(({ path }) => path).sort()).toEqual(['broken', 'folder-link', 'link'])
    expect(report.skipped[0]?.why).toMatch(/symbolic link/)
    expectSame(await bench.read(), { a: 'a' })
  })

  it.each([
    ['a backslash', Buffer.from('a\\b')],
    ['a line feed', Buffer.from('a\nb')],
    ['bytes that are not UTF-8', Buffer.from([0x61, 0xff])],
  ])('with %s in a name is refused', async (_, name) => {
    await using bench = await openBench({ a: 'a' })
    writeFileSync(Buffer.concat([Buffer.from(`${bench.folder}/`), name]), 'x')
    await expect(bench.publish()).rejects.toMatchObject({ code: 'PATH_INVALID' })
  })

  it('is not published under a wrong dataset name', async () => {
    await using bench = await openBench({ a: 'a' })
    await expect(bench.publish({}, 'education')).rejects.toMatchObject({ code: 'REQUEST_INVALID' })
  })
})

describe('a file that changes while it is published', () => {
  const changes: [string, (path: string) => void][] = [
    ['grows', path => appendFileSync(path, 'more')],
    ['is rewritten', path => writeFileSync(path, noise('other', 9_000_000))],
    [
      'is replaced',
      path => {
        writeFileSync(`${path}.new`, noise('other', 9_000_000))
        renameSync(`${path}.new`, path)
      },
    ],
    ['shrinks', path => writeFileSync(path, 'short')],
  ]
  it.each(changes)(
    'and %s between hashing and packing is found out; nothing becomes visible',
    async (_, change) => {
      await using bench = await openBench({ a: noise('film', 9_000_000), z: 'last' })
      const publishing = bench.publish({
        onProgress: ({ stage, path }) => {
          if (stage === 'hashing' && path === 'z') change(join(bench.folder, 'a'))
        },
      })
      await expect(publishing).rejects.toMatchObject({ code: 'PUBLISH_FILE_CHANGED', retryable: true })
      expect(
        Object.keys(treeOf(bench.repo)).filter(path => /^(targets|metadata|\.drafts)\//.test(path)),
      ).toEqual([])
    },
  )

  it.each([
    ['appears', (folder: string) => writeFileSync(join(folder, 'new'), '')],
    ['goes away', (folder: string) => rmNow(join(folder, 'a'))],
  ])('and one that %s makes another folder of it', async (_, change) => {
    await using bench = await openBench({ a: 'a', z: 'z' })
    const publishing = bench.publish({
      onProgress: ({ stage }) => stage === 'deltas' && void change(bench.folder),
    })
    await expect(publishing).rejects.toMatchObject({ code: 'PUBLISH_FILE_CHANGED' })
  })

  it('and is gone is named', async () => {
    await using bench = await openBench({ a: 'a', b: 'b' })
    const publishing = bench.publish({
      onProgress: ({ path }) => path === 'a' && void rmNow(join(bench.folder, 'b')),
    })
    await expect(publishing).rejects.toMatchObject({
      code: 'PUBLISH_FOLDER_UNREADABLE',
      message: expect.stringContaining('/b') as string,
    })
  })
})

/** Nothing is unreadable to root: be somebody else for a while. */
function withoutPrivileges(): Disposable {
  const isRoot = process.getuid?.() === 0
  if (isRoot) process.seteuid?.(65534)
  return { [Symbol.dispose]: () => void (isRoot && process.seteuid?.(0)) }
}

function rmNow(path: string): void {
  renameSync(path, `${path}.gone`)
}

describe('a repository', () => {
  it('has one publisher at a time', async () => {
    await using bench = await openBench({ a: 'a' })
    const results = await Promise.allSettled([
      bench.publish(),
      bench.publish(),
      bench.publish({}, 'other/dataset'),
    ])
    expect(results.map(({ status }) => status).sort()).toEqual(['fulfilled', 'rejected', 'rejected'])
    const refused = results.flatMap(result => (result.status === 'rejected' ? [result.reason as Error] : []))
    for (const error of refused) expect(error).toMatchObject({ code: 'PUBLISH_CONFLICT', retryable: true })
    expect(await bench.publish({}, 'other/dataset')).toMatchObject({ revision: 1 })
  })

  it('keeps nine releases, and nothing that these do not need', async () => {
    await using bench = await openBench({ base: noise('base', 2_000_000) })
    for (let release = 1; release <= 12; release++) {
      await bench.write({ daily: noise(`${release}`, 100_000) })
      await bench.publish()
    }
    const tree = Object.keys(treeOf(bench.repo))
    const manifests = tree.filter(path => path.endsWith('.manifest.json'))
    expect(manifests).toHaveLength(9)
    const named = new Set<string>()
    for (const path of manifests) {
      const { packs, deltas, revision } = JSON.parse((await readFile(join(bench.repo, path))).toString()) as {
        revision: number
        packs: { sha256: string }[]
        deltas: { sha256: string; from: number }[]
      }
      expect(deltas.map(({ from }) => revision - from)).toEqual([1, 2, 4, 8].filter(step => step < revision))
      for (const { sha256 } of packs) named.add(`packs/${sha256}.pack`)
      for (const { sha256 } of deltas) named.add(`deltas/${sha256}.delta`)
    }
    expect(tree.filter(path => /^(packs|deltas)\//.test(path)).sort()).toEqual([...named].sort())
    expectSame(await bench.read(), { base: noise('base', 2_000_000), daily: noise('12', 100_000) })
  })

  it('has packs rewritten of which less than half is needed', async () => {
    const part = (name: string) => noise(name, 1_500_000)
    await using bench = await openBench({ a: part('a'), b: part('b'), c: part('c') })
    const first = await bench.publish()
    await bench.remove('a', 'b')
    const second = await bench.publish({ deltas: false })
    expect(second.manifest.packs.map(({ sha256 }) => sha256)).not.toContain(first.manifest.packs[0]!.sha256)
    expect(second.packedBytes).toBeGreaterThan(1_500_000)
    expectSame(await bench.read(), { c: part('c') })
    await bench.publish({ keepRevisions: 1 })
    expect(await bench.storage.list('packs/')).toEqual(
      second.manifest.packs.map(({ sha256 }) => packPath(sha256)),
    )
  })

  it('does not list ever more packs for ever more releases', { timeout: 60_000 }, async () => {
    await using bench = await openBench({ base: noise('base', 2_000_000) })
    let longest = 0
    for (let release = 1; release <= 30; release++) {
      await bench.write({ [`daily/${release}`]: noise(`${release}`, 60_000) })
      longest = Math.max(longest, (await bench.publish({ deltas: false })).manifest.packs.length)
    }
    expect(longest).toBeLessThanOrEqual(12)
    expect((await bench.read()).size).toBe(31)
  })

  it('takes content from an earlier release back into use', async () => {
    const part = (name: string) => noise(name, 1_200_000)
    await using bench = await openBench({ a: part('a') })
    await bench.publish()
    await bench.remove('a')
    await bench.write({ b: part('b') })
    await bench.publish()
    await bench.remove('b')
    await bench.write({ a: part('a') })
    const third = await bench.publish()
    expect(third.packedBytes).toBeLessThan(1000)
    expectSame(await bench.read(), { a: part('a') })
  })

  const interrupted = { ...plainSigner, sign: async () => Promise.reject(new Error('the key is at home')) }

  it('is finished by publishing again when only the first signature is missing', async () => {
    await using bench = await openBench(LESSONS)
    await expect(bench.publish({}, 'education/test', interrupted)).rejects.toThrow('the key is at home')
    const left = treeOf(bench.repo)
    expect(await bench.publish()).toMatchObject({ revision: 1, changed: true, packedBytes: 0 })
    expect(treeOf(bench.repo)).toMatchObject(left)
    expectSame(await bench.read(), LESSONS)
  })

  it('is finished by publishing again with what was compressed by then', async () => {
    await using bench = await openBench({ a: 'first' })
    await bench.publish()
    await bench.remove('a')
    await bench.write(LESSONS)
    await expect(bench.publish({}, 'education/test', interrupted)).rejects.toThrow('the key is at home')
    const left = await bench.storage.list('packs/')
    const report = await bench.publish()
    expect(report).toMatchObject({ revision: 2, changed: true })
    expect(report.packedBytes).toBeGreaterThan(12_000_000)
    expect(report.reusedBytes).toBe(report.packedBytes)
    expect(await bench.storage.list('packs/')).toEqual(left)
    expectSame(await bench.read(), LESSONS)
  })

  it('goes on counting when nobody signs for its releases any more', async () => {
    await using bench = await openBench({ a: 'first' })
    await bench.publish()
    await bench.write({ a: 'second' })
    await bench.publish()
    const forgetful = { ...plainSigner, current: async () => undefined }
    await bench.write({ a: 'third' })
    expect(await bench.publish({}, 'education/test', forgetful)).toMatchObject({ revision: 3 })
  })

  it('does not let an interrupted release that was never signed into its history', async () => {
    await using bench = await openBench({ a: 'first' })
    await bench.publish()
    await bench.write({ a: 'never signed' })
    await expect(bench.publish({}, 'education/test', interrupted)).rejects.toThrow('the key is at home')
    await bench.write({ a: 'second' })
    expect(await bench.publish()).toMatchObject({ revision: 2 })
    expect(await bench.storage.list('targets/')).toHaveLength(2)
    expectSame(await bench.read(), { a: 'second' })
  })

  it('that has lost a pack is mended by publishing again', async () => {
    await using bench = await openBench(LESSONS)
    const first = await bench.publish()
    await rm(join(bench.repo, packPath(first.manifest.packs[0]!.sha256)))
    expect(await bench.publish()).toMatchObject({ changed: true, revision: 2 })
    expectSame(await bench.read(), LESSONS)
  })

  it('that has lost its manifest says so, instead of starting again at revision 1', async () => {
    await using bench = await openBench({ a: 'a' })
    await bench.publish()
    await rm(join(bench.repo, 'targets'), { recursive: true })
    await expect(bench.publish()).rejects.toMatchObject({ code: 'MANIFEST_INVALID' })
  })

  it('keeps large datasets in several packs', async () => {
    const files = Object.fromEntries(
      Array.from({ length: 6 }, (_, at) => [`${at}`, noise(`${at}`, 1_300_000)]),
    )
    await using bench = await openBench(files)
    const { manifest } = await bench.publish({ packBytesMax: 3_000_000 })
    expect(manifest.packs).toHaveLength(3)
    expect(Math.max(...manifest.packs.map(({ size }) => size))).toBeLessThanOrEqual(3_000_000)
    expectSame(await bench.read(), files)
  })
})

describe('any folder', () => {
  it('comes out as it went in, release after release', { timeout: 60_000 }, async () => {
    const sizes = [0, 1, 100, 16_384, 70_000, 262_144, 1_000_000, 5_000_000]
    await using bench = await openBench({ seed: 'x' })
    let files: Files = { seed: 'x' }
    for (let release = 0; release < 6; release++) {
      const path = `${randomBytes(1).toString('hex')[0]}/${release}`
      const changed = {
        [path]: noise(path, sizes[(release * 3) % sizes.length]!),
        seed: noise(`${release}`, sizes[release]!),
      }
      files = { ...files, ...changed }
      await bench.write(changed)
      await bench.publish()
      expectSame(await bench.read(), files)
    }
  })
})
