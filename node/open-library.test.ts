import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { sha256Of } from '../manifests/digest.ts'
import type { ByteRange } from '../manifests/extent.ts'
import type { Library, OpenItem } from './library.ts'
import { openLibrary } from './open-library.ts'
import type { ContentStore } from './store/store.ts'
import { bytesOf, MIB, openTestStore, temporaryFolder, UNHURRIED } from './store/testing.ts'
import {
  phantomEntry,
  releaseOf,
  storeCatalog,
  storeItem,
  storeItems,
  testRelease,
  TestTrust,
  type TestRelease,
} from './testing.ts'

const dataset = 'education/physics'
const files = {
  'a/empty.txt': Buffer.alloc(0),
  'a/small.txt': bytesOf('small', 900),
  'a/ünï "quoted" path.txt': bytesOf('quoted', 2_000),
  'b/block.bin': bytesOf('block', 50_000),
  'b/extent.bin': bytesOf('extent', 2 * MIB),
  'c/large.bin': bytesOf('large', 13 * MIB + 77),
}

async function served(store: ContentStore, release: TestRelease, trust = new TestTrust()) {
  const library = await openLibrary({ store, trust })
  await library.acceptRelease(release.manifest.dataset, release.bytes)
  await storeCatalog(store, release)
  await library.activateIfWhole(release.manifest.dataset)
  return library
}

function read(item: OpenItem, range: ByteRange): Buffer {
  const parts: Buffer[] = []
  for (const slice of item.slices(range)) {
    const buffer = Buffer.alloc(slice.sizeBytes)
    item.readInto(slice, buffer)
    parts.push(buffer.subarray(slice.from, slice.to))
  }
  return Buffer.concat(parts)
}

function whole(item: OpenItem): ByteRange {
  return { first: 0, last: item.sizeBytes - 1 }
}

describe('reading', () => {
  it('every item, and any range of it, equals what was published', { timeout: 60_000 }, async () => {
    await using folder = await temporaryFolder()
    await using store = await openTestStore(folder.path)
    const release = await testRelease({ dataset, revision: 1, files })
    await using library = await served(store, release)
    await storeItems(store, release)
    for (const [path, bytes] of Object.entries(files)) {
      const item = library.open(dataset, path)
      expect(item.residency(whole(item))).toEqual({ state: 'present', tier: 'hot' })
      expect(read(item, whole(item)).equals(bytes)).toBe(true)
      expect(library.openDigest(sha256Of(bytes)).sha256).toBe(item.sha256)
      if (bytes.length === 0) continue
      fc.assert(
        fc.property(fc.nat(bytes.length - 1), fc.nat(300_000), (first, length) => {
          const range = { first, last: first + length }
          return read(item, range).equals(bytes.subarray(first, first + length + 1))
        }),
        { numRuns: 30 },
      )
      expect(() => item.slices({ first: bytes.length, last: bytes.length })).toThrow(/of/)
    }
  })

  it('knows nothing of what is not in the catalog', async () => {
    await using folder = await temporaryFolder()
    await using store = await openTestStore(folder.path)
    await using library = await served(store, await testRelease({ dataset, revision: 1, files }))
    expect(() => library.open('education/other', 'x')).toThrow(
      expect.objectContaining({ code: 'DATASET_UNKNOWN' }),
    )
    for (const path of ['', 'a', 'a/small', 'zzz', 'a/small.txt"', 'A/small.txt']) {
      expect(() => library.open(dataset, path)).toThrow(expect.objectContaining({ code: 'ITEM_UNKNOWN' }))
    }
    expect(() => library.openDigest(sha256Of('nobody'))).toThrow(
      expect.objectContaining({ code: 'ITEM_UNKNOWN' }),
    )
  })

  it('is progressive: a half-filled item says what is here', async () => {
    await using folder = await temporaryFolder()
    await using store = await openTestStore(folder.path)
    const release = await testRelease({ dataset, revision: 1, files })
    await using library = await served(store, release)
    const item = library.open(dataset, 'c/large.bin')
    expect(item.residency(whole(item))).toEqual({ state: 'absent', tier: null })
    expect(() => read(item, whole(item))).toThrow(expect.objectContaining({ code: 'CHUNK_ABSENT' }))

    const large = release.items.get('c/large.bin')!
    const [first] = large.extents
    for await (const node of large.nodes()) await store.admitNodes([node])
    await store.admitExtent(first!.cid, await large.readExtent(first!.cid), 'fastcdc-v1', 'test')
    expect(item.residency(whole(item)).state).toBe('partial')
    const begin = { first: 0, last: first!.sizeBytes - 1 }
    expect(item.residency(begin)).toEqual({ state: 'present', tier: 'hot' })
    expect(read(item, begin).equals(files['c/large.bin'].subarray(0, first!.sizeBytes))).toBe(true)
    expect(
      (await library.missing(dataset)).extents.filter(({ path }) => path === 'c/large.bin'),
    ).toHaveLength(large.extents.length - 1)
  })

  it('asks the heal sources for a chunk that was damaged, and answers from there', async () => {
    await using folder = await temporaryFolder()
    await using store = await openTestStore(folder.path)
    const release = await testRelease({ dataset, revision: 1, files })
    await using library = await served(store, release)
    await storeItems(store, release)
    const item = library.open(dataset, 'b/extent.bin')
    const [, slice] = [...item.slices(whole(item))]
    store.quarantine(slice!.extent, 'a test says so', slice)
    expect(() => item.readInto(slice!, Buffer.alloc(slice!.sizeBytes))).toThrow(
      expect.objectContaining({ code: 'CHUNK_CORRUPT' }),
    )
    const blocks = release.items.get('b/extent.bin')!.blocks
    const asked: string[] = []
    store.onHeal({ name: 'liar', fetchChunk: async () => Buffer.from('wrong') })
    store.onHeal({ name: 'neighbour', fetchChunk: async cid => (asked.push(cid), blocks.get(cid)) })
    // the bytes on disk are good, so nobody needs to be asked
    expect((await item.recover(slice!, UNHURRIED)).length).toBe(slice!.sizeBytes)
    // the reader has its chunk at once; the extent is mended behind it
    await expect.poll(() => read(item, whole(item)).equals(files['b/extent.bin'])).toBe(true)
  })
})

