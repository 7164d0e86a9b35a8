/**
 * Items over real sockets: each answer class against the RFCs, and bytes against the item.
 */
import { createHash, randomBytes } from 'node:crypto'
import * as fc from 'fast-check'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { sha256Of } from '../../manifests/digest.ts'
import { createNodeServer } from './server.ts'
import { type Answer, type TestNode, ask, startNode } from './test-client.ts'
import { type TestItem, TestLibrary } from './test-library.ts'

const BASE = '/data/education/physics'
const library = new TestLibrary()
const small = library.add('small.txt', Buffer.from('0123456789'.repeat(10)))
const big = library.add('big.bin', randomBytes(3_000_000), { mediaType: 'video/mp4' })
const bigBytes = Buffer.concat(
  [...big.slices({ first: 0, last: big.sizeBytes - 1 })].map(slice => readChunk(big, slice)),
)
library.add('empty', Buffer.alloc(0))
library.add('page.html', Buffer.from('<script>1</script>'), { mediaType: 'text/html; charset=utf-8' })
library.add('picture.svg', Buffer.from('<svg/>'), { mediaType: 'image/svg+xml' })
library.add('tool.exe', Buffer.from('MZ'), { mediaType: 'application/octet-stream' })
library.add('odd "näme";.txt', Buffer.from('odd'))

let node: TestNode
beforeAll(async () => {
  node = await startNode({ library })
})
afterAll(() => node[Symbol.asyncDispose]())

function readChunk(item: TestItem, slice: Parameters<TestItem['readInto']>[0]): Buffer {
  const buffer = Buffer.alloc(slice.sizeBytes)
  item.readInto(slice, buffer)
  return buffer
}

/** What must be the same for HEAD and GET. */
function fieldsOf({ headers }: Answer): object {
  const rest: Answer['headers'] = { ...headers, date: '', age: '', connection: '' }
  return { ...rest, 'cache-status': rest['cache-status']?.replace(/ttl=-?\d+; detail=\w+/, '') }
}

const digestOf = (bytes: Buffer): string => `sha-256=:${createHash('sha256').update(bytes).digest('base64')}:`

