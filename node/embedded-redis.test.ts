import { mkdtempDisposable, readdir } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { Redis } from 'ioredis'
import { describe, expect, it, vi } from 'vitest'
import { openEmbeddedRedis } from './embedded-redis.ts'

const folder = () => mkdtempDisposable(join(tmpdir(), 'towerlight-redis-'))

function openClient(path: string) {
  const client = new Redis(path, { lazyConnect: true })
  client.on('error', () => {}) // expected while it is down
  return Object.assign(client, { [Symbol.dispose]: () => client.disconnect() })
}

function isAlive(pid: number): boolean {
  try {
    return process.kill(pid, 0)
  } catch {
    return false
  }
}

describe('embedded redis', () => {
  it('answers on its socket, evicts nothing, writes nothing, and is gone afterwards', async () => {
    await using data = await folder()
    let pid: number
    {
      await using redis = await openEmbeddedRedis(data.path)
      pid = redis.pid!
      using client = openClient(redis.redisUrl)
      await client.set('key', 'value')
      expect(await client.get('key')).toBe('value')
      expect(await client.config('GET', 'maxmemory-policy')).toContain('noeviction')
      expect(await client.config('GET', 'port')).toContain('0')
    }
    expect(isAlive(pid)).toBe(false)
    expect(await readdir(data.path)).toEqual([])
  })

  it('is started again when it dies', async () => {
    await using data = await folder()
    await using redis = await openEmbeddedRedis(data.path)
    const first = redis.pid!
    process.kill(first, 'SIGKILL')
    await vi.waitFor(() => expect(redis.pid).not.toBe(first), { timeout: 10_000 })
    await vi.waitFor(() => expect(redis.pid).toBeDefined(), { timeout: 10_000 })
    using client = openClient(redis.redisUrl)
    expect(await client.ping()).toBe('PONG')
  })

  it('takes the place of one that a killed process left behind', async () => {
    await using data = await folder()
    await using left = await openEmbeddedRedis(data.path)
    const before = left.pid!
    await using redis = await openEmbeddedRedis(data.path)
    await vi.waitFor(() => expect(isAlive(before)).toBe(false), { timeout: 5_000 })
    using client = openClient(redis.redisUrl)
    expect(await client.info('server')).toContain(`process_id:${redis.pid}`)
  })

  it('finds a short socket path for a long folder', async () => {
    await using data = await folder()
    await using redis = await openEmbeddedRedis(join(data.path, 'long'.repeat(40)))
    expect(redis.redisUrl.length).toBeLessThan(108)
    using client = openClient(redis.redisUrl)
    expect(await client.ping()).toBe('PONG')
  })

  it('says that the program is not installed', async () => {
    await using data = await folder()
    await expect(openEmbeddedRedis(data.path, 'redis-server-that-is-not-there')).rejects.toMatchObject({
      code: 'DEPENDENCY_ABSENT',
    })
  })

  it('says why the program does not start', async () => {
    await using data = await folder()
    await expect(openEmbeddedRedis(data.path, 'false')).rejects.toMatchObject({ code: 'NOT_READY' })
  })
})
