/**
 * The server as a whole: limits and hostile requests over raw sockets, the pages, the API, `/repo/`.
 */
import { randomBytes } from 'node:crypto'
import { connect } from 'node:net'
import { pino } from 'pino'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import type { RepoView } from './repo-handler.ts'
import { createNodeServer } from './server.ts'
import { type TestNode, startNode } from './test-client.ts'
import { TestLibrary } from './test-library.ts'

const BASE = '/data/education/physics'
const library = new TestLibrary()
library.add('small.txt', Buffer.from('0123456789'))
library.add('book/chapter one.html', Buffer.from('<h1>1</h1>'), { mediaType: 'text/html; charset=utf-8' })
library.add('book/index.html', Buffer.from('<h1>0</h1>'), { mediaType: 'text/html; charset=utf-8' })
library.add('<script>alert(1)</script>.txt', Buffer.from('x'))
library
  .add('half.bin', randomBytes(300_000), { dataset: 'health/leaflets' })
  .faults.absent.push({ first: 200_000, last: 299_999 })

const files = new Map([
  ['metadata/timestamp.json', Buffer.from('{"t":1}')],
  ['metadata/1.root.json', Buffer.from('{"r":1}')],
  ['packs/x.pack', randomBytes(1_000_000)],
])
const repo: RepoView = {
  size: async path => files.get(path)?.length,
  read: async (path, { offset, length }) => files.get(path)?.subarray(offset, offset + length),
}

let node: TestNode
const logged: string[] = []
beforeAll(async () => {
  const log = pino({ level: 'trace' }, { write: line => void logged.push(line) })
  node = await startNode({ library, repo, log, status: () => ({ version: '0.1.0', queue: { waiting: 2 } }) })
})
afterAll(() => node[Symbol.asyncDispose]())

