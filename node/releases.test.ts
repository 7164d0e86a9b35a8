import { existsSync } from 'node:fs'
import { join } from 'node:path'
import { describe, expect, it } from 'vitest'
import { sha256Of } from '../manifests/digest.ts'
import { openLibrary, type NodeLibrary } from './open-library.ts'
import type { ContentStore } from './store/store.ts'
import { bytesOf, MIB, openTestStore, temporaryFolder } from './store/testing.ts'
import {
  phantomEntry,
  releaseOf,
  storeCatalog,
  storeItems,
  testRelease,
  TestTrust,
  type ReleaseWish,
} from './testing.ts'

const dataset = 'health/first-aid'
/** By version; made once, because 9 MiB of noise take a while. */
const made = new Map<string, ReturnType<typeof makeFiles>>()
const files = (version: string) => made.get(version) ?? made.set(version, makeFiles(version)).get(version)!

function makeFiles(version: string) {
  return {
    'always.txt': bytesOf('always', 5_000),
    'burns.txt': bytesOf(`burns ${version}`, 40_000),
    'film.bin': bytesOf(`film ${version}`, 9 * MIB),
    'rare.txt': bytesOf(`rare ${version}`, 3_000),
  }
}

async function makeRelease(revision: number, more: Partial<ReleaseWish> = {}) {
  return testRelease({ dataset, revision, files: files(`v${revision}`), priority: 2, ...more })
}

async function accept(library: NodeLibrary, release: Awaited<ReturnType<typeof makeRelease>>): Promise<void> {
  await library.acceptRelease(dataset, release.bytes)
}

function digestServed(library: NodeLibrary, path: string): string {
  return library.open(dataset, path).sha256
}

async function opened(
  folder: string,
  trust: TestTrust,
): Promise<{ store: ContentStore; library: NodeLibrary } & AsyncDisposable> {
  const store = await openTestStore(folder)
  const library = await openLibrary({ store, trust })
  return {
    store,
    library,
    async [Symbol.asyncDispose]() {
      await library[Symbol.asyncDispose]()
      await store[Symbol.asyncDispose]()
    },
  }
}

describe('the first release', () => {
  it('is served as soon as its catalog is whole', async () => {
    await using folder = await temporaryFolder()
    await using node = await opened(folder.path, new TestTrust())
    const { store, library } = node
    const release = await makeRelease(1)
    await accept(library, release)
    expect(library.datasets()).toEqual([])
    expect(library.releases()).toMatchObject([{ dataset, next: { revision: 1 } }])
    expect((await library.missing(dataset)).extents.map(({ path, rule }) => [path, rule])).toEqual([
      ['', 'catalog-v1'],
    ])
    await storeCatalog(store, release)
    await expect.poll(() => library.datasets().length).toBe(1)
    expect((await library.missing(dataset)).extents.map(({ path }) => path)).toEqual([
      'always.txt',
      'burns.txt',
      'rare.txt',
    ])
    expect((await library.missing(dataset)).nodes).toEqual([release.items.get('film.bin')!.root])
    await storeItems(store, release)
    expect(await library.missing(dataset)).toEqual({ nodes: [], extents: [] })
  })
})

