/** Fills against everything that goes wrong on the other side, and with Redis going away. */
import { spawn, type ChildProcess } from 'node:child_process'
import { once } from 'node:events'
import { setTimeout as sleep } from 'node:timers/promises'
import { Redis } from 'ioredis'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { bytesOf } from '../node/store/testing.ts'
import { openBullQueue } from './bull-queue.ts'
import { fillOnce, type FillEvent } from './fill-once.ts'
import { openNode, openOrigin, type Files, type TestNode, type TestOrigin } from './test-world.ts'
import { serve, temporaryFolder, type Handler } from './testing.ts'

const MIB = 1024 * 1024
const FILES: Files = {
  'film.mp4': bytesOf('film', 6 * MIB),
  'table.csv': Array.from({ length: 30_000 }, (_, n) => `${n},${(n * 7919) % 1009}\n`).join(''),
  ...Object.fromEntries(Array.from({ length: 40 }, (_, n) => [`notes/${n}.txt`, `note ${n}`])),
}

let origin: TestOrigin
let packBytes = 0

beforeAll(async () => {
  origin = await openOrigin()
  const report = await origin.publish('health/who', FILES)
  packBytes = report.packBytes
}, 60_000)

afterAll(() => origin[Symbol.asyncDispose]())

async function expectWhole(node: TestNode) {
  const items = await node.items('health/who')
  for (const [path, bytes] of Object.entries(FILES))
    expect(items[path]!.equals(Buffer.from(bytes as Uint8Array)), path).toBe(true)
}

const isContent = (url = '') => url.startsWith('/packs/') || url.startsWith('/deltas/')

/** What a response's body becomes. */
const altered =
  (change: (bytes: Buffer) => Buffer) =>
  (honest: Handler): Handler =>
  (request, response) => {
    if (!isContent(request.url)) return honest(request, response)
    const { end } = response
    response.end = function (this: typeof response, ...args: [Buffer]) {
      if (args[0] instanceof Buffer) args[0] = change(args[0])
      return Reflect.apply(end, this, args)
    } as typeof end
    return honest(request, response)
  }

const evil: [string, (honest: Handler) => Handler][] = [
  ['sends wrong bytes', altered(bytes => Buffer.from(bytes).fill(0, bytes.length >> 1))],
  [
    'flips one bit in each answer',
    altered(bytes => {
      const flipped = Buffer.from(bytes)
      if (flipped.length > 0) flipped[flipped.length >> 1]! ^= 1
      return flipped
    }),
  ],
  [
    'sends less than it says',
    honest => (request, response) => {
      if (!isContent(request.url)) return honest(request, response)
      response.writeHead(206, {
        'content-range': request.headers.range!.replace('=', ' ') + '/9999999',
        'content-length': 5000,
      })
      response.write(Buffer.alloc(100))
      response.socket!.destroySoon()
    },
  ],
  [
    'sends without end',
    honest => (request, response) => {
      if (!isContent(request.url)) return honest(request, response)
      response.writeHead(200)
      const more = (): void =>
        void (response.writable && response.write(Buffer.alloc(65_536), () => setImmediate(more)))
      more()
    },
  ],
  [
    'answers 500 to all content',
    honest => (request, response) =>
      isContent(request.url) ? void response.writeHead(500).end() : honest(request, response),
  ],
  [
    'says nothing',
    honest => (request, response) => (isContent(request.url) ? undefined : honest(request, response)),
  ],
  [
    'redirects elsewhere',
    honest => (request, response) =>
      isContent(request.url)
        ? void response.writeHead(302, { location: 'http://192.0.2.1/' }).end()
        : honest(request, response),
  ],
]

