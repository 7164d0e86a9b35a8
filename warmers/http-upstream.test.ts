import { randomBytes } from 'node:crypto'
import { writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { describe, expect, it, vi } from 'vitest'
import { isEdgeError } from '../manifests/errors.ts'
import { openFileUpstream } from './file-upstream.ts'
import { openHttpUpstream, type HttpUpstreamOptions } from './http-upstream.ts'
import { serve, serveRaw, staticFiles, temporaryFolder, type TestServer } from './testing.ts'
import { collect, wireOf, type WireRecord } from './upstream.ts'

const purpose = { dataset: 'health/who', reason: 'frame' }
const signal = new AbortController().signal
const file = randomBytes(3_000_000)
const honest = staticFiles(async path =>
  path === 'packs/a b.pack' ? file : path === 'small' ? file.subarray(0, 900) : undefined,
)

function open(server: TestServer, options: Partial<HttpUpstreamOptions> = {}) {
  const records: WireRecord[] = []
  const upstream = openHttpUpstream(server.url, { onWire: record => records.push(record), ...options })
  return { upstream, records, [Symbol.asyncDispose]: () => upstream[Symbol.asyncDispose]() }
}

async function codeOf(parts: AsyncIterable<Uint8Array>): Promise<string> {
  const error = await collect(parts).catch((error: unknown) => error)
  return isEdgeError(error) ? error.code : `not refused: ${String(error)}`
}

describe('an honest server', () => {
  it('gives exactly the span asked for', async () => {
    await using server = await serve(honest)
    await using at = open(server)
    const read = await collect(
      at.upstream.readSpan('packs/a b.pack', { offset: 1_000_001, length: 1_234_567 }, { signal, purpose }),
    )
    expect(read.equals(file.subarray(1_000_001, 2_234_568))).toBe(true)
    expect(server.requests).toEqual(['GET /packs/a%20b.pack bytes=1000001-2234567'])
  })

  it('is asked in the order of asking, on a long link, too, where requests are divided', async () => {
    await using server = await serve(async (request, response) => {
      await sleep(260)
      await honest(request, response)
    })
    await using at = open(server, { connectionsMax: 2 })
    const read = (offset: number) =>
      collect(at.upstream.readSpan('packs/a b.pack', { offset, length: 200_000 }, { signal, purpose }))
    await read(0) // so that it is known to be long
    const offsets = Array.from({ length: 8 }, (_, n) => n * 200_000)
    await Promise.all(offsets.map(read))
    const asked = server.requests.slice(1).map(line => Number(/bytes=(\d+)/.exec(line)?.[1]))
    expect(asked.filter(offset => offsets.includes(offset))).toEqual(offsets)
    expect(asked.length).toBeGreaterThan(offsets.length)
  })

  it('is asked for as much at a time as flows evenly', async () => {
    const under = { way: 0, most: 0 }
    await using server = await serve(async (request, response) => {
      under.most = Math.max(under.most, ++under.way)
      response.once('close', () => under.way--)
      await vi.waitUntil(() => under.most >= flow.connections)
      await honest(request, response)
    })
    const flow = { connections: 2, pieceBytes: 40_000, readBytes: 1000 }
    const reads: number[] = []
    const spend = async (bytes: number) => void reads.push(bytes)
    await using at = open(server, { connectionsMax: 6, pace: { flow, spend } })
    expect(at.upstream).toMatchObject({ pieceBytes: 40_000, isLossy: false })
    const read = (offset: number) =>
      collect(at.upstream.readSpan('packs/a b.pack', { offset, length: 40_000 }, { signal, purpose }))
    await Promise.all([0, 40_000, 80_000, 120_000, 160_000].map(read))
    expect(under.most).toBe(2)
    expect(at.upstream.wire.connections).toBe(2)
    expect(Math.max(...reads)).toBeLessThanOrEqual(1000)
  })

  it('counts what the server counted, to the byte', async () => {
    await using server = await serve(honest)
    const at = open(server)
    await Promise.all(
      Array.from({ length: 20 }, (_, i) =>
        collect(
          at.upstream.readSpan('packs/a b.pack', { offset: i * 50_000, length: 77_777 }, { signal, purpose }),
        ),
      ),
    )
    await codeOf(at.upstream.readWhole('absent', { signal, purpose, maxBytes: 1000 }))
    await at[Symbol.asyncDispose]()
    await expect
      .poll(() => server.wire)
      .toEqual({ down: at.upstream.wire.bytesDown, up: at.upstream.wire.bytesUp })
    expect(at.records.reduce((sum, record) => sum + record.bytesDown, 0)).toBe(at.upstream.wire.bytesDown)
    expect(at.upstream.wire).toMatchObject({ requests: 21 })
    expect(at.upstream.wire.connections).toBeLessThanOrEqual(8)
  })

  it('keeps one connection for reads in turn, after a 404 too', async () => {
    await using server = await serve(honest)
    await using at = open(server)
    for (let i = 0; i < 4; i++) {
      await collect(
        at.upstream.readSpan('packs/a b.pack', { offset: i, length: 300_000 }, { signal, purpose }),
      )
      expect(await codeOf(at.upstream.readWhole('absent', { signal, purpose, maxBytes: 1000 }))).toBe(
        'NOT_FOUND',
      )
    }
    expect(at.upstream.wire).toMatchObject({ connections: 1, requests: 8 })
  })

  it('foretells the bytes of a request once it has seen one', async () => {
    await using server = await serve(honest)
    await using at = open(server)
    const read = (offset: number, length: number) =>
      collect(at.upstream.readSpan('packs/a b.pack', { offset, length }, { signal, purpose }))
    await read(0, 10)
    await read(0, 10)
    const before = at.upstream.wire
    const told = wireOf(at.upstream.cost, 'packs/a b.pack', { offset: 123_456, length: 654_321 }, file.length)
    await read(123_456, 654_321)
    expect(at.upstream.wire.bytesDown - before.bytesDown).toBe(told.down)
    expect(at.upstream.wire.bytesUp - before.bytesUp).toBe(told.up)
  })

  it('stops within a moment when told to, and is usable again', async () => {
    await using server = await serve((_, response) => {
      response
        .writeHead(206, { 'content-range': 'bytes 0-99999/100000', 'content-length': 100_000 })
        .write('begin')
    })
    await using at = open(server)
    const window = new AbortController()
    const reading = collect(
      at.upstream.readSpan('x', { offset: 0, length: 100_000 }, { signal: window.signal, purpose }),
    )
    await expect.poll(() => server.requests.length).toBe(1)
    const since = performance.now()
    window.abort(new Error('window closed'))
    await expect(reading).rejects.toThrow('window closed')
    expect(performance.now() - since).toBeLessThan(500)
  })

  it('spends time as its pace says', async () => {
    await using server = await serve(honest)
    const spent: number[] = []
    await using at = open(server, { pace: { spend: async bytes => void spent.push(bytes) } })
    await collect(at.upstream.readSpan('packs/a b.pack', { offset: 0, length: 500_000 }, { signal, purpose }))
    expect(spent.reduce((a, b) => a + b, 0)).toBe(500_000)
  })
})

describe('a server without ranges', () => {
  it('works too', async () => {
    await using server = await serve(staticFiles(async () => file, false))
    await using at = open(server)
    const read = await collect(
      at.upstream.readSpan('p', { offset: 2_000_000, length: 1000 }, { signal, purpose }),
    )
    expect(read.equals(file.subarray(2_000_000, 2_001_000))).toBe(true)
    expect(at.upstream.ranges).toBe(false)
  })

  it('is not read to its end', async () => {
    await using server = await serve(staticFiles(async () => Buffer.alloc(50_000_000), false))
    await using at = open(server)
    await collect(at.upstream.readSpan('p', { offset: 10, length: 1000 }, { signal, purpose }))
    expect(at.upstream.wire.bytesDown).toBeLessThan(1_000_000)
  })
})

describe('an evil server', () => {
  const span = { offset: 100, length: 1000 }
  const reply = (head: string, body: Buffer | string = '') =>
    serveRaw(
      socket =>
        void socket.end(
          Buffer.concat([Buffer.from(head.replaceAll('\n', '\r\n') + '\r\n\r\n'), Buffer.from(body)]),
        ),
    )
  const cases: [string, string, Buffer | string, string][] = [
    [
      'gives another range',
      'HTTP/1.1 206 OK\ncontent-range: bytes 0-999/5000\ncontent-length: 1000',
      file.subarray(0, 1000),
      'UPSTREAM_LIED',
    ],
    [
      'gives no Content-Range',
      'HTTP/1.1 206 OK\ncontent-length: 1000',
      file.subarray(0, 1000),
      'UPSTREAM_LIED',
    ],
    [
      'announces another length',
      'HTTP/1.1 206 OK\ncontent-range: bytes 100-1099/5000\ncontent-length: 2000',
      file.subarray(0, 2000),
      'UPSTREAM_LIED',
    ],
    [
      'ends early',
      'HTTP/1.1 206 OK\ncontent-range: bytes 100-1099/5000\ncontent-length: 1000',
      file.subarray(0, 400),
      'UPSTREAM_UNREACHABLE',
    ],
    [
      'ends early without a length',
      'HTTP/1.1 206 OK\ncontent-range: bytes 100-1099/5000',
      file.subarray(0, 400),
      'UPSTREAM_LIED',
    ],
    ['has a shorter file', 'HTTP/1.1 416 no\ncontent-length: 0', '', 'UPSTREAM_LIED'],
    [
      'has a shorter file and no ranges',
      'HTTP/1.1 200 OK\ncontent-length: 300',
      file.subarray(0, 300),
      'UPSTREAM_LIED',
    ],
    [
      'compresses',
      'HTTP/1.1 206 OK\ncontent-encoding: gzip\ncontent-range: bytes 100-1099/5000\ncontent-length: 1000',
      file.subarray(0, 1000),
      'UPSTREAM_LIED',
    ],
    ['fails', 'HTTP/1.1 503 busy\ncontent-length: 0', '', 'UPSTREAM_REFUSED'],
    [
      'redirects away',
      'HTTP/1.1 302 go\nlocation: http://169.254.169.254/\ncontent-length: 0',
      '',
      'UPSTREAM_REFUSED',
    ],
    [
      'redirects to another port',
      'HTTP/1.1 301 go\nlocation: http://127.0.0.1:1/\ncontent-length: 0',
      '',
      'UPSTREAM_REFUSED',
    ],
    ['is no HTTP server', 'SSH-2.0-dropbear', '', 'UPSTREAM_UNREACHABLE'],
    ['sends endless headers', `HTTP/1.1 206 OK\n${'x: y\n'.repeat(20_000)}z: z`, '', 'UPSTREAM_UNREACHABLE'],
  ]
  it.each(cases)('that %s', async (_, head, body, code) => {
    await using server = await reply(head, body)
    await using at = open(server)
    expect(await codeOf(at.upstream.readSpan('p', span, { signal, purpose }))).toBe(code)
  })

  it('that redirects in circles is left', async () => {
    await using server = await serve(
      (_, response) => void response.writeHead(302, { location: '/round' }).end(),
    )
    await using at = open(server)
    expect(await codeOf(at.upstream.readSpan('p', span, { signal, purpose }))).toBe('UPSTREAM_REFUSED')
    expect(server.requests).toHaveLength(4)
  })

  it.each([
    ['the whole file', 'HTTP/1.1 200 OK'],
    ['a part', 'HTTP/1.1 206 OK\r\ncontent-range: bytes 100-1099/5000'],
  ])('that never ends %s is cut at the length asked for', async (_, head) => {
    await using server = await serveRaw(socket => {
      socket.write(`${head}\r\n\r\n`)
      const more = () => socket.writable && socket.write(file.subarray(0, 65_536), () => setImmediate(more))
      more()
    })
    await using at = open(server)
    const read = await collect(at.upstream.readSpan('p', span, { signal, purpose }))
    expect(read).toHaveLength(1000)
    expect(await codeOf(at.upstream.readWhole('p', { signal, purpose, maxBytes: 2000 }))).toBe(
      'UPSTREAM_LIED',
    )
  })

  it.each([
    ['says nothing', () => undefined],
    [
      'sends headers only',
      (socket: { write(text: string): void }) =>
        socket.write('HTTP/1.1 206 OK\r\ncontent-range: bytes 100-1099/5000\r\n\r\n'),
    ],
    [
      'drips',
      async (socket: { write(text: string): void; destroyed: boolean }) => {
        socket.write('HTTP/1.1 206 OK\r\ncontent-range: bytes 100-1099/5000\r\n\r\n')
        for (; !socket.destroyed; await sleep(20)) socket.write('x')
      },
    ],
  ])('that %s is left as stalled', async (_, answer) => {
    await using server = await serveRaw(socket => void answer(socket))
    await using at = open(server, { stall: { bytesMin: 900, ms: 300 } })
    expect(await codeOf(at.upstream.readSpan('p', span, { signal, purpose }))).toBe('UPSTREAM_STALLED')
  })

  it('that is not there at all is said to be unreachable', async () => {
    const server = await serve(honest)
    await server[Symbol.asyncDispose]()
    await using at = open(server)
    expect(await codeOf(at.upstream.readSpan('p', span, { signal, purpose }))).toBe('UPSTREAM_UNREACHABLE')
  })

  it('that closes kept connections costs a retry, not an error', async () => {
    let answered = 0
    await using server = await serveRaw(socket => {
      if (answered++ % 2 === 1) return void socket.destroy()
      socket.write('HTTP/1.1 206 OK\r\ncontent-range: bytes 0-3/9\r\ncontent-length: 4\r\n\r\nabcd')
    })
    await using at = open(server)
    for (let i = 0; i < 3; i++) {
      expect(
        String(await collect(at.upstream.readSpan('p', { offset: 0, length: 4 }, { signal, purpose }))),
      ).toBe('abcd')
    }
  })
})

describe('a proxy', () => {
  it('is used by CONNECT, and its bytes are counted', async () => {
    const { connect } = await import('node:net')
    await using server = await serve(honest)
    await using proxy = await serveRaw((socket, head) => {
      const to = /^CONNECT ([^ ]+):(\d+)/.exec(head)!
      const through = connect(Number(to[2]), to[1], () => socket.write('HTTP/1.1 200 go\r\n\r\n'))
      socket.removeAllListeners('data').pipe(through).pipe(socket)
      through.on('error', () => socket.destroy())
    })
    const at = open(server, { proxyUrl: proxy.url.href })
    expect(await collect(at.upstream.readWhole('small', { signal, purpose, maxBytes: 900 }))).toHaveLength(
      900,
    )
    await at[Symbol.asyncDispose]()
    expect(proxy.requests[0]).toMatch(/^CONNECT 127\.0\.0\.1:\d+ HTTP\/1\.1$/)
    await expect
      .poll(() => proxy.wire)
      .toEqual({ down: at.upstream.wire.bytesDown, up: at.upstream.wire.bytesUp })
  })
})

describe('a folder', () => {
  it('is an upstream too, and nothing outside it', async () => {
    await using folder = await temporaryFolder()
    await writeFile(join(folder.path, 'p'), file)
    const records: WireRecord[] = []
    await using upstream = openFileUpstream(new URL(`file://${folder.path}`), record => records.push(record))
    const read = await collect(upstream.readSpan('p', { offset: 5, length: 600_000 }, { signal, purpose }))
    expect(read.equals(file.subarray(5, 600_005))).toBe(true)
    expect(upstream.wire.bytesDown).toBe(600_000)
    expect(records).toEqual([{ ...purpose, bytesDown: 600_000, bytesUp: 0, requests: 1 }])
    expect(await codeOf(upstream.readSpan('p', { offset: 2_999_990, length: 20 }, { signal, purpose }))).toBe(
      'UPSTREAM_LIED',
    )
    expect(await codeOf(upstream.readWhole('p', { signal, purpose, maxBytes: 20 }))).toBe('UPSTREAM_LIED')
    expect(await codeOf(upstream.readWhole('../../etc/passwd', { signal, purpose, maxBytes: 2e6 }))).toBe(
      'NOT_FOUND',
    )
  })
})