describe('a newer release', () => {
  it('takes over when everything that was whole before is whole in it, and not before (I5)', async () => {
    await using folder = await temporaryFolder()
    await using node = await opened(folder.path, new TestTrust())
    const { store, library } = node
    const [one, two] = [await makeRelease(1), await makeRelease(2)]
    await accept(library, one)
    await storeCatalog(store, one)
    await storeItems(store, one, 'always.txt', 'burns.txt', 'film.bin')
    await library.activateIfWhole(dataset)

    await accept(library, two)
    expect(await library.activateIfWhole(dataset)).toBe(false)
    await storeCatalog(store, two)
    expect(await library.activateIfWhole(dataset)).toBe(false)
    await storeItems(store, two, 'burns.txt')
    expect(await library.activateIfWhole(dataset)).toBe(false)
    expect(digestServed(library, 'burns.txt')).toBe(sha256Of(files('v1')['burns.txt']))
    expect(library.datasets()).toMatchObject([{ revision: 1, next: { revision: 2, present: 45_000 } }])
    // what was never here need not come first
    await storeItems(store, two, 'film.bin')
    expect(await library.activateIfWhole(dataset)).toBe(true)
    expect(library.datasets()).toMatchObject([{ revision: 2 }])
    expect(digestServed(library, 'burns.txt')).toBe(sha256Of(files('v2')['burns.txt']))
    expect((await library.missing(dataset)).extents.map(({ path }) => path)).toEqual(['rare.txt'])
  })

  it('waits for must-have and pinned items even if they were never here', async () => {
    await using folder = await temporaryFolder()
    const trust = new TestTrust()
    await using node = await opened(folder.path, trust)
    const { store, library } = node
    const one = await makeRelease(1)
    await accept(library, one)
    await storeCatalog(store, one)
    await storeItems(store, one, 'always.txt')
    const two = await makeRelease(2, {
      classes: { 'burns.txt': 0 },
      pin: { ipfs: true, s3: false, paths: ['film.*'] },
    })
    trust.pins = [`${dataset}/rare.txt`]
    await accept(library, two)
    await storeCatalog(store, two)
    for (const path of ['burns.txt', 'film.bin', 'rare.txt']) {
      expect(await library.activateIfWhole(dataset)).toBe(false)
      await storeItems(store, two, path)
    }
    expect(await library.activateIfWhole(dataset)).toBe(true)
    await library.settled()
    const pinned = library.list({ dataset, limit: 10 }).items.filter(item => item.pinned)
    expect(pinned.map(({ path }) => path)).toEqual(['film.bin', 'rare.txt'])
    const needed = ['burns.txt', 'film.bin', 'rare.txt'].map(path => two.items.get(path)!.sizeBytes)
    const catalog = two.manifest.catalog.size
    expect(store.usage().heldBytes).toBe(needed.reduce((sum, size) => sum + size, catalog))
  })

  it('frees what only the old one needed, and only that', async () => {
    await using folder = await temporaryFolder()
    const trust = new TestTrust()
    const [one, two] = [await makeRelease(1, { priority: 0 }), await makeRelease(2, { priority: 0 })]
    await using node = await opened(folder.path, trust)
    const { store, library } = node
    await accept(library, one)
    await storeCatalog(store, one)
    await storeItems(store, one)
    await accept(library, two)
    await storeCatalog(store, two)
    await storeItems(store, two)
    expect(await library.activateIfWhole(dataset)).toBe(true)
    await library.settled()
    const oldRoot = one.items.get('film.bin')!.root
    expect(one.items.get('film.bin')!.extents.some(({ cid }) => store.has(cid))).toBe(false)
    expect(store.node(oldRoot)).toBeUndefined()
    expect(two.items.get('film.bin')!.extents.every(({ cid }) => store.has(cid))).toBe(true)
    expect(store.has(one.items.get('always.txt')!.root)).toBe(true)
    expect(store.usage().hotBytes).toBe(two.manifest.catalog.itemBytes + two.manifest.catalog.size)
    expect(existsSync(join(folder.path, 'sweep-due'))).toBe(false)
  })

  it('lets those who read the old one finish', async () => {
    await using folder = await temporaryFolder()
    await using node = await opened(folder.path, new TestTrust())
    const { store, library } = node
    const [one, two] = [await makeRelease(1), await makeRelease(2)]
    await accept(library, one)
    await storeCatalog(store, one)
    await storeItems(store, one)
    await library.activateIfWhole(dataset)
    const item = library.open(dataset, 'film.bin')
    const slices = item.slices({ first: 0, last: item.sizeBytes - 1 })[Symbol.iterator]()
    slices.next()
    await accept(library, two)
    await storeCatalog(store, two)
    await storeItems(store, two)
    expect(await library.activateIfWhole(dataset)).toBe(true)
    await library.settled()
    for (let step = slices.next(); !step.done; step = slices.next()) {
      item.readInto(step.value, Buffer.alloc(step.value.sizeBytes))
    }
    expect(existsSync(join(folder.path, 'sweep-due'))).toBe(true)
  })

  it('supersedes a half-filled one and keeps its extents', async () => {
    await using folder = await temporaryFolder()
    await using node = await opened(folder.path, new TestTrust())
    const { store, library } = node
    const [one, two] = [await makeRelease(1), await makeRelease(2)]
    // the third differs from the second in one item
    const three = await testRelease({
      dataset,
      revision: 3,
      files: { ...files('v2'), 'rare.txt': bytesOf('other', 3_000) },
    })
    await accept(library, one)
    await storeCatalog(store, one)
    await storeItems(store, one)
    await accept(library, two)
    await storeCatalog(store, two)
    await storeItems(store, two, 'film.bin')
    await accept(library, three)
    await library.settled()
    await storeCatalog(store, three)
    await library.settled()
    expect((await library.missing(dataset)).extents.map(({ path }) => path)).toEqual([
      'burns.txt',
      'rare.txt',
    ])
    expect((await library.missing(dataset)).nodes).toEqual([])
    await storeItems(store, three)
    expect(await library.activateIfWhole(dataset)).toBe(true)
  })

  it('is still on its way after a restart', async () => {
    await using folder = await temporaryFolder()
    const trust = new TestTrust()
    const [one, two] = [await makeRelease(1), await makeRelease(2)]
    {
      await using node = await opened(folder.path, trust)
      await accept(node.library, one)
      await storeCatalog(node.store, one)
      await storeItems(node.store, one)
      await node.library.activateIfWhole(dataset)
      await accept(node.library, two)
      await storeCatalog(node.store, two)
    }
    await using node = await opened(folder.path, trust)
    expect(node.library.releases()).toMatchObject([{ current: { revision: 1 }, next: { revision: 2 } }])
    await storeItems(node.store, two)
    expect(await node.library.activateIfWhole(dataset)).toBe(true)
  })

  it('is refused when it is older, when another has its number, and when it is of another dataset (I2)', async () => {
    await using folder = await temporaryFolder()
    await using node = await opened(folder.path, new TestTrust())
    const { library } = node
    const two = await makeRelease(2)
    await accept(library, two)
    await accept(library, two)
    await expect(accept(library, await makeRelease(1))).rejects.toMatchObject({ code: 'TRUST_ROLLBACK' })
    const other = await makeRelease(2, { priority: 1 })
    await expect(accept(library, other)).rejects.toMatchObject({ code: 'TRUST_ROLLBACK' })
    await expect(library.acceptRelease('health/other', two.bytes)).rejects.toMatchObject({
      code: 'MANIFEST_INVALID',
    })
    await expect(library.acceptRelease(dataset, Buffer.from('{}'))).rejects.toMatchObject({
      code: 'MANIFEST_INVALID',
    })
  })
})

describe('100,000 items', () => {
  it('are planned within seconds, and one is found at once', { timeout: 120_000 }, async () => {
    await using folder = await temporaryFolder()
    await using node = await opened(folder.path, new TestTrust())
    const entries = Array.from({ length: 100_000 }, (_, at) =>
      phantomEntry(`unit-${at % 100}/page-${at}.html`, 1_000),
    )
    const release = releaseOf({ dataset, revision: 1 }, entries, new Map())
    await accept(node.library, release)
    await storeCatalog(node.store, release)
    await expect.poll(() => node.library.datasets().length).toBe(1)
    // CPU, not time: other tests run beside this one
    const before = cpuSeconds()
    expect(node.library.open(dataset, 'unit-42/page-4242.html').sizeBytes).toBe(1_000)
    expect(cpuSeconds() - before).toBeLessThan(0.5)
    const planned = cpuSeconds()
    expect((await node.library.missing(dataset)).extents).toHaveLength(100_000)
    expect(cpuSeconds() - planned).toBeLessThan(4)
  })
})

function cpuSeconds(): number {
  const { user, system } = process.cpuUsage()
  return (user + system) / 1e6
}
