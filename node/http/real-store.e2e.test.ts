/**
 * The HTTP part over the real library and store: what was published comes back, in any part of it, and
 * what rots on the disk never does (I1).
 */
import { open, readdir } from 'node:fs/promises'
import { join } from 'node:path'
import * as fc from 'fast-check'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { openLibrary } from '../open-library.ts'
import { MIB, bytesOf, openTestStore, temporaryFolder } from '../store/testing.ts'
import { TestTrust, storeCatalog, storeItems, testRelease } from '../testing.ts'
import { encodePath } from './request-path.ts'
import { type TestNode, startNode } from './test-client.ts'

const dataset = 'education/physics'
const files: Record<string, Buffer> = {
  'empty.txt': Buffer.alloc(0),
  'small.txt': bytesOf('small', 900),
  'ünï "quoted".txt': bytesOf('quoted', 2_000),
  'block.bin': bytesOf('block', 50_000),
  'extent.bin': bytesOf('extent', 2 * MIB),
  'large.bin': bytesOf('large', 13 * MIB + 77),
}
const absent = bytesOf('absent', 300_000)

describe('over the real store', () => {
  const stack = new AsyncDisposableStack()
  let folder: string
  let node: TestNode

  beforeAll(async () => {
    const scratch = stack.use(await temporaryFolder())
    folder = scratch.path
    const store = stack.use(await openTestStore(folder))
    const release = await testRelease({ dataset, revision: 1, files: { ...files, 'absent.bin': absent } })
    const library = stack.use(await openLibrary({ store, trust: new TestTrust(), mustHaveUpTo: -1 }))
    await library.acceptRelease(dataset, release.bytes)
    await storeCatalog(store, release)
    await storeItems(store, release, ...Object.keys(files))
    await library.activateIfWhole(dataset)
    await library.settled()
    node = stack.use(await startNode({ library }))
  })
  afterAll(() => stack.disposeAsync())

  const urlOf = (path: string): string => `/data/${dataset}/${encodePath(path)}`

  it('every item comes back whole, by name and by digest, again and again', async () => {
    for (let round = 0; round < 3; round++) {
      for (const [path, bytes] of Object.entries(files)) {
        const byName = await node.ask(urlOf(path))
        expect([path, byName.status, byName.body.equals(bytes)]).toEqual([path, 200, true])
        const [, hex] = /"sha256-(\w+)"/.exec(byName.headers.etag!)!
        expect((await node.ask(`/sha256/${hex}`)).body.equals(bytes)).toBe(true)
      }
    }
    expect((await node.ask(urlOf('small.txt'))).headers['cache-status']).toContain('detail=memory')
  })

  it('any range equals the file', async () => {
    const large = files['large.bin']!
    await fc.assert(
      fc.asyncProperty(fc.nat(large.length - 1), fc.nat(400_000), async (first, length) => {
        const { status, body } = await node.ask(urlOf('large.bin'), {
          headers: { range: `bytes=${first}-${first + length}` },
        })
        expect(status).toBe(206)
        if (!body.equals(large.subarray(first, first + length + 1))) throw new Error(`differs at ${first}`)
      }),
      { numRuns: 150 },
    )
  })

  it('listings and the API know what is here', async () => {
    const { items } = JSON.parse(
      (await node.ask(`/api/v1/items?dataset=${encodeURIComponent(dataset)}`)).body.toString(),
    ) as {
      items: { path: string; present: number; expected: number; url: string }[]
    }
    expect(items.map(({ path }) => path).toSorted()).toEqual([...Object.keys(files), 'absent.bin'].toSorted())
    expect(items.find(({ path }) => path === 'absent.bin')).toMatchObject({ present: 0, expected: 300_000 })
    expect(items.find(({ path }) => path === 'large.bin')).toMatchObject({ present: 13 * MIB + 77 })
    for (const { url, present, expected } of items)
      expect((await node.ask(url)).status).toBe(present === expected ? 200 : 503)
    expect((await node.ask(`/data/${dataset}/`)).body.toString()).toContain('large.bin')
  })

  it('no flipped byte leaves the node', async () => {
    const extents = (
      await readdir(join(folder, 'hot/extents-v1'), { recursive: true, withFileTypes: true })
    ).filter(entry => entry.isFile())
    expect(extents.length).toBeGreaterThan(3)
    for (const { parentPath, name } of extents) {
      await using file = await open(join(parentPath, name), 'r+')
      const { size } = await file.stat()
      const at = Math.floor(size / 2)
      const { buffer } = await file.read(Buffer.alloc(1), 0, 1, at)
      await file.write(Buffer.from([buffer[0]! ^ 1]), 0, 1, at)
    }
    let refused = 0
    for (const [path, bytes] of Object.entries(files)) {
      const answer = await node.ask(urlOf(path)).catch(() => undefined) // aborted in the middle: honest
      if (answer?.status === 200) expect([path, answer.body.equals(bytes)]).toEqual([path, true])
      else refused++
      for (let first = 0; first < bytes.length; first += 100_000) {
        const part = await node
          .ask(urlOf(path), { headers: { range: `bytes=${first}-${first + 99_999}` } })
          .catch(() => undefined)
        if (part?.status === 206) expect(part.body.equals(bytes.subarray(first, first + 100_000))).toBe(true)
        else if (part) expect(part.status).toBe(503)
      }
    }
    expect(refused).toBeGreaterThan(0)
  })
})
