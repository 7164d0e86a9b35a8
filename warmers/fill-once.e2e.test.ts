import { setTimeout as sleep } from 'node:timers/promises'
import { describe, expect, it } from 'vitest'
import { bytesOf } from '../node/store/testing.ts'
import { planOnce, type FillEvent } from './fill-once.ts'
import { openNode, openOrigin, type Files } from './test-world.ts'

const MIB = 1024 * 1024
const text = (seed: string, lines: number) =>
  Array.from({ length: lines }, (_, n) => `${seed},${n},${(n * 7919) % 1000},province ${n % 107}\n`).join('')

const OLD: Files = {
  'table.csv': text('cases', 100_000),
  'book/chapter-1.html': text('chapter', 900),
  'book/picture.jpg': bytesOf('picture', 300_000),
  'film.mp4': bytesOf('film', 5 * MIB),
  empty: '',
  ...Object.fromEntries(Array.from({ length: 200 }, (_, n) => [`notes/${n}.txt`, `note number ${n}\n`])),
}
const NEW: Files = {
  ...OLD,
  'table.csv': `${text('cases', 50_000)}an inserted line\n${text('cases', 100_000).slice(text('cases', 50_000).length)}`,
  'book/chapter-2.html': text('another chapter', 300),
  'notes/7.txt': 'note number seven\n',
}

const done = (events: readonly FillEvent[]) => events.find(event => event.type === 'done')!
const planned = (events: readonly FillEvent[]) => events.find(event => event.type === 'planned')!

async function expectItems(node: Awaited<ReturnType<typeof openNode>>, dataset: string, files: Files) {
  const items = await node.items(dataset)
  expect(Object.keys(items).toSorted()).toEqual(Object.keys(files).toSorted())
  for (const [path, bytes] of Object.entries(files))
    expect(items[path]!.equals(Buffer.from(bytes as Uint8Array)), path).toBe(true)
}

