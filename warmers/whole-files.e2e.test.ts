/** Servers without ranges: whole files are planned, and taken once. */
import { join } from 'node:path'
import { describe, expect, it } from 'vitest'
import { bytesOf } from '../node/store/testing.ts'
import { planOnce, type FillEvent } from './fill-once.ts'
import { extentsOf, readCatalog } from './item-extents.ts'
import { openRangeMemory } from './range-memory.ts'
import { openNode, openOrigin, signal, type Files, type TestNode, type TestOrigin } from './test-world.ts'
import type { Handler } from './testing.ts'

const DATASET = 'education/book'
const done = (events: readonly FillEvent[]) => events.find(event => event.type === 'done')!

function release(revision: number): Files {
  const lines = Array.from({ length: 20_000 }, (_, n) =>
    n % 5003 === revision * 500 ? `${n},changed in ${revision}\n` : `${n},${(n * 7919) % 1000},same\n`,
  )
  const film = [bytesOf('film', 5_000_000), bytesOf(`scene ${revision}`, 3000)]
  return {
    'table.csv': lines.join(''),
    'film.mp4': Buffer.concat(film),
    'same.bin': bytesOf('same', 200_000),
  }
}

const withoutRanges = (honest: Handler): Handler => {
  return (request, response) => {
    delete request.headers.range
    return honest(request, response)
  }
}

/** Of a new process. */
function request(node: TestNode, url: URL) {
  const rangeMemory = openRangeMemory(join(node.folder, 'upstreams.json'))
  return node.request([node.upstream(url)], { rangeMemory })
}

/** As two processes do it: nothing is known but what the data folder has. */
async function planAndFill(node: TestNode, url: URL) {
  const plan = await planOnce(request(node, url))
  const { upstreams, ...known } = request(node, url)
  const { wire, complete, contentBytes } = done(await node.fill(upstreams, known))
  expect({ complete, contentBytes }).toEqual({ complete: true, contentBytes: plan.contentBytes })
  const [planned, filled] = [plan.wire, wire].map(({ down, up }) => down + up) as [number, number]
  expect(Math.abs(planned - filled)).toBeLessThanOrEqual(0.01 * filled)
  expect(plan.wire.requests).toBe(wire.requests)
  return { plan, planned, filled, spent: plan.spent.down + plan.spent.up }
}

async function expectNewest(node: TestNode, files: Files): Promise<void> {
  const items = await node.items(DATASET)
  for (const [path, bytes] of Object.entries(files))
    expect(items[path]!.equals(Buffer.from(bytes as Uint8Array)), path).toBe(true)
}

async function loseFilm({ store, releases }: TestNode): Promise<void> {
  const entries = await readCatalog(store, releases.releases()[0]!.current!, { signal })
  const { root, sizeBytes } = entries.find(({ path }) => path === 'film.mp4')!
  const lost = extentsOf(store, root, sizeBytes)!.map(({ cid }) => cid)
  await store.remove(lost.slice(1), 'test')
}

const packBytesOf = async (origin: TestOrigin, files: Files) =>
  (await origin.publish(DATASET, files)).manifest.packs.reduce((sum, { size }) => sum + size, 0)

describe('from a server without ranges', () => {
  it('a fill and updates by one delta and by a chain take what was planned, in whole files', async () => {
    await using origin = await openOrigin()
    await using server = await origin.serve(withoutRanges)
    await using node = await openNode(origin.root)
    const packBytes = await packBytesOf(origin, release(1))
    const first = await planAndFill(node, server.url)
    expect(first.spent + first.filled).toBeLessThan(packBytes + 500_000) // the first answer was cut
    for (const revisions of [[2], [3, 4, 5]]) {
      for (const revision of revisions) await origin.publish(DATASET, release(revision))
      const { spent, filled } = await planAndFill(node, server.url)
      expect(spent + filled).toBeLessThan(100_000)
      await expectNewest(node, release(revisions.at(-1)!))
    }
  })

  it('what was lost again is planned as the whole pack, once, whatever a cut left of it', async () => {
    await using origin = await openOrigin()
    let bytesLeft = Infinity
    await using server = await origin.serve(honest =>
      withoutRanges((request, response) => {
        const write = response.end.bind(response)
        if (request.url!.includes('/packs/') && bytesLeft < Infinity) {
          response.end = ((bytes: Buffer) => {
            response.write(bytes.subarray(0, bytesLeft), () => response.destroy())
            bytesLeft = 0
            return response
          }) as typeof response.end
        } else response.end = write
        return honest(request, response)
      }),
    )
    await using node = await openNode(origin.root)
    const packBytes = await packBytesOf(origin, release(1))
    await planAndFill(node, server.url)
    await loseFilm(node)
    const again = await planAndFill(node, server.url)
    expect(again.planned).toBeGreaterThan(packBytes)
    expect(again.planned).toBeLessThan(1.01 * packBytes)
    expect(again.spent).toBeLessThan(3000)

    await loseFilm(node)
    bytesLeft = 1_000_000
    const { upstreams, ...known } = request(node, server.url)
    const cut = await node.fill(upstreams, { ...known, board: { attemptsMax: 1, pauseMs: 1, pauseMsMax: 1 } })
    expect(done(cut)).toMatchObject({ complete: false })
    expect(node.staged.sizeBytes).toBeGreaterThan(500_000)
    bytesLeft = Infinity
    expect((await planAndFill(node, server.url)).planned).toBeGreaterThan(packBytes)
    await expectNewest(node, release(1))
  })

  it('nobody knows yet to serve none, one byte is asked for before anything is planned', async () => {
    await using origin = await openOrigin()
    await using honest = await origin.serve()
    await using server = await origin.serve(withoutRanges)
    await using node = await openNode(origin.root)
    const packBytes = await packBytesOf(origin, release(1))
    await planAndFill(node, honest.url)
    expect(honest.requests.filter(request => request.endsWith('bytes=0-0'))).toEqual([])
    await loseFilm(node)
    const moved = await planAndFill(node, server.url)
    expect(moved.planned).toBeGreaterThan(packBytes)
    expect(server.requests.filter(request => request.endsWith('bytes=0-0'))).toHaveLength(1)

    // and one that serves them now is believed again
    await loseFilm(node)
    await using other = await origin.serve()
    const memory = openRangeMemory(join(node.folder, 'upstreams.json'))
    const upstream = node.upstream(other.url)
    memory.learn(upstream.name, false)
    expect(done(await node.fill([upstream], { rangeMemory: memory }))).toMatchObject({ complete: true })
    expect(memory.recall(upstream.name)).toBe(true)
    expect(openRangeMemory(join(node.folder, 'upstreams.json')).recall(upstream.name)).toBe(true)
  })
})
