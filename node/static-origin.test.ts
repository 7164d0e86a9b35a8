import { mkdir, mkdtempDisposable, writeFile } from 'node:fs/promises'
import { get, request } from 'node:http'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { buffer } from 'node:stream/consumers'
import { describe, expect, it } from 'vitest'
import { openStaticOrigin } from './static-origin.ts'

const BYTES = Buffer.from(Array.from({ length: 300_000 }, (_, index) => index % 251))

async function openFixture(options = {}) {
  const stack = new AsyncDisposableStack()
  const folder = stack.use(await mkdtempDisposable(join(tmpdir(), 'towerlight-origin-')))
  await mkdir(join(folder.path, 'site', 'packs'), { recursive: true })
  await writeFile(join(folder.path, 'site', 'packs', 'a b.pack'), BYTES)
  await writeFile(join(folder.path, 'site', 'empty'), '')
  await writeFile(join(folder.path, 'outside'), 'secret')
  const origin = stack.use(await openStaticOrigin(join(folder.path, 'site'), options))
  return { origin, [Symbol.asyncDispose]: () => stack.disposeAsync() }
}

describe('static origin', () => {
  it('serves a file, whole', async () => {
    await using fixture = await openFixture()
    const response = await fetch(`${fixture.origin.url}packs/a%20b.pack`)
    expect(response.status).toBe(200)
    expect(Buffer.from(await response.arrayBuffer()).equals(BYTES)).toBe(true)
    // counted once the socket has taken it, which may be after the client has it
    await expect.poll(() => fixture.origin.served).toEqual({ requests: 1, bodyBytes: BYTES.length })
  })

  it.each([
    ['bytes=0-0', 0, 0],
    ['bytes=100-65636', 100, 65_636],
    ['bytes=299999-', 299_999, 299_999],
    ['bytes=-5', 299_995, 299_999],
    ['bytes=-900000', 0, 299_999],
    ['bytes=299000-900000', 299_000, 299_999],
  ])('answers %s', async (range, first, last) => {
    await using fixture = await openFixture()
    const response = await fetch(`${fixture.origin.url}packs/a%20b.pack`, { headers: { range } })
    expect(response.status).toBe(206)
    expect(response.headers.get('content-range')).toBe(`bytes ${first}-${last}/300000`)
    expect(Buffer.from(await response.arrayBuffer()).equals(BYTES.subarray(first, last + 1))).toBe(true)
  })

  it.each(['bytes=300000-', 'bytes=-0'])('answers 416 to %s', async range => {
    await using fixture = await openFixture()
    const response = await fetch(`${fixture.origin.url}packs/a%20b.pack`, { headers: { range } })
    expect(response.status).toBe(416)
    expect(response.headers.get('content-range')).toBe('bytes */300000')
  })

  it.each(['bytes=1-0', 'bytes=0-1,3-4', 'lines=0-1', 'bytes=-'])('ignores %s', async range => {
    await using fixture = await openFixture()
    const response = await fetch(`${fixture.origin.url}packs/a%20b.pack`, { headers: { range } })
    expect(response.status).toBe(200)
    await response.arrayBuffer()
  })

  it('ignores every range when told to, and then promises none', async () => {
    await using fixture = await openFixture({ ranges: false })
    const response = await fetch(`${fixture.origin.url}packs/a%20b.pack`, { headers: { range: 'bytes=0-9' } })
    expect(response.status).toBe(200)
    expect(response.headers.has('accept-ranges')).toBe(false)
    expect((await response.arrayBuffer()).byteLength).toBe(BYTES.length)
  })

  it('sends no body to HEAD, and an empty one for an empty file', async () => {
    await using fixture = await openFixture()
    const head = await fetch(`${fixture.origin.url}packs/a%20b.pack`, { method: 'HEAD' })
    expect(head.headers.get('content-length')).toBe('300000')
    const empty = await fetch(`${fixture.origin.url}empty`)
    expect([empty.status, await empty.text()]).toEqual([200, ''])
  })

  it.each([
    '/absent',
    '/packs',
    '/../outside',
    '/%2e%2e/outside',
    '/packs/..%2f..%2foutside',
    '/%00',
    '/%zz',
  ])('has nothing at %s', async path => {
    await using fixture = await openFixture()
    const { hostname, port } = new URL(fixture.origin.url)
    const { promise, resolve, reject } = Promise.withResolvers<number | undefined>()
    get({ hostname, port, path }, response => {
      response.resume()
      resolve(response.statusCode)
    }).on('error', reject)
    expect(await promise).toBe(404)
  })

  it('refuses what is not GET or HEAD', async () => {
    await using fixture = await openFixture()
    expect((await fetch(fixture.origin.url, { method: 'PUT', body: 'x' })).status).toBe(405)
  })

  it('goes on after a client that left in mid-body, and closes with clients connected', async () => {
    await using fixture = await openFixture()
    const { promise, resolve } = Promise.withResolvers<void>()
    const leaving = request(`${fixture.origin.url}packs/a%20b.pack`, response => {
      response.once('data', () => {
        leaving.destroy()
        resolve()
      })
    })
    leaving.on('error', () => {}).end()
    await promise
    const response = await fetch(`${fixture.origin.url}packs/a%20b.pack`)
    expect((await buffer(response.body!)).length).toBe(BYTES.length)
  })
})
