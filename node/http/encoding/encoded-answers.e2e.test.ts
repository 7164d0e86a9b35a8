/**
 * Encoded answers over real sockets: never a range of an encoding, never an encoding for the item, and
 * each representation with validators and digests of its own.
 */
import { createHash, randomBytes } from 'node:crypto'
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { brotliDecompressSync, gunzipSync, zstdDecompressSync } from 'node:zlib'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { type Answer, type AskOptions, type TestNode, startNode } from '../test-client.ts'
import { TestLibrary } from '../test-library.ts'
import { type Encoded, Encodings } from './encodings.ts'

const BASE = '/data/education/physics'
const library = new TestLibrary()
const page = Buffer.from(`<!doctype html>${'<p>The same force acts again and again.</p>'.repeat(300)}`)
const words = ['force', 'mass', 'light', 'wave', 'field', 'charge', 'heat', 'work', 'time', 'space']
const random = randomBytes(1_200_000)
const table = Buffer.from(
  Array.from({ length: 120_000 }, (_, i) => `${words[random[i]! % 10]},${random[i * 3]}\n`).join(''),
)
const version1 = randomBytes(60_000).toString('hex')
const version2 = `${version1.slice(0, 70_000)}corrected${version1.slice(70_000)}`
const html = library.add('page.html', page, { mediaType: 'text/html; charset=utf-8' })
const csv = library.add('table.csv', table, { mediaType: 'text/csv' })
const old = library.add('text.txt', Buffer.from(version1))
library.add('photo.jpg', page.subarray(1), { mediaType: 'image/jpeg' })
library.add('tiny.txt', Buffer.from('tiny'))
library.add('noise.txt', randomBytes(30_000))

let folder: string
let encodings: Encodings
let node: TestNode
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'tower-encoded-'))
  encodings = await Encodings.open({ folder, diskBytesMax: 50_000_000, memoryBytesMax: 50_000_000 })
  node = await startNode({ library, encodings })
})
afterAll(async () => {
  await node[Symbol.asyncDispose]()
  await encodings[Symbol.asyncDispose]()
  await rm(folder, { recursive: true, force: true })
})

const ask = (path: string, headers: AskOptions['headers'] = {}, method = 'GET'): Promise<Answer> =>
  node.ask(path.startsWith('/') ? path : `${BASE}/${path}`, { method, headers })
const digestOf = (bytes: Buffer): string => `sha-256=:${createHash('sha256').update(bytes).digest('base64')}:`
const decode = { zstd: zstdDecompressSync, br: brotliDecompressSync, gzip: gunzipSync } as const
const codings = ['zstd', 'br', 'gzip'] as const
const dictionaryField = `:${Buffer.from(old.sha256, 'hex').toString('base64')}:`

