/**
 * The generated configuration in a real NGINX, in front of real nodes.
 */
import { spawn } from 'node:child_process'
import { randomBytes } from 'node:crypto'
import { once } from 'node:events'
import { mkdtempDisposable, readFile } from 'node:fs/promises'
import { type Server, createServer } from 'node:http'
import { connect as connectHttp2 } from 'node:http2'
import { request } from 'node:https'
import type { AddressInfo } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import { zstdDecompressSync } from 'node:zlib'
import { X509Certificate } from 'node:crypto'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { Encodings } from '../node/http/encoding/encodings.ts'
import { type TestNode, ask, startNode } from '../node/http/test-client.ts'
import { TestLibrary } from '../node/http/test-library.ts'
import { ensureCertificates, issueClientCertificate } from './certificates.ts'
import { type TestNginx, freePort, nginxIsHere, startTestNginx } from './testing.ts'
import { writeNginx } from './write.ts'

const BASE = '/data/education/physics'

describe.skipIf(!nginxIsHere())('through NGINX', () => {
  const library = new TestLibrary()
  const big = randomBytes(5_000_000)
  library.add('big.bin', big)
  library.add('small.txt', Buffer.from('0123456789'))
  let opened = 0
  const open = library.open.bind(library)
  library.open = (dataset, path) => {
    opened++
    return open(dataset, path)
  }
  const stack = new AsyncDisposableStack()
  let node: TestNode
  let nginx: TestNginx
  let admin: Server
  let authority: Buffer

  beforeAll(async () => {
    const folder = stack.use(await mkdtempDisposable(join(tmpdir(), 'tower-behind-nginx-'))).path
    const encodings = await Encodings.open({ folder, diskBytesMax: 1_000_000, memoryBytesMax: 1_000_000 })
    node = stack.use(await startNode({ library, encodings }))
    admin = createServer((req, res) => {
      req.resume().on('end', () =>
        res.end(
          JSON.stringify({
            url: req.url,
            role: req.headers['x-tower-role'],
            subject: req.headers['x-tower-subject'],
          }),
        ),
      )
    }).listen(0, '127.0.0.1')
    stack.defer(() => void admin.close())
    await once(admin, 'listening')
    const { port } = admin.address() as AddressInfo
    nginx = stack.use(await startTestNginx({ nodes: [node.port], adminUpstream: port }))
    authority = await readFile(nginx.written.authority!)
  })
  afterAll(() => stack.disposeAsync())

  const secure = (
    path: string,
    options: {
      method?: string
      port?: number
      cert?: Buffer
      key?: Buffer
      headers?: Record<string, string>
    } = {},
  ) =>
    new Promise<{ status: number; headers: Record<string, unknown>; body: string }>((resolve, reject) => {
      const req = request(
        {
          host: '127.0.0.1',
          port: nginx.httpsPort,
          path,
          ca: authority,
          agent: false,
          minVersion: 'TLSv1.3',
          ...options,
        },
        res => {
          let body = ''
          res
            .setEncoding('latin1')
            .on('data', part => (body += part))
            .on('end', () => resolve({ status: res.statusCode!, headers: res.headers, body }))
            .on('error', reject)
        },
      )
      req.on('error', reject)
      req.end()
    })

  it('items come whole, in parts and unchanged, over TLS', async () => {
    const whole = await secure(`${BASE}/big.bin`)
    expect([whole.status, Buffer.from(whole.body, 'latin1').equals(big)]).toEqual([200, true])
    const part = await secure(`${BASE}/big.bin`, { headers: { range: 'bytes=1000000-1999999' } })
    expect([
      part.status,
      Buffer.from(part.body, 'latin1').equals(big.subarray(1_000_000, 2_000_000)),
    ]).toEqual([206, true])
    const etag = String(whole.headers.etag)
    expect((await secure(`${BASE}/big.bin`, { headers: { 'if-none-match': etag } })).status).toBe(304)
    expect(whole.headers['cache-status']).toContain('towerlight; hit')
  })

  it('text comes encoded to who takes it, as it is to others, and against the version that a browser holds', async () => {
    const held = Buffer.from(randomBytes(20_000).toString('hex'))
    const now = Buffer.concat([held, Buffer.from(' and more')])
    const { sha256 } = library.add('now.txt', held)
    await secure(`${BASE}/now.txt`, { headers: { 'accept-encoding': 'zstd' } })
    library.remove('now.txt')
    library.add('now.txt', now)
    for (let i = 0; i < 2; i++) {
      const plain = await secure(`${BASE}/now.txt`)
      expect([plain.headers['content-encoding'], plain.body.length]).toEqual([undefined, now.length])
      const zstd = await secure(`${BASE}/now.txt`, { headers: { 'accept-encoding': 'gzip, zstd' } })
      expect(zstd.headers).toMatchObject({
        'content-encoding': 'zstd',
        vary: 'Accept-Encoding, Available-Dictionary',
      })
      expect(zstdDecompressSync(Buffer.from(zstd.body, 'latin1')).equals(now)).toBe(true)
      const part = await secure(`${BASE}/now.txt`, {
        headers: { 'accept-encoding': 'zstd', range: 'bytes=-4' },
      })
      expect([part.status, part.body]).toEqual([206, 'more'])
      const dictionary = `:${Buffer.from(sha256, 'hex').toString('base64')}:`
      const delta = await secure(`${BASE}/now.txt`, {
        headers: { 'accept-encoding': 'zstd, dcz', 'available-dictionary': dictionary },
      })
      expect(delta.headers['content-encoding']).toBe('dcz')
      expect(delta.body.length).toBeLessThan(200)
    }
  })

  it('items come over HTTP/2', async () => {
    const session = connectHttp2(`https://127.0.0.1:${nginx.httpsPort}`, { ca: authority })
    const stream = session.request({ ':path': `${BASE}/small.txt` })
    const [headers] = (await once(stream, 'response')) as [Record<string, unknown>]
    let body = ''
    for await (const part of stream.setEncoding('utf8')) body += part
    session.close()
    expect([headers[':status'], body]).toEqual([200, '0123456789'])
  })

  it('TLS 1.2 is refused', async () => {
    await expect(
      new Promise((resolve, reject) =>
        request(
          { host: '127.0.0.1', port: nginx.httpsPort, ca: authority, agent: false, maxVersion: 'TLSv1.2' },
          resolve,
        )
          .on('error', reject)
          .end(),
      ),
    ).rejects.toThrow(/protocol version/i)
  })

  it('content is asked of the node each time, pages are not', async () => {
    const before = opened
    for (let i = 0; i < 5; i++) await ask(nginx.httpPort, `${BASE}/small.txt`)
    expect(opened - before).toBe(5)

    let listed = 0
    const datasets = library.datasets.bind(library)
    library.datasets = () => {
      listed++
      return datasets()
    }
    for (let i = 0; i < 5; i++) expect((await ask(nginx.httpPort, '/data/education/')).status).toBe(200)
    expect(listed).toBeLessThanOrEqual(2)
  })

  it('pages and JSON are kept apart', async () => {
    const page = await ask(nginx.httpPort, `${BASE}/`, { headers: { accept: 'text/html,*/*;q=0.8' } })
    const json = await ask(nginx.httpPort, `${BASE}/`, { headers: { accept: 'application/json' } })
    expect([page.headers['content-type'], json.headers['content-type']]).toEqual([
      'text/html; charset=UTF-8',
      'application/json',
    ])
  })

  it.each([
    ['GET', '/metrics', 404],
    ['GET', '/publish/x', 404],
    ['GET', '/%70ublish/x', 404],
    ['GET', '/data/../publish/x', 404],
    ['GET', '/data/%2e%2e/publish/x', 404],
    ['GET', `${BASE}/../../../etc/passwd`, 4],
    ['GET', `${BASE}/..%2f..%2fetc/passwd`, 400],
    ['GET', `${BASE}//small.txt`, 400],
    ['GET', `${BASE}/%00`, 400],
    ['POST', `${BASE}/small.txt`, 405],
    ['PUT', '/api/v1/items', 405],
    ['GET', '/livez', 200],
    ['GET', '/api/v1/items', 200],
    ['GET', '/generate_204', 302],
  ])('%s %s: %d', async (method, path, status) => {
    const answer = await ask(nginx.httpPort, path, { method })
    expect(String(answer.status).startsWith(String(status))).toBe(true)
    if (status === 405) expect(answer.headers.allow).toBe('GET, HEAD, OPTIONS')
  })

  it('operators and publishers are told apart by their certificates', async () => {
    const tls = join(nginx.folder, 'tls')
    const identity = async (name: string, role: string) => {
      const { certificate, key } = await issueClientCertificate(tls, name, role)
      return { port: nginx.adminPort, cert: await readFile(certificate), key: await readFile(key) }
    }
    const publisher = await identity('amina', 'publisher')
    const operator = await identity('bo', 'tower_operator')
    const auditor = await identity('chidi', 'national_auditor')

    const published = await secure('/publish/x', {
      ...publisher,
      method: 'POST',
      headers: { 'x-tower-role': 'tower_operator' },
    })
    expect(published.status).toBe(200)
    expect(JSON.parse(published.body)).toEqual({
      url: '/publish/x',
      role: 'publisher',
      subject: expect.stringContaining('CN=amina'),
    })

    const cases = [
      [operator, 'POST', '/publish/x', 403],
      [auditor, 'POST', '/publish/x', 403],
      [operator, 'POST', '/api/v1/pins', 200],
      [auditor, 'POST', '/api/v1/pins', 403],
      [auditor, 'GET', '/api/v1/plan', 200],
      [publisher, 'POST', '/api/v1/pins', 403],
      [operator, 'GET', '/metrics', 200],
      [publisher, 'GET', '/metrics', 403],
      [operator, 'GET', '/elsewhere', 403],
    ] as const
    for (const [who, method, path, status] of cases) {
      expect([method, path, (await secure(path, { ...who, method })).status]).toEqual([method, path, status])
    }
    const nobody = await secure('/publish/x', { port: nginx.adminPort, method: 'POST' })
    expect([nobody.status, JSON.parse(nobody.body).code]).toEqual([403, 'NOT_AUTHORISED'])
  })

  it('a certificate of another authority, or without a role, opens nothing', async () => {
    const foreign = await startForeignAuthority(nginx.folder)
    const answer = await secure('/publish/x', { port: nginx.adminPort, method: 'POST', ...foreign })
    expect(answer.status).toBe(403)
    await expect(issueClientCertificate(join(nginx.folder, 'tls'), 'x', 'root')).rejects.toMatchObject({
      code: 'REQUEST_INVALID',
    })
    await expect(
      issueClientCertificate(join(nginx.folder, 'tls'), '../x', 'publisher'),
    ).rejects.toMatchObject({ code: 'REQUEST_INVALID' })
  })

  it('a flood from one address is answered 429 with Retry-After', async () => {
    await using strict = await startTestNginx({
      nodes: [node.port],
      limits: { requestsPerSecond: 5, burst: 5 },
    })
    const answers = await Promise.all(
      Array.from({ length: 40 }, () => ask(strict.httpPort, `${BASE}/small.txt`)),
    )
    const refused = answers.filter(({ status }) => status === 429)
    expect(refused.length).toBeGreaterThan(20)
    expect(answers.length - refused.length).toBeGreaterThanOrEqual(5)
    expect(refused[0]?.headers['retry-after']).toBe('1')
    expect(refused[0]?.headers['content-type']).toBe('application/problem+json')
  })

  it('pages outlive the node for a while; content is 503 with Retry-After', async () => {
    // A page as the node sends it, but stale after one second instead of five.
    const pages = createServer((_, res) =>
      res.writeHead(200, { 'Cache-Control': 'public, max-age=1, stale-if-error=1795' }).end('page'),
    )
    pages.listen(0, '127.0.0.1')
    await once(pages, 'listening')
    await using front = await startTestNginx({ nodes: [(pages.address() as AddressInfo).port] })
    expect((await ask(front.httpPort, '/')).body.toString()).toBe('page')
    pages.close()
    pages.closeAllConnections()
    await new Promise(resolve => setTimeout(resolve, 2_100))
    const stale = await ask(front.httpPort, '/')
    expect([stale.status, stale.body.toString()]).toEqual([200, 'page'])
    const item = await ask(front.httpPort, `${BASE}/small.txt`)
    expect([item.status, item.headers['retry-after'], JSON.parse(item.body.toString()).code]).toEqual([
      503,
      '2',
      'NOT_READY',
    ])
  })

  it('of several nodes one may fail; each path has its own', async () => {
    const counts = [0, 0]
    const libraries = counts.map((_, i) => {
      const each = new TestLibrary()
      for (let n = 0; n < 40; n++) each.add(`item-${n}`, Buffer.from(`item ${n}`))
      const openItem = each.open.bind(each)
      each.open = (dataset, path) => {
        counts[i]!++
        return openItem(dataset, path)
      }
      return each
    })
    const [first, second] = [
      await startNode({ library: libraries[0]! }),
      await startNode({ library: libraries[1]! }),
    ]
    await using _ = second
    await using front = await startTestNginx({ nodes: [first.port, second.port] })
    const all = () =>
      Promise.all(Array.from({ length: 40 }, (_, n) => ask(front.httpPort, `${BASE}/item-${n}`)))
    await all()
    const shares = [...counts]
    await all()
    expect(counts).toEqual(shares.map(share => share * 2)) // the same node for the same path
    expect(Math.min(...shares)).toBeGreaterThan(5)
    await first[Symbol.asyncDispose]()
    expect((await all()).map(({ status }) => status)).toEqual(Array(40).fill(200))
  })

  it('a node killed and restarted under load loses no request', async () => {
    const port = await freePort()
    const script = join(import.meta.dirname, 'test-node.ts')
    // Holds the socket open between the node's lives, as systemd does (deploy/towerlight.socket).
    const keeper = spawn('perl', ['-e', KEEPER, String(port), process.execPath, script], {
      stdio: ['ignore', 'pipe', 'inherit'],
    })
    try {
      const lines = createInterface({ input: keeper.stdout })[Symbol.asyncIterator]()
      let last = 0
      const nextPid = async (): Promise<number> => {
        for (;;) {
          const { value } = await lines.next()
          const [, found] = /^PID (\d+)$/.exec(value ?? '') ?? []
          if (found) last = Number(found)
          if (value === 'READY') return last
        }
      }
      let pid = await nextPid()
      await using front = await startTestNginx({
        nodes: [port],
        limits: { requestsPerSecond: 10_000, burst: 10_000 },
      })
      const over = new AbortController()
      const statuses = new Map<number, number>()
      const clients = Array.from({ length: 16 }, async () => {
        while (!over.signal.aborted) {
          const { status } = await ask(front.httpPort, `${BASE}/small.txt`)
          statuses.set(status, (statuses.get(status) ?? 0) + 1)
        }
      })
      const moreServed = async (count: number): Promise<void> => {
        const enough = (statuses.get(200) ?? 0) + count
        while ((statuses.get(200) ?? 0) < enough) await new Promise(resolve => setTimeout(resolve, 10))
      }
      for (let kills = 0; kills < 3; kills++) {
        await moreServed(100)
        process.kill(pid, 'SIGKILL')
        pid = await nextPid()
      }
      await moreServed(100)
      over.abort()
      await Promise.all(clients)
      expect([...statuses.keys()]).toEqual([200])
    } finally {
      keeper.kill('SIGTERM')
      await once(keeper, 'exit')
    }
  }, 30_000)

  it('writing again changes nothing; a new name makes a new certificate from the same authority', async () => {
    const request = {
      folder: nginx.folder,
      names: ['127.0.0.1'],
      httpPort: 1,
      httpsPort: 2,
      nodes: ['127.0.0.1:3'],
      limits: { requestsPerSecond: 1, burst: 1, connections: 1 },
      workers: 1,
    } as const
    const first = await writeNginx(request, new Date())
    expect((await writeNginx(request, new Date())).changed).toBe(false)
    const certificate = await readFile(first.certificate)
    const known = await ensureCertificates(join(nginx.folder, 'tls'), ['127.0.0.1'], new Date())
    expect(known.renewed).toBe(false)
    const renamed = await ensureCertificates(join(nginx.folder, 'tls'), ['new.lan'], new Date())
    expect(renamed.renewed).toBe(true)
    expect((await readFile(renamed.certificate)).equals(certificate)).toBe(false)
    expect((await readFile(renamed.clientCa)).equals(authority)).toBe(true)
    const inTwoYears = new Date(Date.now() + 2.2 * 365 * 86_400_000)
    expect((await ensureCertificates(join(nginx.folder, 'tls'), ['new.lan'], inTwoYears)).renewed).toBe(true)
  })

  it('no log holds an address (T9)', async () => {
    const logs = await Promise.all(
      ['access.log', 'error.log'].map(name => readFile(join(nginx.folder, 'logs', name), 'utf8')),
    )
    expect(logs.join('')).not.toMatch(/127\.0\.0\.1/)
  })
})

/** Same subject, same role, another signature. */
async function startForeignAuthority(folder: string): Promise<{ cert: Buffer; key: Buffer }> {
  const foreign = join(folder, 'foreign')
  await ensureCertificates(foreign, ['x'], new Date())
  const { certificate, key } = await issueClientCertificate(foreign, 'amina', 'publisher')
  expect(new X509Certificate(await readFile(certificate)).subject).toContain('OU=publisher')
  return { cert: await readFile(certificate), key: await readFile(key) }
}

/** Listens, never accepts, and starts the command again whenever it ends: descriptor 3 is the socket. */
const KEEPER = `
use Socket; use POSIX ();
my ($port, @command) = @ARGV; $^F = 10; $| = 1;
socket(my $s, PF_INET, SOCK_STREAM, 0); setsockopt($s, SOL_SOCKET, SO_REUSEADDR, 1);
bind($s, sockaddr_in($port, INADDR_LOOPBACK)) or die; listen($s, 1024);
POSIX::dup2(fileno($s), 3); my $child; my $over = 0;
$SIG{TERM} = sub { $over = 1; kill 'KILL', $child };
while (!$over) {
  $child = fork(); if (!$child) { exec @command }
  print "PID $child\\n"; waitpid($child, 0);
}
`
