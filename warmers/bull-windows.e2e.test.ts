import { Queue } from 'bullmq'
import { Redis } from 'ioredis'
import { describe, expect, it } from 'vitest'
import { openEmbeddedRedis } from '../node/embedded-redis.ts'
import { openBullWindows } from './bull-windows.ts'
import { parseLinks } from './link-settings.ts'
import { nextChangeMs } from './windows.ts'
import { temporaryFolder } from './testing.ts'

const settings = (start: string) => [
  { name: 'fibre' },
  { name: 'lte', windows: [{ name: 'night', start, minutes: 240, timeZone: 'Africa/Nairobi' }] },
  {
    name: 'satellite',
    windows: [{ days: ['sun'], start: '22:30', minutes: 90, timeZone: 'Africa/Nairobi' }],
  },
]

async function world() {
  const stack = new AsyncDisposableStack()
  const folder = stack.use(await temporaryFolder())
  const redis = stack.use(await openEmbeddedRedis(folder.path))
  const queue = new Queue('windows', { connection: { path: redis.redisUrl }, prefix: 'tower-a' })
  stack.defer(() => queue.close())
  return { redisUrl: redis.redisUrl, queue, [Symbol.asyncDispose]: () => stack.disposeAsync() }
}

describe('windows as job schedulers', () => {
  it('are as configured, with the beginnings that the node counts on, and put back when lost', async () => {
    await using at = await world()
    const links = parseLinks(settings('01:00'))
    const begun: string[] = []
    const options = { ...at, prefix: 'tower-a', onBegin: (link: string) => begun.push(link), lookMs: 100 }
    const known = async () => (await at.queue.getJobSchedulers()).map(({ key, next }) => ({ key, next }))
    {
      await using _windows = openBullWindows({ ...options, links })
      await expect.poll(known).toHaveLength(2)
      const next = new Map((await known()).map(scheduler => [scheduler.key, scheduler.next]))
      const nextOf = (link: number) => nextChangeMs([links[link]!], Date.now())
      expect([nextOf(1), nextOf(1) + 20 * 3_600_000]).toContain(next.get('lte night'))
      expect(next.get('satellite 0')).toBeGreaterThan(Date.now())
      const client = new Redis(at.redisUrl)
      await client.flushall()
      client.disconnect()
      await expect.poll(known, { timeout: 3000 }).toHaveLength(2)
    }
    await using _later = openBullWindows({ ...options, links: parseLinks(settings('02:00').slice(0, 2)) })
    await expect.poll(async () => (await known()).map(({ key }) => key)).toEqual(['lte night'])
    expect(begun).toEqual([])
  })

  it('wake the node when they begin', async () => {
    await using at = await world()
    const begun: string[] = []
    const onBegin = (link: string) => void begun.push(link)
    const links = parseLinks(settings('01:00'))
    await using _windows = openBullWindows({ ...at, prefix: 'tower-a', links, onBegin, lookMs: 100 })
    await expect.poll(() => at.queue.getJobSchedulersCount()).toBe(2)
    for (const job of await at.queue.getDelayed()) if (job.data.link === 'lte') await job.promote()
    await expect.poll(() => begun).toEqual(['lte'])
    await expect.poll(() => at.queue.getDelayedCount()).toBe(2)
  })
})
