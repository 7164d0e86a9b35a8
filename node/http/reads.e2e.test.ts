import { expect, it } from 'vitest'
import { startNode } from './test-client.ts'
import { TestLibrary } from './test-library.ts'

it('every way to end a request for an item is counted once, with its tier or kind of miss, and told on', async () => {
  using library = new TestLibrary()
  const asked: string[] = []
  await using node = await startNode({ library, onAsked: ({ path }) => asked.push(path) })
  const hot = library.add('hot.bin', Buffer.alloc(300_000, 1))
  const small = library.add('small.txt', Buffer.from('small'))
  const warm = library.add('warm.bin', Buffer.alloc(20_000, 2))
  warm.faults.tier = 'warm'
  const gone = library.add('gone.bin', Buffer.alloc(1000, 3))
  gone.faults.absent.push({ first: 0, last: 999 })
  const brought = library.add('brought.bin', Buffer.alloc(1000, 4))
  brought.faults.absent.push({ first: 0, last: 999 })
  brought.faults.recoverable = true

  const get = (path: string, headers = {}) => node.ask(`/data/education/physics/${path}`, { headers })
  await get('hot.bin')
  await get('hot.bin', { range: 'bytes=0-9' })
  await get('hot.bin', { range: 'bytes=5000-5009' }) // a player that seeks: read again, not asked for again
  await get('hot.bin', { 'if-none-match': '*' }) // no bytes: neither hit nor miss
  await node.ask('/data/education/physics/hot.bin', { method: 'HEAD' })
  await get('warm.bin')
  for (let time = 0; time < 4; time++) await get('small.txt')
  expect((await get('gone.bin')).status).toBe(503)
  expect((await get('brought.bin')).status).toBe(200)
  await get('unknown.bin')

  const text = (await node.ask('/metrics')).body.toString()
  const counted = (metric: string) =>
    Object.fromEntries(
      [
        ...text.matchAll(
          new RegExp(`^${metric}\\{outcome="(\\w+)",dataset="education/physics",class="P1"\\} (\\d+)`, 'gm'),
        ),
      ].map(([, outcome, value]) => [outcome, Number(value)]),
    )
  expect(counted('tower_reads_total')).toEqual({ hot: 5, warm: 1, memory: 2, absent: 1, fetched: 1 })
  expect(counted('tower_read_bytes_total')).toMatchObject({
    hot: 300_030,
    warm: 20_000,
    absent: 1000,
    fetched: 1000,
  })
  expect(text).toMatch(/^tower_hit_ratio_drift_alert 0$/m)
  expect(asked.filter(path => path === 'hot.bin')).toHaveLength(2)
  expect(asked).toContain('gone.bin')
  expect(hot.faults.uses).toBe(3)
  expect(small.faults.uses).toBeGreaterThan(0)
})