describe('hostile requests', () => {
  const end = 'Host: x\r\nConnection: close\r\n\r\n'
  it.each([
    [
      'CL and TE',
      `POST ${BASE}/small.txt HTTP/1.1\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n${end}0\r\n\r\n`,
      '400',
    ],
    [
      'two lengths',
      `GET ${BASE}/small.txt HTTP/1.1\r\nContent-Length: 5\r\nContent-Length: 6\r\n${end}`,
      '400',
    ],
    ['a bad chunk', `POST ${BASE}/small.txt HTTP/1.1\r\nTransfer-Encoding: chunked\r\n${end}zz\r\n`, '40'],
    ['an unknown coding', `GET ${BASE}/small.txt HTTP/1.1\r\nTransfer-Encoding: xchunked\r\n${end}`, '501'],
    ['a folded field', `GET ${BASE}/small.txt HTTP/1.1\r\nX-A: 1\r\n folded\r\n${end}`, '400'],
    ['a space before the colon', `GET ${BASE}/small.txt HTTP/1.1\r\nX-A : 1\r\n${end}`, '400'],
    ['a bare LF', `GET ${BASE}/small.txt HTTP/1.1\nHost: x\n\n`, '400'],
    ['no host', `GET ${BASE}/small.txt HTTP/1.1\r\nConnection: close\r\n\r\n`, '400'],
    ['HTTP/2 in the clear', 'PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n', '40'],
    ['a NUL in the target', `GET ${BASE}/a\0b HTTP/1.1\r\n${end}`, '400'],
    ['20 KiB of one field', `GET ${BASE}/small.txt HTTP/1.1\r\nX-A: ${'a'.repeat(20_000)}\r\n${end}`, '431'],
    ['1,000 fields', `GET ${BASE}/small.txt HTTP/1.1\r\n${'a:b\r\n'.repeat(1_000)}${end}`, '431'],
    ['a target of 20 KiB', `GET /data/${'a'.repeat(20_000)} HTTP/1.1\r\n${end}`, '4'],
    ['a climb', `GET ${BASE}/../../../../etc/passwd HTTP/1.1\r\n${end}`, '400'],
    ['a climb in absolute form', `GET http://x${BASE}/../../small.txt HTTP/1.1\r\n${end}`, '400'],
    ['a range in another unit', `GET ${BASE}/small.txt HTTP/1.1\r\nRange: lines=1-2\r\n${end}`, '200'],
    ['the absolute form', `GET http://x${BASE}/small.txt HTTP/1.1\r\n${end}`, '200'],
    ['HTTP/1.0', `GET ${BASE}/small.txt HTTP/1.0\r\n\r\n`, '200'],
    ['CONNECT', `CONNECT x:80 HTTP/1.1\r\n${end}`, ''],
    [
      'an upgrade',
      `GET ${BASE}/small.txt HTTP/1.1\r\nUpgrade: websocket\r\nHost: x\r\nConnection: Upgrade, close\r\n\r\n`,
      '200',
    ],
  ])('%s: %s', async (_, request, status) => {
    const received = await node.raw(request)
    expect(received.startsWith(`HTTP/1.1 ${status}`) || (status === '' && received === '')).toBe(true)
    expect(received.match(/HTTP\/1\.1 \d/g)?.length ?? 0).toBeLessThanOrEqual(1)
    expect((await node.ask('/livez')).status).toBe(200)
  })

  it('a smuggled second request is never answered', async () => {
    const inner = 'GET /livez HTTP/1.1\r\nHost: x\r\n\r\n'
    const smuggle = `GET ${BASE}/small.txt HTTP/1.1\r\nHost: x\r\nContent-Length: ${inner.length}\r\n\r\n${inner}GET /nowhere HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n`
    const received = await node.raw(smuggle)
    expect(received.match(/HTTP\/1\.1 \d{3}/g)).toEqual(['HTTP/1.1 200', 'HTTP/1.1 404'])
  })

  it('pipelined requests are answered in order', async () => {
    const gets = ['small.txt', 'half', 'small.txt'].map(path => `GET ${BASE}/${path} HTTP/1.1\r\nHost: x\r\n`)
    const received = await node.raw(`${gets.join('\r\n')}Connection: close\r\n\r\n`)
    expect(received.match(/HTTP\/1\.1 \d{3}/g)).toEqual(['HTTP/1.1 200', 'HTTP/1.1 404', 'HTTP/1.1 200'])
  })

  it('a head that never ends is cut off', async () => {
    await using strict = await startNode({ library }, { headersMs: 300, requestMs: 600 })
    const started = performance.now()
    const received = await strict.raw('GET / HTTP/1.1\r\nHost: x\r\nX-Slow: ', 8_000)
    expect(received).toMatch(/^HTTP\/1\.1 408/)
    expect(performance.now() - started).toBeLessThan(5_000)
  })

  it('no more connections than allowed', async () => {
    await using strict = await startNode({ library }, { connectionsMax: 2 })
    const sockets = Array.from({ length: 4 }, () => connect(strict.port, '127.0.0.1').on('error', () => {}))
    const closed = await Promise.all(
      sockets.map(
        socket =>
          new Promise(resolve => {
            socket.on('close', () => resolve(true))
            socket.setTimeout(500, () => resolve(false))
          }),
      ),
    ) // prettier-ignore
    expect(closed.filter(Boolean).length).toBe(2)
    for (const socket of sockets) socket.destroy()
  })
})

it('a port in use is an error that says what to do', async () => {
  const other = createNodeServer({ library })
  await expect(other.listen({ port: node.port })).rejects.toMatchObject({
    code: 'PORT_IN_USE',
    message: expect.stringContaining('TOWER_PORT'),
  })
  await other.close(0)
})

it('closing lets open answers finish', async () => {
  const server = createNodeServer({ library })
  library.add('long.bin', randomBytes(8_000_000))
  const { port } = await server.listen({ port: 0 })
  const response = await fetch(`http://127.0.0.1:${port}${BASE}/long.bin`)
  const closed = server.close(5_000)
  expect((await response.arrayBuffer()).byteLength).toBe(8_000_000)
  await closed
  await expect(fetch(`http://127.0.0.1:${port}/livez`)).rejects.toThrow('fetch failed')
})

