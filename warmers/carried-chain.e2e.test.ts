/** Towers that are several releases behind, and fill from a hub or a stick instead of the origin. */
import { readdir, stat } from 'node:fs/promises'
import { join } from 'node:path'
import { pathToFileURL } from 'node:url'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { bytesOf } from '../node/store/testing.ts'
import { checkExport, exportRepository, wantListOf, type ExportRequest } from './export-repository.ts'
import { openFileUpstream } from './file-upstream.ts'
import { planOnce, type FillEvent } from './fill-once.ts'
import { fillMirror } from './mirror.ts'
import {
  openNode,
  openOrigin,
  serveCopy,
  signal,
  type Files,
  type TestNode,
  type TestOrigin,
} from './test-world.ts'
import { temporaryFolder, type TestServer } from './testing.ts'
import type { Upstream } from './upstream.ts'

const DATASET = 'education/book'
const NEWEST = 8
/** Two behind there is a delta; three and seven behind only ways through others. */
const HELD = [6, 5, 1]
/** Hubs, sticks and the origin itself. */
const WAYS = 5
const done = (events: readonly FillEvent[]) => events.find(event => event.type === 'done')!

function release(revision: number): Files {
  const table = Array.from(
    { length: 15_000 },
    (_, n) =>
      `${n},${(n * 7919) % 1000},${n % 4999 === revision * 500 ? `changed in ${revision}` : 'same'}\n`,
  )
  const film = [bytesOf('film', 700_000), bytesOf(`scene ${revision}`, 3000), bytesOf('end', 200_000)]
  return {
    'table.csv': table.join(''),
    'film.mp4': Buffer.concat(film),
    'same.bin': bytesOf('same', 900_000),
  }
}

/** Plans, then fills; together with what planning took. */
async function planAndFill(node: TestNode, open: () => Upstream): Promise<number> {
  const plan = await planOnce(node.request([open()]))
  const { wire, complete, fallbacks } = done(await node.fill([open()]))
  expect({ complete, fallbacks }).toEqual({ complete: true, fallbacks: 0 })
  expect({ down: wire.down, up: wire.up }).toEqual({ down: plan.wire.down, up: plan.wire.up })
  expect(plan.datasets[0]!.byReason.frame.extents).toBe(0)
  const items = await node.items(DATASET)
  for (const [path, bytes] of Object.entries(release(NEWEST)))
    expect(items[path]!.equals(Buffer.from(bytes as Uint8Array)), path).toBe(true)
  return wire.down + wire.up + plan.spent.down + plan.spent.up
}

const stickOf = (folder: string) => openFileUpstream(pathToFileURL(`${folder}/`), () => undefined)

describe('a tower that is several releases behind', () => {
  let stack: AsyncDisposableStack
  let origin: TestOrigin
  let server: TestServer
  let hub: TestNode
  let late: TestNode
  /** By the release that they hold. */
  const nodes = new Map<number, TestNode[]>()
  const hubOptions = (node: TestNode) => ({
    folder: join(node.folder, 'repository'),
    reserveBytes: 0,
  })
  const fillHub = async (node: TestNode) =>
    await Array.fromAsync(fillMirror(node.request([node.upstream(server.url)]), hubOptions(node)))
  const exportTo = async (folder: string, more: Partial<ExportRequest> = {}) => {
    const { trust, releases } = hub
    const upstreams = [stickOf(hubOptions(hub).folder)]
    return await Array.fromAsync(exportRepository({ folder, trust, releases, upstreams, signal, ...more }))
  }
  beforeAll(async () => {
    stack = new AsyncDisposableStack()
    origin = stack.use(await openOrigin())
    server = stack.use(await origin.serve())
    hub = stack.use(await openNode(origin.root))
    late = stack.use(await openNode(origin.root))
    for (let revision = 1; revision <= NEWEST; revision++) {
      await origin.publish(DATASET, release(revision))
      if (revision !== 4) await fillHub(hub) // once it was away for a while
      for (let count = 0; HELD.includes(revision) && count < WAYS; count++) {
        const node = stack.use(await openNode(origin.root))
        nodes.set(revision, [...(nodes.get(revision) ?? []), node])
        await node.fill([node.upstream(server.url)])
      }
    }
    await fillHub(late)
  }, 120_000)

  afterAll(() => stack.disposeAsync())

  const openFrom = async (revision: number) => nodes.get(revision)!.pop()!
  const expectAbout = (bytes: number, expected: number) =>
    expect(Math.abs(bytes - expected)).toBeLessThanOrEqual(0.02 * expected)

  it.each(HELD)(
    'goes from release %i through a hub or a stick by what it costs from the origin',
    async held => {
      const one = await openFrom(held)
      const direct = await planAndFill(one, () => one.upstream(server.url))
      for (const source of [hub, late]) {
        await using hubServer = await serveCopy(source, hubOptions(source).folder)
        const node = await openFrom(held)
        expectAbout(await planAndFill(node, () => node.upstream(hubServer.url)), direct)
      }

      await using all = await temporaryFolder()
      await exportTo(all.path)
      const body = await planAndFill(await openFrom(held), () => stickOf(all.path))
      const problems = await Array.fromAsync(checkExport(all.path, { signal }))
      expect(problems).toEqual([])

      // by its want-list
      const node = await openFrom(held)
      await using small = await temporaryFolder()
      const wants = await wantListOf(node.releases)
      const { bytes } = (await exportTo(small.path, { wants })).find(event => event.type === 'done')!
      expect(await readdir(small.path)).not.toContain('packs')
      expect(bytes).toBeLessThan(1.2 * direct)
      expectAbout(await planAndFill(node, () => stickOf(small.path)), body)
    },
  )

  it('and its hub asks for nothing twice, and keeps what ways need, within a quarter of the packs', async () => {
    const before = server.requests.length
    await fillHub(late)
    expect(server.requests.length - before).toBe(2)
    await fillHub(hub) // the release before is no longer served
    const namesIn = (node: TestNode, folder: string) => readdir(join(hubOptions(node).folder, folder))
    for (const folder of ['packs', 'deltas', `targets/${DATASET}`])
      expect((await namesIn(late, folder)).toSorted(), folder).toEqual(
        (await namesIn(hub, folder)).toSorted(),
      )
    const { packs, deltas } = late.releases.releases()[0]!.current!
    const own = new Set(deltas.map(({ sha256 }) => `${sha256}.delta`))
    const older = (await namesIn(late, 'deltas')).filter(name => !own.has(name))
    expect(older.length).toBeGreaterThan(2)
    const sizes = await Promise.all(older.map(name => stat(join(hubOptions(late).folder, 'deltas', name))))
    const sum = (files: readonly { size: number }[]) => files.reduce((bytes, { size }) => bytes + size, 0)
    expect(sum(sizes)).toBeLessThan(0.25 * sum(packs))
  })
})
