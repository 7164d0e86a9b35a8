/**
 * Items that are not here, that rot, or whose client leaves: over real sockets.
 */
import { randomBytes } from 'node:crypto'
import { once } from 'node:events'
import { connect } from 'node:net'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { type TestNode, startNode } from './test-client.ts'
import { type TestItem, TestLibrary } from './test-library.ts'

const BASE = '/data/education/physics'
const library = new TestLibrary()
library.add('small.txt', Buffer.from('0123456789'))

let node: TestNode
beforeAll(async () => {
  node = await startNode({ library })
})
afterAll(() => node[Symbol.asyncDispose]())

describe('what is not here', () => {
  const absentItem = (name: string, first: number, last: number): { item: TestItem; bytes: Buffer } => {
    const bytes = randomBytes(1_000_000)
    const item = library.add(name, bytes, { chunkBytes: 65_536 })
    item.faults.absent.push({ first, last })
    return { item, bytes }
  }

  it('is 503 with Retry-After when it cannot be had', async () => {
    const { item } = absentItem('absent.bin', 0, 999_999)
    for (const method of ['GET', 'HEAD']) {
      const { status, headers } = await node.ask(`${BASE}/absent.bin`, { method })
      expect([status, headers['retry-after'], headers['cache-status']]).toEqual([
        503,
        '120',
        'towerlight; fwd=miss',
      ])
    }
    const unchanged = await node.ask(`${BASE}/absent.bin`, {
      headers: { 'if-none-match': `"sha256-${item.sha256}"` },
    })
    expect(unchanged.status).toBe(304)
  })

  it('is served in its parts that are here', async () => {
    const { bytes } = absentItem('half.bin', 500_000, 999_999)
    const here = await node.ask(`${BASE}/half.bin`, { headers: { range: 'bytes=0-399999' } })
    expect(here.status).toBe(206)
    expect(here.body.equals(bytes.subarray(0, 400_000))).toBe(true)
    expect((await node.ask(`${BASE}/half.bin`, { headers: { range: 'bytes=0-600000' } })).status).toBe(503)
    expect(
      (await node.ask(`${BASE}/half.bin`, { headers: { range: 'bytes=0-9,600000-600009' } })).status,
    ).toBe(503)
    expect((await node.ask(`${BASE}/half.bin`)).headers['cache-status']).toBe('towerlight; fwd=partial')
  })

  it('is fetched while the client waits', async () => {
    const { item, bytes } = absentItem('fetched.bin', 100_000, 700_000)
    item.faults.recoverable = true
    const { status, headers, body } = await node.ask(`${BASE}/fetched.bin`)
    expect(status).toBe(200)
    expect(body.equals(bytes)).toBe(true)
    expect(headers['cache-status']).toMatch(/^towerlight; fwd=partial; stored; ttl=/)
    expect(item.faults.recoveries).toBe(10)
  })
})

describe('damage (I1)', () => {
  it('in the first chunk is a clean 503', async () => {
    const item = library.add('rotten.bin', randomBytes(1_000_000))
    item.faults.flipped.add(3)
    const answer = await node.ask(`${BASE}/rotten.bin`)
    expect([answer.status, answer.headers['retry-after']]).toEqual([503, '120'])
    const part = await node.ask(`${BASE}/rotten.bin`, { headers: { range: 'bytes=0-9' } })
    expect(part.status).toBe(503)
  })

  it('later on aborts the connection, and never ends the body short', async () => {
    const item = library.add('rotten-later.bin', randomBytes(1_000_000))
    item.faults.flipped.add(900_000)
    await expect(node.ask(`${BASE}/rotten-later.bin`)).rejects.toThrow('aborted')
  })

  it('is healed on the way where it can be', async () => {
    const bytes = randomBytes(1_000_000)
    const item = library.add('healed.bin', bytes)
    item.faults.recoverable = true
    for (const at of [0, 500_000, 999_999]) item.faults.flipped.add(at)
    const answer = await node.ask(`${BASE}/healed.bin`)
    expect([answer.status, answer.body.equals(bytes)]).toEqual([200, true])
  })

  it('is seen on the slow tier as well', async () => {
    const bytes = randomBytes(600_000)
    const item = library.add('warm.bin', bytes)
    item.faults.tier = 'warm'
    const answer = await node.ask(`${BASE}/warm.bin`)
    expect(answer.headers['cache-status']).toContain('detail=warm')
    expect(answer.body.equals(bytes)).toBe(true)
    item.faults.flipped.add(1)
    expect((await node.ask(`${BASE}/warm.bin`, { headers: { range: 'bytes=0-5' } })).status).toBe(503)
  })
})

it('tells staleness honestly', async () => {
  using stale = new TestLibrary()
  stale.freshness = { fresh: false, confirmedAt: '2025-01-01T00:00:00Z', expiresAt: '2025-01-08T00:00:00Z' }
  stale.add('a.txt', Buffer.from('a'))
  await using node = await startNode({ library: stale, now: () => Date.UTC(2025, 0, 10) })
  const { headers } = await node.ask(`${BASE}/a.txt`)
  expect(headers.age).toBe(String(9 * 86_400))
  expect(headers['cache-status']).toContain(`ttl=${-2 * 86_400};`)
  const page = await node.ask('/', { headers: { accept: 'text/html' } })
  expect(page.body.toString()).toContain('May be out of date')
})

it('survives clients that leave, and does not read on for them', async () => {
  const item = library.add('left.bin', randomBytes(20_000_000))
  const reads: number[] = []
  const readInto = item.readInto.bind(item)
  item.readInto = (slice, buffer) => {
    reads.push(slice.sizeBytes)
    readInto(slice, buffer)
  }
  const socket = connect(node.port, '127.0.0.1')
  socket.on('error', () => {})
  socket.write(`GET ${BASE}/left.bin HTTP/1.1\r\nHost: x\r\n\r\n`)
  await once(socket, 'data')
  socket.pause()
  const settled = await settledSum(reads)
  expect(settled).toBeLessThan(12_000_000) // kernel buffers and one backlog, not the item
  socket.destroy()
  expect((await node.ask(`${BASE}/small.txt`)).status).toBe(200)
  expect(await settledSum(reads)).toBeLessThan(12_000_000)
})

/** The sum once it no longer grows. */
async function settledSum(values: readonly number[]): Promise<number> {
  for (let before = -1; ; ) {
    await new Promise(resolve => setTimeout(resolve, 100))
    const sum = values.reduce((a, b) => a + b, 0)
    if (sum === before) return sum
    before = sum
  }
}

it('drops a client that takes nothing', async () => {
  await using strict = await startNode({ library }, { stallMs: 300 })
  const socket = connect(strict.port, '127.0.0.1')
  socket.on('error', () => {})
  socket.write(`GET ${BASE}/left.bin HTTP/1.1\r\nHost: x\r\n\r\n`)
  await once(socket, 'connect')
  socket.pause()
  await new Promise(resolve => setTimeout(resolve, 1_200))
  let received = 0
  socket.on('data', part => (received += part.length)).resume()
  await once(socket, 'close')
  expect(received).toBeLessThan(20_000_000)
})