describe.each([
  ['page.html', page, html.sha256],
  ['table.csv', table, csv.sha256],
] as const)('%s', (path, bytes, sha256) => {
  it.each(codings)('comes as %s, and says so', async coding => {
    for (let i = 0; i < 3; i++) {
      const { status, headers, body } = await ask(path, { 'accept-encoding': coding })
      expect(status).toBe(200)
      expect(decode[coding](body).equals(bytes)).toBe(true)
      expect(body.length).toBeLessThan(bytes.length / 2)
      expect(headers).toMatchObject({
        'content-encoding': coding,
        'content-length': String(body.length),
        'repr-digest': digestOf(body),
        'accept-ranges': 'none',
        vary: 'Accept-Encoding, Available-Dictionary',
      })
      expect(headers.etag).toMatch(new RegExp(`^"sha256-${sha256}-${coding}-[0-9a-f]{8}"$`))
      expect(headers['cache-status']).toContain(i === 0 ? 'detail=hot' : 'detail=memory')
    }
  })

  it.each([...codings, 'identity', '*', 'gzip;q=0', 'gzip, deflate, br, zstd'])(
    'has the same fields for HEAD as for GET with Accept-Encoding: %s',
    async field => {
      const headers = { 'accept-encoding': field, 'want-content-digest': 'sha-256=0' }
      const get = await ask(path, headers)
      const head = await ask(path, headers, 'HEAD')
      const of = ({ headers: fields }: Answer) => ({
        ...fields,
        date: '',
        age: '',
        'cache-status': fields['cache-status']?.replace(/ttl.*/, ''),
      })
      expect([head.status, head.body.length]).toEqual([get.status, 0])
      expect(of(head)).toEqual(of(get))
    },
  )

  it('comes as it is to those who take nothing else, and varies all the same', async () => {
    for (const headers of [{}, { 'accept-encoding': 'identity' }, { 'accept-encoding': 'deflate' }]) {
      const answer = await ask(path, headers)
      expect(answer.body.equals(bytes)).toBe(true)
      expect(answer.headers['content-encoding']).toBeUndefined()
      expect(answer.headers).toMatchObject({
        etag: `"sha256-${sha256}"`,
        'repr-digest': digestOf(bytes),
        'accept-ranges': 'bytes',
        vary: 'Accept-Encoding, Available-Dictionary',
      })
    }
  })

  it('in ranges is always the item itself', async () => {
    for (const range of ['bytes=10-99', 'bytes=-50', 'bytes=0-9,100-199']) {
      const { status, headers, body } = await ask(path, { range, 'accept-encoding': 'zstd, gzip' })
      expect(status).toBe(206)
      expect(headers['content-encoding']).toBeUndefined()
      expect(headers).toMatchObject({ etag: `"sha256-${sha256}"`, 'repr-digest': digestOf(bytes) })
      if (range === 'bytes=10-99') expect(body.equals(bytes.subarray(10, 100))).toBe(true)
    }
  })

  it('is never continued from an encoding: If-Range with its tag gives the whole item', async () => {
    const encoded = await ask(path, { 'accept-encoding': 'gzip' })
    const { status, headers, body } = await ask(path, {
      range: 'bytes=100-',
      'if-range': encoded.headers.etag!,
      'accept-encoding': 'gzip',
    })
    expect([status, headers['content-range']]).toEqual([200, undefined])
    expect(headers['content-encoding'] === 'gzip' ? gunzipSync(body) : body).toEqual(bytes)
  })

  it.each([...codings, 'identity'])('is not sent again to who holds it as %s', async held => {
    const { etag } = (await ask(path, { 'accept-encoding': held })).headers
    for (const now of ['gzip, br, zstd', 'identity', held]) {
      for (const tag of [etag!, `W/${etag}`, `"other", ${etag}`]) {
        const { status, headers, body } = await ask(path, { 'if-none-match': tag, 'accept-encoding': now })
        expect([status, body.length]).toEqual([304, 0])
        expect(headers).toMatchObject({ etag, vary: 'Accept-Encoding, Available-Dictionary' })
      }
    }
    const matching = await ask(path, { 'if-match': etag!, 'accept-encoding': held })
    expect([matching.status, matching.headers.etag]).toEqual([200, etag])
  })

  it('is sent to who holds an encoding of something else', async () => {
    const other = await ask('text.txt', { 'accept-encoding': 'gzip' })
    const { etag } = other.headers
    expect((await ask(path, { 'if-none-match': etag!, 'accept-encoding': 'gzip' })).status).toBe(200)
    expect((await ask(path, { 'if-match': etag!, 'accept-encoding': 'gzip' })).status).toBe(412)
  })
})

it('by digest there are encodings, and no dictionaries', async () => {
  const { headers, body } = await ask(`/sha256/${html.sha256}`, { 'accept-encoding': 'br' })
  expect(brotliDecompressSync(body).equals(page)).toBe(true)
  expect(headers['cache-control']).toContain('immutable')
  expect([headers.vary, headers['use-as-dictionary']]).toEqual(['Accept-Encoding', undefined])
})

it.each(['photo.jpg', 'tiny.txt'])('%s is never encoded and does not vary', async path => {
  const { headers } = await ask(path, { 'accept-encoding': 'gzip, br, zstd' })
  expect([headers['content-encoding'], headers.vary]).toEqual([undefined, undefined])
  expect([headers['accept-ranges'], headers['use-as-dictionary']]).toEqual(['bytes', undefined])
})

it('what gains nothing comes as it is', async () => {
  for (let i = 0; i < 2; i++) {
    const { headers, body } = await ask('noise.txt', { 'accept-encoding': 'gzip' })
    expect([headers['content-encoding'], body.length]).toEqual([undefined, 30_000])
  }
})