describe('listings', () => {
  it('are pages for people', async () => {
    for (const path of [
      '/',
      '/data/',
      '/data/education/',
      `${BASE}/`,
      `${BASE}/book/`,
      '/search?q=chapter',
      '/search',
      '/status',
    ]) {
      const { status, headers, body } = await node.ask(path, { headers: { accept: 'text/html,*/*;q=0.8' } })
      expect([path, status, headers['content-type']]).toEqual([path, 200, 'text/html; charset=UTF-8'])
      expect(headers['content-security-policy']).toContain("default-src 'none'")
      const page = body.toString()
      expect(page).toContain('<html lang="en">')
      expect(page.match(/<h1>/g)?.length).toBe(1)
      expect(page).not.toContain('<script')
    }
  })

  it('show names as text and links that work', async () => {
    const page = (await node.ask(`${BASE}/`)).body.toString()
    expect(page).toContain('&lt;script&gt;alert(1)')
    const links = [...page.matchAll(/href="(\/data\/[^"]+)"/g)].map(([, link]) =>
      link!.replaceAll('&amp;', '&'),
    )
    expect(links.length).toBeGreaterThan(4)
    for (const link of links) expect([link, (await node.ask(link)).status]).toEqual([link, 200])
  })

  it('find by name', async () => {
    const page = (await node.ask('/search?q=CHAPTER')).body.toString()
    expect(page).toContain('/data/education/physics/book/chapter%20one.html')
    expect((await node.ask('/search?q=%3Cimg%3E')).body.toString()).not.toContain('<img>')
  })

  it('tell how much is here', async () => {
    expect((await node.ask('/data/health/leaflets/')).body.toString()).toMatch(/6\d %/)
  })

  it('are JSON for programs, item by item as the API has them', async () => {
    const headers = { accept: 'application/json' }
    const listing = JSON.parse((await node.ask('/data/health/leaflets/', { headers })).body.toString())
    const api = JSON.parse((await node.ask('/api/v1/items?dataset=health%2Fleaflets')).body.toString())
    expect(listing.items).toEqual(api.items)
    expect(listing.items[0]).toMatchObject({
      present: 200_000,
      expected: 300_000,
      url: '/data/health/leaflets/half.bin',
    })
    const all = JSON.parse((await node.ask('/data/', { headers })).body.toString())
    expect(all.datasets.map(({ dataset }: { dataset: string }) => dataset)).toEqual([
      'education/physics',
      'health/leaflets',
    ])
  })

  it('redirect to their slash', async () => {
    for (const path of ['/data', '/data/education', BASE, `${BASE}/book`]) {
      const { status, headers } = await node.ask(path)
      expect([path, status, headers.location]).toEqual([path, 308, `${path}/`])
    }
  })

  it('know no such folder', async () => {
    for (const path of ['/data/nobody/', '/data/education/nothing/', `${BASE}/nothing/`]) {
      expect([path, (await node.ask(path)).status]).toEqual([path, 404])
    }
  })

  it('answer people with a page when something is missing', async () => {
    const headers = { accept: 'text/html,application/xhtml+xml' }
    for (const path of ['/nowhere', `${BASE}/nothing`, `${BASE}/nothing/`]) {
      const { status, headers: fields, body } = await node.ask(path, { headers })
      expect([path, status, fields['content-type']]).toEqual([path, 404, 'text/html; charset=UTF-8'])
      expect(body.toString()).toContain('<h1>Not found</h1>')
    }
  })
})

describe('the API', () => {
  it('pages through all items with all their fields', async () => {
    const seen: string[] = []
    for (let after: string | null = ''; after !== null; ) {
      const url: string = `/api/v1/items?limit=2${after === '' ? '' : `&after=${encodeURIComponent(after)}`}`
      const page = JSON.parse((await node.ask(url)).body.toString()) as {
        items: { path: string }[]
        next: string | null
      }
      for (const item of page.items) {
        expect(Object.keys(item).toSorted()).toEqual([
          'cid',
          'dataset',
          'expected',
          'mediaType',
          'path',
          'pinned',
          'present',
          'priority',
          'revision',
          'sha256',
          'size',
          'tier',
          'url',
          'verifiedAt',
        ])
        seen.push(item.path)
      }
      after = page.next
    }
    expect(new Set(seen).size).toBe(seen.length)
    expect(seen.length).toBeGreaterThanOrEqual(5)
  })

  it('tells status and datasets', async () => {
    const status = JSON.parse((await node.ask('/api/v1/status')).body.toString())
    expect(status).toMatchObject({ ready: true, fresh: true, version: '0.1.0', queue: { waiting: 2 } })
    const { datasets } = JSON.parse((await node.ask('/api/v1/datasets')).body.toString())
    expect(datasets).toEqual(status.datasets)
  })

  it('describes itself', async () => {
    const document = JSON.parse((await node.ask('/api/v1/openapi.json')).body.toString())
    expect(Object.keys(document.paths)).toEqual(['/api/v1/status', '/api/v1/datasets', '/api/v1/items'])
  })

  it('refuses what it does not understand', async () => {
    for (const query of ['limit=0', 'limit=5000', 'dataset=one', 'dataset=../x', 'after=forged']) {
      expect([query, (await node.ask(`/api/v1/items?${query}`)).status]).toEqual([query, 400])
    }
    expect((await node.ask('/api/v1/items?dataset=no%2Fbody')).status).toBe(404)
  })
})