describe('blocks', () => {
  it('are given by CID: nodes, whole items, and chunks inside extents, also after a restart', async () => {
    await using folder = await temporaryFolder()
    const trust = new TestTrust()
    const release = await testRelease({ dataset, revision: 1, files })
    for (const first of [true, false]) {
      await using store = await openTestStore(folder.path)
      await using library = await served(store, release, trust)
      if (first) await storeItems(store, release)
      await library.settled()
      for (const { blocks } of release.items.values()) {
        // chunks before the nodes that name them
        for (const [cid, bytes] of [...blocks].toReversed()) {
          const block = await library.block(cid, UNHURRIED)
          expect(block && Buffer.compare(block, bytes)).toBe(0)
        }
      }
      expect(await library.block(phantomEntry('nobody', 1).root, UNHURRIED)).toBeUndefined()
      const { root } = release.items.get('c/large.bin')!
      expect([library.mediaTypeOf(root), library.isDenied(root)]).toEqual(['text/plain', false])
    }
  })
})

describe('trust', () => {
  it('a denied item answers so at once, and its bytes go', async () => {
    await using folder = await temporaryFolder()
    await using store = await openTestStore(folder.path)
    const trust = new TestTrust()
    const release = await testRelease({ dataset, revision: 1, files })
    await using library = await served(store, release, trust)
    await storeItems(store, release)
    expect(library.open(dataset, 'b/block.bin').sizeBytes).toBe(50_000)
    const denied = sha256Of(files['b/block.bin'])
    trust.deny(denied)
    const code = expect.objectContaining({ code: 'ITEM_DENIED' })
    expect(() => library.open(dataset, 'b/block.bin')).toThrow(code)
    expect(() => library.openDigest(denied)).toThrow(code)
    expect(library.list({ dataset, limit: 100 }).items.map(({ path }) => path)).not.toContain('b/block.bin')
    const { root } = release.items.get('b/block.bin')!
    expect(library.isDenied(root)).toBe(true)
    await expect.poll(() => store.has(root), { timeout: 10_000 }).toBe(false)
    expect(await library.missing(dataset)).toEqual({ nodes: [], extents: [] })
  })
})

describe('lists', () => {
  it('goes through everything by pages of any size, once, in order', async () => {
    await using folder = await temporaryFolder()
    await using store = await openTestStore(folder.path)
    const paths = Array.from({ length: 3_000 }, (_, at) => `unit-${at % 7}/lesson ${at}.html`)
    const release = releaseOf(
      { dataset, revision: 1 },
      paths.map(path => phantomEntry(path, 10)),
      new Map(),
    )
    await using library = await served(store, release)
    for (const limit of [1000, 77]) {
      expect(allOf(library, { dataset, limit })).toEqual(paths.toSorted())
      expect(allOf(library, { limit, prefix: 'unit-3/' })).toEqual(
        paths.filter(path => path.startsWith('unit-3/')).toSorted(),
      )
      expect(allOf(library, { limit, query: 'LESSON 12' })).toEqual(
        paths.filter(path => path.includes('lesson') && path.includes('12')).toSorted(),
      )
    }
    expect(() => library.list({ dataset, limit: 10, after: 'nonsense' })).toThrow(
      expect.objectContaining({ code: 'REQUEST_INVALID' }),
    )
  })

  it('says what is here of each item and of the dataset', async () => {
    await using folder = await temporaryFolder()
    await using store = await openTestStore(folder.path)
    const release = await testRelease({
      dataset,
      revision: 4,
      files,
      pin: { ipfs: true, s3: false, paths: ['b/*'] },
    })
    await using library = await served(store, release)
    await storeItem(store, release.items.get('b/extent.bin')!)
    const { items } = library.list({ dataset, limit: 10, prefix: 'b/' })
    expect(items).toMatchObject([
      {
        path: 'b/block.bin',
        present: 0,
        expected: 50_000,
        tier: null,
        verifiedAt: null,
        pinned: true,
        revision: 4,
      },
      {
        path: 'b/extent.bin',
        present: 2 * MIB,
        tier: 'hot',
        pinned: true,
        url: `/data/${dataset}/b/extent.bin`,
      },
    ])
    const [view] = library.datasets()
    expect(view).toMatchObject({ dataset, revision: 4, items: 6, present: 2 * MIB })
    await storeItems(store, release)
    expect(library.datasets()[0]!.present).toBe(view!.expected)
  })
})

function allOf(library: Library, request: Omit<Parameters<Library['list']>[0], 'after'>): string[] {
  const paths: string[] = []
  for (let after: string | null | undefined; after !== null; ) {
    const { items, next }: ReturnType<Library['list']> = library.list({ ...request, ...(after && { after }) })
    expect(items.length).toBeLessThanOrEqual(request.limit)
    paths.push(...items.map(({ path }) => path))
    after = next
  }
  return paths
}