describe('a whole item', () => {
  it('comes with its identity', async () => {
    const { status, headers, body } = await node.ask(`${BASE}/big.bin`)
    expect(status).toBe(200)
    expect(body.equals(bigBytes)).toBe(true)
    expect(headers).toMatchObject({
      etag: `"sha256-${big.sha256}"`,
      'repr-digest': digestOf(bigBytes),
      'content-type': 'video/mp4',
      'content-length': '3000000',
      'accept-ranges': 'bytes',
      'last-modified': 'Thu, 02 Jan 2025 03:04:05 GMT',
      'x-content-type-options': 'nosniff',
      'access-control-allow-origin': '*',
    })
    expect(headers['cache-control']).toMatch(
      /^public, max-age=60, stale-while-revalidate=\d+, stale-if-error=\d+$/,
    )
    expect(headers['cache-status']).toMatch(/^towerlight; hit; ttl=\d+; detail=hot$/)
    expect(Number(headers.age)).toBeGreaterThanOrEqual(60)
  })

  it('is immutable by digest', async () => {
    const { status, headers, body } = await node.ask(`/sha256/${big.sha256}`)
    expect(status).toBe(200)
    expect(body.equals(bigBytes)).toBe(true)
    expect(headers['cache-control']).toBe('public, max-age=31536000, immutable')
  })

  it('comes from memory when it is small and asked for again', async () => {
    const answers: Answer[] = []
    for (let i = 0; i < 4; i++) answers.push(await node.ask(`${BASE}/small.txt`))
    expect(answers.map(({ body }) => body.toString())).toEqual(Array(4).fill('0123456789'.repeat(10)))
    expect(answers[0]?.headers['cache-status']).toContain('detail=hot')
    expect(answers[3]?.headers['cache-status']).toContain('detail=memory')
  })

  it('is known to be wanted by the tiers below, even when memory answers', async () => {
    const item = library.add('wanted.txt', Buffer.from('wanted'))
    let now = 1_750_000_000_000
    await using clocked = await startNode({ library, now: () => now })
    for (let i = 0; i < 20; i++) {
      now += 500
      expect((await clocked.ask(`${BASE}/wanted.txt`)).status).toBe(200)
    }
    expect(item.faults.uses).toBeGreaterThanOrEqual(8)
    expect(item.faults.uses).toBeLessThanOrEqual(11)
  })

  it('ends with its last bytes: who has all of it may leave at once, and was served', async () => {
    await using own = createNodeServer({ library })
    const { port } = await own.listen({ port: 0 })
    const endings: number[] = []
    own.server.prependListener('request', (_, res) => {
      const end = res.end.bind(res) as (...args: unknown[]) => typeof res
      res.end = ((...args: unknown[]) => {
        endings.push(Buffer.isBuffer(args[0]) ? args[0].length : 0)
        return end(...args)
      }) as typeof res.end
    })
    expect((await ask(port, `${BASE}/big.bin`)).body.equals(bigBytes)).toBe(true)
    const { body } = await ask(port, `${BASE}/big.bin`, { headers: { range: 'bytes=5-500004' } })
    expect(body.equals(bigBytes.subarray(5, 500_005))).toBe(true)
    expect(endings).toHaveLength(2)
    for (const bytes of endings) expect(bytes).toBeGreaterThan(0)
  })

  it('may be empty', async () => {
    const { status, headers, body } = await node.ask(`${BASE}/empty`)
    expect([status, headers['content-length'], body.length]).toEqual([200, '0', 0])
    expect((await node.ask(`${BASE}/empty`, { headers: { range: 'bytes=0-' } })).status).toBe(416)
  })

  it('has the same fields for HEAD as for GET', async () => {
    for (const path of [
      '/small.txt',
      '/big.bin',
      '/empty',
      '/page.html',
      '/tool.exe',
      '/nothing',
      '/small.txt?download',
    ]) {
      const head = await node.ask(BASE + path, { method: 'HEAD' })
      const get = await node.ask(BASE + path)
      const again = await node.ask(BASE + path, { method: 'HEAD' })
      expect(head.body.length).toBe(0)
      expect([head.status, again.status]).toEqual([get.status, get.status])
      expect(fieldsOf(head)).toEqual(fieldsOf(get))
      expect(fieldsOf(again)).toEqual(fieldsOf(get))
    }
  })

  it('is kept from harming the portal', async () => {
    for (const path of ['/page.html', '/picture.svg']) {
      const { headers } = await node.ask(BASE + path)
      expect(headers['content-security-policy']).toMatch(/^sandbox (?!.*allow-same-origin)/)
    }
    expect((await node.ask(`${BASE}/tool.exe`)).headers['content-disposition']).toContain('attachment')
    expect((await node.ask(`${BASE}/small.txt`)).headers['content-disposition']).toBeUndefined()
  })

  it('is saved under its name with ?download', async () => {
    const { headers } = await node.ask(`${BASE}/${encodeURIComponent('odd "näme";.txt')}?download`)
    expect(headers['content-disposition']).toBe(
      `attachment; filename="odd _n_me__.txt"; filename*=UTF-8''odd%20%22n%C3%A4me%22%3B.txt`,
    )
  })
})