describe('health', () => {
  it('is live at once and ready with the first bytes', async () => {
    using empty = new TestLibrary()
    await using fresh = await startNode({ library: empty })
    expect((await fresh.ask('/livez')).status).toBe(200)
    const notReady = await fresh.ask('/readyz')
    expect([notReady.status, notReady.headers['retry-after']]).toEqual([503, '30'])
    expect((await fresh.ask('/')).body.toString()).toContain('Nothing has arrived yet')
    expect((await node.ask('/readyz')).status).toBe(200)
  })

  it('is measured', async () => {
    await node.ask(`${BASE}/small.txt`)
    const text = (await node.ask('/metrics')).body.toString()
    expect(text).toMatch(
      /tower_http_request_seconds_bucket\{tier="(hot|memory)",status="200",le="0\.1"\} [1-9]/,
    )
    expect(text).toMatch(/tower_http_connections [1-9]/)
    expect(text).toMatch(/tower_event_loop_delay_seconds\{quantile="0.99"\} \d/)
    expect(text).not.toMatch(/127\.0\.0\.1|small\.txt/)
  })
})

describe('/repo/', () => {
  it('serves files, ranges and 404', async () => {
    const pack = files.get('packs/x.pack')!
    const whole = await node.ask('/repo/packs/x.pack')
    expect(whole.body.equals(pack)).toBe(true)
    expect(whole.headers['cache-control']).toContain('immutable')
    const part = await node.ask('/repo/packs/x.pack', { headers: { range: 'bytes=300000-700000' } })
    expect([part.status, part.headers['content-range']]).toEqual([206, 'bytes 300000-700000/1000000'])
    expect(part.body.equals(pack.subarray(300_000, 700_001))).toBe(true)
    expect((await node.ask('/repo/packs/x.pack', { headers: { range: 'bytes=1000000-' } })).status).toBe(416)
    expect((await node.ask('/repo/metadata/timestamp.json')).headers['cache-control']).toBe('no-cache')
    expect(
      (await node.ask('/repo/metadata/timestamp.json', { method: 'HEAD' })).headers['content-length'],
    ).toBe('7')
    for (const path of ['/repo/', '/repo/packs/', '/repo/packs/y.pack'])
      expect((await node.ask(path)).status).toBe(404)
    for (const path of ['/repo/../x', '/repo/packs/%2e%2e/x', '/repo/a%2fb', '/repo/a%00'])
      expect((await node.ask(path)).status).toBe(400)
    expect((await node.ask('/repo/packs/x.pack', { method: 'PUT' })).status).toBe(405)
  })

  it('is aborted, not shortened, when a file fails in the middle', async () => {
    const failing: RepoView = {
      size: async () => 1_000_000,
      read: async (_, { offset, length }) => (offset < 500_000 ? Buffer.alloc(length) : undefined),
    }
    await using broken = await startNode({ library, repo: failing })
    await expect(broken.ask('/repo/packs/x.pack')).rejects.toThrow('aborted')
  })
})

it('a route of the root comes before the pages, and may fail', async () => {
  await using routed = await startNode({
    library,
    routes: [
      { prefix: '/publish/', handle: async (_, res) => void res.end('published') },
      {
        prefix: '/broken/',
        handle: async () => {
          throw new Error('secret detail')
        },
      },
    ],
  })
  expect((await routed.ask('/publish/x', { method: 'POST' })).body.toString()).toBe('published')
  const broken = await routed.ask('/broken/x')
  expect([broken.status, broken.body.toString().includes('secret')]).toEqual([500, false])
})

it('no log line holds a client address (T9)', async () => {
  for (let i = 0; i < 1_100; i++) await node.ask(`${BASE}/small.txt`)
  expect(logged.some(line => line.includes('answered'))).toBe(true)
  expect(logged.join('')).not.toMatch(/127\.0\.0\.1|::1/)
})
