import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import type { Cid } from '../manifests/cid.ts'
import { sha256Of } from '../manifests/digest.ts'
import { deltaPath, encodeManifest, type Manifest } from '../manifests/manifest.ts'
import { bytesOf } from '../node/store/testing.ts'
import { planOnce, type FillEvent } from './fill-once.ts'
import { extentsOf, readCatalog } from './item-extents.ts'
import { openNode, openOrigin, signal, type Files, type TestNode, type TestOrigin } from './test-world.ts'
import type { TestServer } from './testing.ts'

const DATASET = 'education/book'
const NEWEST = 6
const done = (events: readonly FillEvent[]) => events.find(event => event.type === 'done')!

/** Every release changes a place in each of its items. */
function release(revision: number): Files {
  const table = Array.from(
    { length: 15_000 },
    (_, n) =>
      `${n},${(n * 7919) % 1000},${n % 4001 === revision * 500 ? `changed in ${revision}` : 'same'}\n`,
  )
  const film = [bytesOf('film', 500_000), bytesOf(`scene ${revision}`, 3000), bytesOf('end', 200_000)]
  const notes = Array.from({ length: 120 }, (_, n) => [
    `notes/${n}.txt`,
    `${`note ${n} `.repeat(30)}${n % 5 === revision % 5 ? `changed in ${revision}` : ''}\n`,
  ])
  return {
    'table.csv': table.join(''),
    'film.mp4': Buffer.concat(film),
    'same.bin': bytesOf('same', 200_000),
    ...Object.fromEntries(notes),
  }
}

async function expectRelease(node: TestNode, files: Files, dataset = DATASET): Promise<void> {
  const items = await node.items(dataset)
  expect(Object.keys(items).toSorted()).toEqual(Object.keys(files).toSorted())
  for (const [path, bytes] of Object.entries(files))
    expect(items[path]!.equals(Buffer.from(bytes as Uint8Array)), path).toBe(true)
}

/** Plans, then fills; what that took, as the upstream's sockets counted it. */
async function planAndFill(node: TestNode, url: URL) {
  const upstream = node.upstream(url)
  const plan = await planOnce(node.request([upstream]))
  const { wire, complete, fallbacks } = done(await node.fill([upstream]))
  const total = wire.down + wire.up
  expect(Math.abs(plan.wire.down + plan.wire.up - total)).toBeLessThanOrEqual(0.01 * total)
  expect({ complete, fallbacks }).toEqual({ complete: true, fallbacks: 0 })
  const of = (dataset: string) => plan.datasets.find(one => one.dataset === dataset)!.byReason
  return { total, spent: plan.spent.down + plan.spent.up, of }
}

/** All extents of the release that is served. */
async function extentsHeld({ store, releases }: TestNode): Promise<Cid[]> {
  const { current } = releases.releases().find(known => known.dataset === DATASET)!
  const entries = await readCatalog(store, current!, { signal })
  return entries.flatMap(({ root, sizeBytes }) => extentsOf(store, root, sizeBytes)!.map(({ cid }) => cid))
}

describe('a node that is several releases behind', () => {
  let stack: AsyncDisposableStack
  let origin: TestOrigin
  let server: TestServer
  /** Filled with each of these releases, two of some. */
  const nodes = new Map<number, TestNode[]>()
  let newest: Manifest
  let onlyManifest: string | undefined
  let refused: readonly string[] = []
  const isOfOlderDelta = (request: string) =>
    request.includes('/deltas/') && !newest.deltas.some(({ sha256 }) => request.includes(sha256))

  beforeAll(async () => {
    stack = new AsyncDisposableStack()
    origin = stack.use(await openOrigin())
    server = stack.use(
      await origin.serve(honest => (request, response) => {
        const isOther = request.url!.endsWith('.manifest.json') && !request.url!.includes(onlyManifest ?? '')
        if (refused.some(path => request.url!.endsWith(path))) return void response.writeHead(503).end()
        if (isOther) return void response.writeHead(404).end()
        return honest(request, response)
      }),
    )
    for (let revision = 1; revision <= NEWEST; revision++) {
      newest = (await origin.publish(DATASET, release(revision))).manifest
      for (const at of [1, 1, 3, 3, 5].filter(wanted => wanted === revision)) {
        const node = stack.use(await openNode(origin.root))
        nodes.set(at, [...(nodes.get(at) ?? []), node])
        await node.fill([node.upstream(server.url)])
      }
    }
  }, 180_000)

  afterAll(() => stack.disposeAsync())

  it.each([
    [5, 'one delta'],
    [1, 'several deltas'],
  ])('from release %i goes on by %s, planned to the byte', async revision => {
    const node = nodes.get(revision)![0]!
    const before = new Set(await extentsHeld(node))
    const { total, spent, of } = await planAndFill(node, server.url)
    expect(of(DATASET).delta.extents).toBeGreaterThan(20)
    expect(of(DATASET).frame.extents).toBe(0)
    expect(total + spent).toBeLessThan(45_000)
    await expectRelease(node, release(NEWEST))
    // what was made on the way is not kept
    const known = new Set([...before, ...(await extentsHeld(node))])
    expect(node.store.usage().extents).toBeLessThanOrEqual(known.size + 2)
  })

  it('and has lost half of what it had takes frames for that, and no more than planned', async () => {
    const node = nodes.get(3)![0]!
    const half = (await extentsHeld(node)).filter((_, at) => at % 2 === 1)
    await node.store.remove(half, 'test')
    const { of } = await planAndFill(node, server.url)
    expect(of(DATASET).frame.extents).toBeGreaterThan(30)
    await expectRelease(node, release(NEWEST))
  })

  it('goes on where it was cut, and fetches nothing twice', async () => {
    const node = nodes.get(3)![1]!
    const upstream = node.upstream(server.url)
    const { wire: planned } = await planOnce(node.request([upstream]))
    refused = newest.deltas.map(({ sha256 }) => deltaPath(sha256))
    const from = server.requests.length
    expect(done(await node.fill([upstream])).complete).toBe(false)
    const came = server.requests.slice(from).filter(isOfOlderDelta)
    refused = []
    expect(came).not.toEqual([])

    const { wire, complete } = done(await node.fill([node.upstream(server.url)]))
    expect(complete).toBe(true)
    expect(server.requests.slice(from).filter(isOfOlderDelta)).toEqual(came)
    expect(wire.down + wire.up).toBeLessThan(planned.down + planned.up)
    await expectRelease(node, release(NEWEST))
  })

  it('needs nothing of what is between: without older manifests it takes what it finds', async () => {
    const node = nodes.get(1)![1]!
    const upstream = node.upstream(server.url)
    onlyManifest = sha256Of(encodeManifest(newest))
    try {
      expect(done(await node.fill([upstream])).complete).toBe(true)
    } finally {
      onlyManifest = undefined
    }
    await expectRelease(node, release(NEWEST))
  })

  it('has bases in other datasets', async () => {
    const other = 'education/second-edition'
    const node = nodes.get(5)![0]! // brought up to date by now
    await origin.publish(other, release(NEWEST))
    await origin.publish(other, release(NEWEST + 1))
    const { of } = await planAndFill(node, server.url)
    expect(of(other).frame.extents).toBe(0)
    expect(of(other).delta.extents).toBeGreaterThan(5)
    await expectRelease(node, release(NEWEST + 1), other)
  })
})