it('digests are of what is sent', async () => {
  const headers = { 'accept-encoding': 'gzip', 'want-content-digest': 'sha-256=1' }
  const { headers: fields, body } = await ask('page.html', headers)
  expect([fields['content-digest'], fields['repr-digest']]).toEqual([digestOf(body), digestOf(body)])
  const refused = await ask('page.html', { 'accept-encoding': 'gzip', 'want-repr-digest': 'sha-256=0' })
  expect(refused.headers['repr-digest']).toBeUndefined()
})

it('no byte that has flipped in memory leaves the node', async () => {
  for (const item of [html, csv]) {
    const accepts = { 'accept-encoding': 'gzip' }
    const before = await ask(item.path, accepts)
    const kept = encodings.inMemory(item.sha256, { coding: 'gzip' }) as Encoded
    kept.bytes[100]! ^= 1
    const during = await ask(item.path, accepts)
    expect(during.headers['content-encoding']).toBeUndefined()
    expect(digestOf(during.body)).toBe(during.headers['repr-digest'])
    const after = await ask(item.path, accepts)
    expect(after.body.equals(before.body)).toBe(true)
  }
})

it('an item with damage or without its bytes is answered as without encodings', async () => {
  const hurt = library.add('hurt.txt', Buffer.from('hurt words '.repeat(9_000)))
  hurt.faults.recoverable = true
  hurt.faults.flipped.add(7)
  const healed = await ask('hurt.txt', { 'accept-encoding': 'br' })
  expect(brotliDecompressSync(healed.body).toString()).toBe('hurt words '.repeat(9_000))
  const gone = library.add('gone.txt', Buffer.from('gone words '.repeat(9_000)))
  gone.faults.absent = [{ first: 0, last: gone.sizeBytes - 1 }]
  const { status, headers } = await ask('gone.txt', { 'accept-encoding': 'br' })
  expect([status, headers['retry-after']]).toEqual([503, '120'])
})

describe('a browser that holds the version before', () => {
  const accepts = { 'accept-encoding': 'gzip, br, zstd, dcz', 'available-dictionary': dictionaryField }

  it('is told that it may say so', async () => {
    const { headers } = await ask('text.txt', { 'accept-encoding': 'zstd, dcz' })
    expect(headers['use-as-dictionary']).toBe(`match="${BASE}/text.txt"`)
  })

  it('gets what has changed', async () => {
    library.remove('text.txt')
    library.add('text.txt', Buffer.from(version2))
    const { headers, body } = await ask('text.txt', accepts)
    expect(headers).toMatchObject({
      'content-encoding': 'dcz',
      vary: 'Accept-Encoding, Available-Dictionary',
      'repr-digest': digestOf(body),
    })
    expect(body.length).toBeLessThan(1_000)
    expect(body.toString('hex', 0, 40)).toBe(`5e2a4d1820000000${old.sha256}`)
    const dictionary = Buffer.from(version1)
    expect(zstdDecompressSync(body.subarray(40), { dictionary }).toString()).toBe(version2)
    const again = await ask('text.txt', { ...accepts, 'if-none-match': headers.etag! })
    expect(again.status).toBe(304)
  })

  it.each([
    ['does not take it', { ...accepts, 'accept-encoding': 'zstd' }],
    ['names no dictionary', { 'accept-encoding': 'dcz, zstd' }],
    ['names one that is not here', { ...accepts, 'available-dictionary': `:${'A'.repeat(43)}=:` }],
    ['names it wrongly', { ...accepts, 'available-dictionary': dictionaryField.slice(1) }],
  ])('gets a plain encoding when it %s', async (_, headers) => {
    const { headers: fields, body } = await ask('text.txt', headers)
    expect(fields['content-encoding']).toBe('zstd')
    expect(zstdDecompressSync(body).toString()).toBe(version2)
  })

  it('gets no encoding against what was given out elsewhere, or by digest', async () => {
    library.add('other.txt', Buffer.from(`${version2}!`))
    expect((await ask('other.txt', accepts)).headers['content-encoding']).toBe('zstd')
    const { sha256 } = library.open('education/physics', 'text.txt')
    expect((await ask(`/sha256/${sha256}`, accepts)).headers['content-encoding']).toBe('zstd')
  })
})

it('is counted', async () => {
  const { body } = await ask('/metrics')
  expect(body.toString()).toMatch(/tower_http_encoded_answers_total\{coding="dcz"\} [1-9]/)
})