describe('a fill', () => {
  it('brings a release to an empty node, by the bytes that were planned, and then its update by a delta', async () => {
    await using origin = await openOrigin()
    await using server = await origin.serve()
    await using node = await openNode(origin.root)
    const upstream = node.upstream(server.url)
    await origin.publish('health/who', OLD)

    const first = await node.fill([upstream])
    expect(done(first)).toMatchObject({ complete: true, fallbacks: 0 })
    expect(first).toContainEqual({ type: 'activated', dataset: 'health/who', revision: 1 })
    await expectItems(node, 'health/who', OLD)

    await origin.publish('health/who', NEW)
    const plan = await planOnce(node.request([upstream]))
    const second = await node.fill([upstream])
    expect(done(second)).toMatchObject({ complete: true, fallbacks: 0 })
    const { wire } = done(second)
    expect(Math.abs(wire.down + wire.up - plan.wire.down - plan.wire.up)).toBeLessThan(
      0.01 * (wire.down + wire.up),
    )
    expect(plan.datasets[0]!.byReason.delta.extents).toBeGreaterThan(0)
    expect(plan.spent.down + wire.down).toBeLessThan(30_000)
    await expectItems(node, 'health/who', NEW)

    const third = await node.fill([upstream])
    expect(done(third)).toMatchObject({ complete: true, contentBytes: 0, wire: { requests: 2 } })
  })

  it('prepares several datasets at a time: round trips of a far link do not add up', async () => {
    await using origin = await openOrigin()
    const names = Array.from({ length: 3 }, (_, n) => `health/clinic-${n}`)
    for (const name of names) await origin.publish(name, { 'a.bin': bytesOf(name, 200_000) })
    const asked = { packs: 0, most: 0, manifests: 0, mostManifests: 0 }
    await using server = await origin.serve(honest => async (request, response) => {
      const isPack = request.url?.startsWith('/packs/') === true
      const isManifest = request.url?.endsWith('.manifest.json') === true
      asked.most = Math.max(asked.most, (asked.packs += Number(isPack)))
      asked.mostManifests = Math.max(asked.mostManifests, (asked.manifests += Number(isManifest)))
      await sleep(100)
      asked.packs -= Number(isPack)
      asked.manifests -= Number(isManifest)
      await honest(request, response)
    })
    await using node = await openNode(origin.root)
    const plan = await planOnce(node.request([node.upstream(server.url)]))
    expect(plan.datasets.map(({ dataset }) => dataset)).toEqual(names)
    expect(asked.most).toBeGreaterThan(1)
    expect(asked.mostManifests).toBeGreaterThan(1)
  })

  it('plans a first fill within 1 %', async () => {
    await using origin = await openOrigin()
    await using server = await origin.serve()
    await using node = await openNode(origin.root)
    const upstream = node.upstream(server.url)
    await origin.publish('health/who', OLD)
    const plan = await planOnce(node.request([upstream]))
    const { wire } = done(await node.fill([upstream]))
    expect(Math.abs(wire.down + wire.up - plan.wire.down - plan.wire.up)).toBeLessThan(
      0.01 * (wire.down + wire.up),
    )
    expect(plan.wire.down).toBeGreaterThan(5 * MIB)
  })

  it('needs nothing of deltas: with none left in the repository frames do', async () => {
    await using origin = await openOrigin()
    await using server = await origin.serve(honest => (request, response) => {
      if (request.url!.startsWith('/deltas/')) return void response.writeHead(404).end()
      return honest(request, response)
    })
    await using node = await openNode(origin.root)
    const upstream = node.upstream(server.url)
    await origin.publish('health/who', OLD)
    await node.fill([upstream])
    await origin.publish('health/who', NEW)
    expect(done(await node.fill([upstream]))).toMatchObject({ complete: true })
    await expectItems(node, 'health/who', NEW)
  })

  it('takes frames, once, for what patches do not yield', async () => {
    await using origin = await openOrigin()
    let harm = false
    await using server = await origin.serve(honest => (request, response) => {
      if (!harm || !request.url!.startsWith('/deltas/')) return honest(request, response)
      const { end } = response
      response.end = function (this: typeof response, ...args: [Buffer]) {
        if (args[0] instanceof Buffer) args[0] = Buffer.from(args[0]).fill(0x55, args[0].length >> 1)
        return Reflect.apply(end, this, args)
      } as typeof end
      return honest(request, response)
    })
    await using node = await openNode(origin.root)
    const upstream = node.upstream(server.url)
    await origin.publish('health/who', OLD)
    await node.fill([upstream])
    await origin.publish('health/who', NEW)
    await planOnce(node.request([upstream])) // the directory comes unharmed
    harm = true
    const events = await node.fill([upstream])
    expect(events.filter(({ type }) => type === 'fallback').length).toBeGreaterThan(0)
    expect(done(events).complete).toBe(true)
    await expectItems(node, 'health/who', NEW)
  })

  it('serves the old release until the new one is whole', async () => {
    await using origin = await openOrigin()
    let isCut = false
    await using server = await origin.serve(honest => (request, response) => {
      if (isCut && /^\/(packs|deltas)\//.test(request.url!)) return void response.socket!.destroy()
      return honest(request, response)
    })
    await using node = await openNode(origin.root)
    const upstream = node.upstream(server.url)
    await origin.publish('health/who', OLD)
    await node.fill([upstream])
    await origin.publish('health/who', NEW)
    isCut = true
    expect(done(await node.fill([upstream])).complete).toBe(false)
    await expectItems(node, 'health/who', OLD)
    isCut = false
    expect(done(await node.fill([upstream])).complete).toBe(true)
    await expectItems(node, 'health/who', NEW)
  })

  it('fills what is known to be missing when the upstream has expired or is not there for news', async () => {
    await using origin = await openOrigin()
    await using server = await origin.serve(honest => (request, response) => {
      if (blind && request.url!.startsWith('/metadata/')) return void response.writeHead(503).end()
      return honest(request, response)
    })
    let blind = false
    await using node = await openNode(origin.root)
    const upstream = node.upstream(server.url)
    await origin.publish('health/who', OLD)
    await planOnce(node.request([upstream]))
    blind = true
    expect(done(await node.fill([upstream])).contentBytes).toBeGreaterThan(5 * MIB)
    await expectItems(node, 'health/who', OLD)
  })

  it('stops within a second, and goes on with what is left', async () => {
    await using origin = await openOrigin()
    await using server = await origin.serve()
    await using node = await openNode(origin.root)
    const stop = new AbortController()
    let aborted = 0
    let spentBytes = 0
    const spend = (bytes: number, signal: AbortSignal) => {
      spentBytes += bytes
      if (spentBytes < 2 * MIB) return Promise.resolve()
      aborted ||= performance.now()
      stop.abort(new Error('window closed'))
      return new Promise<void>((_, stopped) => {
        if (signal.aborted) stopped(signal.reason)
        signal.addEventListener('abort', () => stopped(signal.reason))
      })
    }
    const upstream = node.upstream(server.url, { pace: { spend } })
    await origin.publish('health/who', OLD)
    await expect(node.fill([upstream], { signal: stop.signal })).rejects.toThrow('window closed')
    expect(performance.now() - aborted).toBeLessThan(1000)
    const { wire, complete } = done(await node.fill([node.upstream(server.url)]))
    expect(complete).toBe(true)
    expect(wire.down).toBeLessThan(4.5 * MIB)
    await expectItems(node, 'health/who', OLD)
  })

  it('is refused beforehand, with the shortfall, when it does not fit', async () => {
    await using origin = await openOrigin()
    await using server = await origin.serve()
    await using node = await openNode(origin.root, undefined, { hotBytesMax: 3 * MIB, warmBytesMax: 3 * MIB })
    await origin.publish('health/who', OLD)
    const before = node.upstream(server.url)
    await expect(node.fill([before])).rejects.toMatchObject({ code: 'STORE_FULL' })
    expect(before.wire.bytesDown).toBeLessThan(200_000)
  })

  it('goes through with several datasets, the more important first', async () => {
    await using origin = await openOrigin()
    await using server = await origin.serve()
    await using node = await openNode(origin.root)
    await origin.publish('media/films', { 'film.mp4': bytesOf('m', 3 * MIB) }, { priority: 3 })
    await origin.publish('health/who', { 'a.bin': bytesOf('h', 3 * MIB) }, { priority: 0 })
    await origin.publish('education/book', { 'b.bin': bytesOf('e', 3 * MIB) }, { priority: 1 })
    const events = await node.fill([node.upstream(server.url)], { concurrency: 1 })
    const frames = node.records.filter(({ reason }) => reason === 'frame').map(({ dataset }) => dataset)
    expect([...new Set(frames)]).toEqual(['health/who', 'education/book', 'media/films'])
    expect(frames).toEqual(frames.toSorted((a, b) => 'hem'.indexOf(a[0]!) - 'hem'.indexOf(b[0]!)))
    expect(events.filter(({ type }) => type === 'activated')).toHaveLength(3)
    expect(planned(events).datasets).toHaveLength(3)
  })
})
