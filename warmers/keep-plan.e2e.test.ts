import { expect, it } from 'vitest'
import { bytesOf } from '../node/store/testing.ts'
import { openDemand } from './demand.ts'
import { openNode, openOrigin, signal, type TestNode } from './test-world.ts'

const MIB = 1024 * 1024
const DAY_MS = 86_400_000
const ITEMS = Object.fromEntries(
  Array.from({ length: 12 }, (_, n) => [`item-${String(n).padStart(2, '0')}.bin`, bytesOf(`keep ${n}`, MIB)]),
)

function here(node: TestNode, dataset = 'media/films'): Set<string> {
  const whole = (path: string) => {
    const item = node.releases.open(dataset, path)
    return item.residency({ first: 0, last: item.sizeBytes - 1 }).state === 'present'
  }
  return new Set(Object.keys(ITEMS).filter(whole))
}

it('of what does not fit, what people ask for is held, and what a window brought is not fetched in turns', {
  timeout: 30_000,
}, async () => {
  await using origin = await openOrigin()
  await using server = await origin.serve()
  await using node = await openNode(origin.root, undefined, { hotBytesMax: 2 * MIB, warmBytesMax: 4 * MIB })
  await origin.publish('media/films', ITEMS, { priority: 3 })
  let nowMs = Date.now()
  using demand = openDemand(':memory:', () => nowMs)
  const fill = async () => {
    const upstream = node.upstream(server.url)
    const events = await node.fill([upstream], { demand, now: () => nowMs })
    await node.store.settled()
    const failed = events.filter(({ type }) => type === 'failed')
    expect(failed).toEqual([])
    return upstream.wire.bytesDown
  }

  await fill()
  const first = here(node)
  expect(first.size).toBeGreaterThanOrEqual(4)
  expect(first.size).toBeLessThan(7)
  nowMs += DAY_MS
  expect(await fill()).toBeLessThan(100_000)
  expect(here(node)).toEqual(first)

  const absent = Object.keys(ITEMS).filter(path => !first.has(path))
  const wanted = absent.slice(0, 3)
  for (let day = 0; day < 4; day++, nowMs += DAY_MS) {
    for (const path of wanted) demand.asked('media/films', path, nowMs - 10 * DAY_MS)
  }
  await fill()
  for (const path of wanted) expect(here(node)).toContain(path)
  expect(node.store.usage().hotBytes + node.store.usage().warmBytes).toBeLessThanOrEqual(6 * MIB)

  const kept = here(node)
  expect(await fill()).toBeLessThan(100_000)
  expect(here(node)).toEqual(kept)
  for (const path of kept) {
    const item = node.releases.open('media/films', path)
    for (const slice of item.slices({ first: 0, last: item.sizeBytes - 1 })) {
      await item.read(slice, Buffer.alloc(slice.sizeBytes), { signal })
    }
  }
})