describe('an upstream that', () => {
  it.each(evil)(
    '%s: the next one is used, and nothing wrong is stored',
    async (_, around) => {
      await using bad = await origin.serve(around)
      await using good = await origin.serve()
      await using node = await openNode(origin.root)
      const upstreams = [
        node.upstream(bad.url, { stall: { bytesMin: 1000, ms: 400 } }),
        node.upstream(good.url),
      ]
      const events = await node.fill(upstreams)
      expect(events.at(-1)).toMatchObject({ type: 'done', complete: true })
      await expectWhole(node)
    },
    30_000,
  )

  it.each(evil)(
    '%s, alone: the fill ends, says so, and can be finished later',
    async (_, around) => {
      await using bad = await origin.serve(around)
      await using good = await origin.serve()
      await using node = await openNode(origin.root)
      const alone = node.upstream(bad.url, { stall: { bytesMin: 1000, ms: 400 } })
      const failed = await node.fill([alone], { board: { attemptsMax: 2, pauseMs: 1, pauseMsMax: 1 } })
      expect(failed.at(-1)).toMatchObject({ type: 'done', complete: false })
      expect(failed.some(({ type }) => type === 'failed')).toBe(true)
      expect(alone.wire.bytesDown).toBeLessThan(40 * MIB)
      expect((await node.fill([node.upstream(good.url)])).at(-1)).toMatchObject({
        type: 'done',
        complete: true,
      })
      await expectWhole(node)
    },
    30_000,
  )

  it('has metadata of another repository is passed over', async () => {
    await using forged = await openOrigin()
    await forged.publish('health/who', { lie: 'x' })
    await using bad = await forged.serve()
    await using good = await origin.serve()
    await using node = await openNode(origin.root)
    const events = await node.fill([node.upstream(bad.url), node.upstream(good.url)])
    expect(events[0]).toMatchObject({ type: 'refreshed', upstream: node.upstream(good.url).name })
    expect(events.at(-1)).toMatchObject({ complete: true })
    await expectWhole(node)
  })

  it('has no ranges works, by one download of each file', async () => {
    await using server = await origin.serve(honest => (request, response) => {
      delete request.headers.range
      return honest(request, response)
    })
    await using node = await openNode(origin.root)
    const upstream = node.upstream(server.url)
    expect((await node.fill([upstream])).at(-1)).toMatchObject({ complete: true })
    await expectWhole(node)
    expect(upstream.wire.bytesDown).toBeLessThan(2 * packBytes + 100_000)
    expect(node.staged.sizeBytes).toBe(0)
  })

  it('cuts every connection after a while costs little more', async () => {
    let cuts = 0
    await using server = await origin.serve(honest => async (request, response) => {
      if (isContent(request.url) && cuts < 100) {
        const { end } = response
        response.end = function (this: typeof response, ...args: [Buffer]) {
          const bytes = args[0]
          if (!(bytes instanceof Buffer) || bytes.length < 40_000) return Reflect.apply(end, this, args)
          cuts++
          response.write(bytes.subarray(0, 40_000), () => response.socket?.destroySoon())
          return this
        } as typeof end
      }
      return await honest(request, response)
    })
    await using node = await openNode(origin.root)
    const upstream = node.upstream(server.url)
    expect((await node.fill([upstream])).at(-1)).toMatchObject({ complete: true })
    expect(cuts).toBeGreaterThan(30)
    expect(upstream.wire.bytesDown).toBeLessThan(1.05 * packBytes + 10_000)
    await expectWhole(node)
  })
})

describe('Redis', () => {
  async function redisServer() {
    const folder = await temporaryFolder()
    const url = `${folder.path}/redis.sock`
    let child: ChildProcess | undefined
    const start = async () => {
      child = spawn(
        'redis-server',
        ['--port', '0', '--unixsocket', url, '--save', '', '--dir', folder.path],
        { stdio: ['ignore', 'pipe', 'ignore'] },
      )
      for await (const line of child.stdout!) if (/ready to accept/i.test(String(line))) break
      child.stdout!.resume()
    }
    const kill = async () => {
      child!.kill('SIGKILL')
      if (child!.exitCode === null && child!.signalCode === null) await once(child!, 'exit')
    }
    await start()
    return {
      url,
      start,
      kill,
      [Symbol.asyncDispose]: async () => void (await kill(), await folder[Symbol.asyncDispose]()),
    }
  }

  it.each([
    ['killed', async (redis: Awaited<ReturnType<typeof redisServer>>) => redis.kill()],
    [
      'killed, and started again',
      async (redis: Awaited<ReturnType<typeof redisServer>>) => (await redis.kill(), await redis.start()),
    ],
    [
      'emptied',
      async ({ url }: Awaited<ReturnType<typeof redisServer>>) => {
        const client = new Redis(url)
        await client.flushall()
        client.disconnect()
      },
    ],
  ])(
    '%s in the middle of a fill: it finishes, and no byte comes twice',
    async (_, harm) => {
      await using redis = await redisServer()
      await using server = await origin.serve()
      await using node = await openNode(origin.root)
      await using queue = openBullQueue({ redisUrl: redis.url, prefix: 'tower-a', patienceMs: 500 })
      const upstream = node.upstream(server.url, { pace: { spend: () => sleep(20) }, connectionsMax: 2 })
      const events: FillEvent[] = []
      let harmed = false
      for await (const event of fillOnce(node.request([upstream], { queue }))) {
        events.push(event)
        if (harmed || event.type !== 'progress' || event.wireBytes < MIB) continue
        harmed = true
        await harm(redis)
      }
      expect(harmed).toBe(true)
      expect(events.at(-1)).toMatchObject({ type: 'done', complete: true })
      expect(upstream.wire.bytesDown).toBeLessThan(packBytes * 1.01 + 50_000)
      await expectWhole(node)
    },
    30_000,
  )
})

it('a server that is no repository is refused at once', async () => {
  await using server = await serve(
    (_, response) => void response.writeHead(200).end('<html>captive portal</html>'),
  )
  await using node = await openNode(origin.root)
  await expect(node.fill([node.upstream(server.url)])).rejects.toMatchObject({ code: 'TRUST_INVALID' })
})