describe('ranges', () => {
  it.each([
    ['bytes=0-0', 0, 0],
    ['bytes=10-19', 10, 19],
    ['bytes=-7', 2_999_993, 2_999_999],
    ['bytes=2999990-', 2_999_990, 2_999_999],
    ['bytes=100000-900000', 100_000, 900_000],
  ])('%s', async (range, first, last) => {
    const { status, headers, body } = await node.ask(`${BASE}/big.bin`, { headers: { range } })
    expect(status).toBe(206)
    expect(headers['content-range']).toBe(`bytes ${first}-${last}/3000000`)
    expect(headers['content-length']).toBe(String(last - first + 1))
    expect(headers['content-type']).toBe('video/mp4')
    expect(headers['repr-digest']).toBe(digestOf(bigBytes))
    const part = bigBytes.subarray(first, last + 1)
    expect(body.equals(part)).toBe(true)
    if (part.length <= 32_768) expect(headers['content-digest']).toBe(digestOf(part))
  })

  it('several at once are multipart/byteranges', async () => {
    const range = 'bytes=0-9, 1000000-1000009, -5'
    const { status, headers, body } = await node.ask(`${BASE}/big.bin`, { headers: { range } })
    expect(status).toBe(206)
    expect(headers['content-length']).toBe(String(body.length))
    expect(headers['content-range']).toBeUndefined()
    const parts = parseMultipart(headers['content-type']!, body)
    expect(parts.map(({ range }) => range)).toEqual([
      'bytes 0-9/3000000',
      'bytes 1000000-1000009/3000000',
      'bytes 2999995-2999999/3000000',
    ])
    expect(parts[1]?.body.equals(bigBytes.subarray(1_000_000, 1_000_010))).toBe(true)
  })

  it('outside is 416 with the size', async () => {
    const { status, headers } = await node.ask(`${BASE}/small.txt`, { headers: { range: 'bytes=100-' } })
    expect([status, headers['content-range'], headers['content-type']]).toEqual([
      416,
      'bytes */100',
      'application/problem+json',
    ])
  })

  it.each(['bytes=5-2', 'lines=1-2', `bytes=${Array.from({ length: 1_000 }, (_, i) => `${i}-${i}`).join()}`])(
    'ignores %.40s',
    async range => {
      const { status, body } = await node.ask(`${BASE}/small.txt`, { headers: { range } })
      expect([status, body.length]).toEqual([200, 100])
    },
  )

  it('never apply to HEAD', async () => {
    const { status, headers } = await node.ask(`${BASE}/small.txt`, {
      method: 'HEAD',
      headers: { range: 'bytes=0-1' },
    })
    expect([status, headers['content-length'], headers['content-range']]).toEqual([200, '100', undefined])
  })

  it('equal the item, whatever is asked', async () => {
    const spec = fc.oneof(
      fc.tuple(fc.nat(3_100_000), fc.nat(200_000)).map(([first, length]) => `${first}-${first + length}`),
      fc.nat(3_100_000).map(first => `${first}-`),
      fc.nat(300_000).map(suffix => `-${suffix}`),
    )
    await fc.assert(
      fc.asyncProperty(fc.array(spec, { minLength: 1, maxLength: 4 }), async specs => {
        const { status, headers, body } = await node.ask(`${BASE}/big.bin`, {
          headers: { range: `bytes=${specs.join()}` },
        })
        if (status === 416) return
        expect(status).toBe(206)
        const parts = headers['content-range']
          ? [{ range: headers['content-range'], body }]
          : parseMultipart(headers['content-type']!, body)
        for (const { range, body } of parts) {
          const [, first, last] = /^bytes (\d+)-(\d+)\/3000000$/.exec(range)!
          if (!body.equals(bigBytes.subarray(Number(first), Number(last) + 1)))
            throw new Error(`wrong bytes in ${range}`)
        }
      }),
      { numRuns: 150 },
    )
  })
})

describe('conditions', () => {
  const etag = `"sha256-${small.sha256}"`
  it.each([
    [{ 'if-none-match': etag }, 304],
    [{ 'if-none-match': '"other"' }, 200],
    [{ 'if-modified-since': 'Thu, 02 Jan 2025 03:04:05 GMT' }, 304],
    [{ 'if-match': '"other"' }, 412],
    [{ 'if-match': etag }, 200],
    [{ 'if-unmodified-since': 'Thu, 02 Jan 2024 03:04:05 GMT' }, 412],
    [{ 'if-none-match': etag, range: 'bytes=0-1' }, 304],
    [{ 'if-range': etag, range: 'bytes=0-1' }, 206],
    [{ 'if-range': '"other"', range: 'bytes=0-1' }, 200],
    [{ 'if-range': 'Thu, 02 Jan 2025 03:04:05 GMT', range: 'bytes=0-1' }, 206],
    [{ 'if-range': '"other"', range: 'bytes=900-' }, 200],
  ] as const)('%j: %d', async (headers, expected) => {
    for (const method of ['GET', 'HEAD']) {
      const { status, headers: fields, body } = await node.ask(`${BASE}/small.txt`, { method, headers })
      expect(status).toBe(method === 'HEAD' && expected === 206 ? 200 : expected)
      expect(fields.etag).toBe(etag)
      if (status === 304) {
        expect(body.length).toBe(0)
        expect(fields['cache-control']).toContain('max-age')
        expect(fields['content-type']).toBeUndefined()
        expect(fields['content-length']).toBeUndefined()
      }
    }
  })
})

describe('digests on wish', () => {
  it.each([
    ['/small.txt', {}, true, false],
    ['/small.txt', { 'want-repr-digest': 'sha-256=0' }, false, false],
    ['/small.txt', { 'want-repr-digest': 'sha-512=5, sha-256=10' }, true, false],
    ['/small.txt', { 'want-content-digest': 'sha-256=1' }, true, true],
    ['/small.txt', { range: 'bytes=0-9', 'want-content-digest': 'sha-256=0' }, true, false],
    ['/big.bin', { range: 'bytes=5-400004' }, true, false],
    ['/big.bin', { range: 'bytes=5-400004', 'want-content-digest': 'sha-256=3' }, true, true],
  ] as const)('%s %j', async (path, headers, repr, content) => {
    const answer = await node.ask(BASE + path, { headers })
    expect(answer.headers['repr-digest'] !== undefined).toBe(repr)
    expect(answer.headers['content-digest']).toBe(content ? digestOf(answer.body) : undefined)
  })
})

describe('problems', () => {
  it.each([
    ['GET', `${BASE}/nothing`, 404, 'ITEM_UNKNOWN'],
    ['GET', '/data/education/nothing/x', 404, 'DATASET_UNKNOWN'],
    ['GET', `/sha256/${'0'.repeat(64)}`, 404, 'ITEM_UNKNOWN'],
    ['GET', `${BASE}/../../etc/passwd`, 400, 'PATH_INVALID'],
    ['GET', `${BASE}/%2e%2e/x`, 400, 'PATH_INVALID'],
    ['GET', `${BASE}/dir/../`, 400, 'PATH_INVALID'],
    ['GET', '/sha256/xyz', 400, 'PATH_INVALID'],
    ['DELETE', `${BASE}/small.txt`, 405, 'METHOD_NOT_ALLOWED'],
    ['POST', '/nowhere', 405, 'METHOD_NOT_ALLOWED'],
    ['GET', '/nowhere', 404, 'NOT_FOUND'],
    ['GET', '/api/v1/nothing', 404, 'NOT_FOUND'],
    ['GET', '/api/v1/items?after=x', 400, 'REQUEST_INVALID'],
    ['GET', '/api/v1/items?limit=x', 400, 'REQUEST_INVALID'],
  ])('%s %s: %d %s', async (method, path, status, code) => {
    const answer = await node.ask(path, { method })
    expect(answer.status).toBe(status)
    expect(answer.headers['content-type']).toBe('application/problem+json')
    expect(answer.headers['cache-control']).toBe('no-store')
    expect(JSON.parse(answer.body.toString())).toMatchObject({ type: 'about:blank', status, code })
    if (status === 405) expect(answer.headers.allow).toContain('GET')
  })

  it('says 410 for a denied item', async () => {
    const item = library.add('denied.txt', Buffer.from('denied'))
    item.faults.denied = true
    expect((await node.ask(`${BASE}/denied.txt`)).status).toBe(410)
    expect((await node.ask(`/sha256/${item.sha256}`)).status).toBe(410)
  })

  it('answers OPTIONS for scripts of other origins', async () => {
    const { status, headers } = await node.ask(`${BASE}/small.txt`, { method: 'OPTIONS' })
    expect([status, headers.allow, headers['access-control-allow-origin']]).toEqual([
      204,
      'GET, HEAD, OPTIONS',
      '*',
    ])
    expect(headers['access-control-allow-headers']).toContain('Range')
  })
})

interface Part {
  readonly range: string
  readonly body: Buffer
}

function parseMultipart(contentType: string, body: Buffer): Part[] {
  const [, boundary] = /^multipart\/byteranges; boundary=([\w-]{1,70})$/.exec(contentType)!
  const text = body.toString('latin1')
  const pieces = `\r\n${text}`.split(`\r\n--${boundary}`)
  expect(pieces[0]).toBe('')
  expect(pieces.at(-1)).toBe('--\r\n')
  return pieces.slice(1, -1).map(piece => {
    const end = piece.indexOf('\r\n\r\n')
    return {
      range: /Content-Range: (.*)/.exec(piece.slice(0, end))![1]!.trim(),
      body: Buffer.from(piece.slice(end + 4), 'latin1'),
    }
  })
}

it('knows its own identity', () => {
  expect(sha256Of(bigBytes)).toBe(big.sha256)
})
