import { once } from 'node:events'
import { createServer } from 'node:http'
import type { AddressInfo } from 'node:net'
import { CarReader } from '@ipld/car'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { type Cid, codecOf, rawCidOf } from '../../manifests/cid.ts'
import { sha256Of } from '../../manifests/digest.ts'
import { blocksOfCar } from '../../manifests/car-reader.ts'
import { type MemoryItem, memoryItem, noise } from '../../manifests/testing/memory-item.ts'
import { ipfsGateway } from './ipfs-gateway.ts'

let item: MemoryItem
let origin: string
let missing: Cid | undefined
const denied = rawCidOf(sha256Of('withdrawn'))
const server = createServer()

beforeAll(async () => {
  const repeated = noise(300_000, 7)
  item = await memoryItem(Buffer.concat([noise(20_000_000, 1), repeated, repeated, noise(5, 2)]))
  const gateway = ipfsGateway({
    blocks: { block: cid => Promise.resolve(cid === missing ? undefined : item.blocks.get(cid)) },
    isDenied: cid => cid === denied,
    mediaTypeOf: cid => (cid === item.root ? 'video/mp4' : undefined),
  })
  server.on('request', (req, res) => void gateway.handle(req, res))
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  origin = `http://127.0.0.1:${(server.address() as AddressInfo).port}`
})
afterAll(() => void server.close())

const get = (path: string, init: RequestInit = {}) => fetch(`${origin}/ipfs/${path}`, init)
const bytesOf = async (response: Response) => Buffer.from(await response.arrayBuffer())
const archiveOf = async (response: Response) => {
  const bytes = await bytesOf(response)
  return await Array.fromAsync(
    blocksOfCar(
      (async function* () {
        yield bytes
      })(),
    ),
  )
}
const offsets = () => {
  const leaves = new Map<Cid, number>()
  let at = 0
  for (const [cid, bytes] of item.blocks) {
    if (codecOf(cid) !== 'raw') continue
    leaves.set(cid, at)
    at += bytes.length
  }
  return leaves
}

describe('raw blocks', () => {
  it('are given for every CID of the item, by query and by Accept', async () => {
    const some = [...item.blocks].filter((_, n) => n % 29 === 0)
    for (const [cid, bytes] of some) {
      const response = await get(`${cid}?format=raw`)
      expect(response.status).toBe(200)
      expect(Object.fromEntries(response.headers)).toMatchObject({
        'content-type': 'application/vnd.ipld.raw',
        'content-length': `${bytes.length}`,
        'content-disposition': expect.stringContaining(`filename="${cid}.bin"`),
        'cache-control': 'public, max-age=29030400, immutable',
        'x-content-type-options': 'nosniff',
        'x-ipfs-path': `/ipfs/${cid}`,
        'x-ipfs-roots': cid,
        etag: `"${cid}.raw"`,
      })
      expect((await bytesOf(response)).equals(bytes)).toBe(true)
      const byAccept = await get(cid, { headers: { Accept: 'application/vnd.ipld.raw' } })
      expect((await bytesOf(byAccept)).equals(bytes)).toBe(true)
    }
  })

  it('HEAD answers the same fields without a body, and If-None-Match with 304', async () => {
    const [fromGet, fromHead] = [
      await get(`${item.root}?format=raw`),
      await get(`${item.root}?format=raw`, { method: 'HEAD' }),
    ]
    const fields = (response: Response) =>
      [...response.headers].filter(([name]) => !['date', 'connection', 'keep-alive'].includes(name))
    expect(fields(fromHead)).toEqual(fields(fromGet))
    await fromGet.body?.cancel()
    for (const tag of [`"${item.root}.raw"`, `W/"${item.root}.raw"`, '*', `"x", "${item.root}.raw"`]) {
      const response = await get(`${item.root}?format=raw`, { headers: { 'If-None-Match': tag } })
      expect(response.status).toBe(304)
    }
  })

  it('the probe of a gateway is answered', async () => {
    const response = await get('bafkqaaa?format=raw')
    expect([response.status, (await bytesOf(response)).length]).toEqual([200, 0])
  })
})

describe('archives', () => {
  it('hold the whole tree, depth first, as the reference reader sees it', async () => {
    const response = await get(item.root, {
      headers: { Accept: 'application/vnd.ipld.car; version=1; order=dfs; dups=n' },
    })
    expect(response.headers.get('content-type')).toBe(
      'application/vnd.ipld.car; version=1; order=dfs; dups=n',
    )
    expect(response.headers.get('etag')).toMatch(/^W\//)
    const reader = await CarReader.fromBytes(await bytesOf(response))
    expect((await reader.getRoots()).map(String)).toEqual([item.root])
    const cids = (await Array.fromAsync(reader.blocks())).map(({ cid }) => String(cid))
    expect(cids[0]).toBe(item.root)
    expect(cids.toSorted()).toEqual([...item.blocks.keys()].toSorted())
  })

  it('repeat blocks only when asked to', async () => {
    const once = await archiveOf(await get(`${item.root}?format=car&car-dups=n`))
    const twice = await archiveOf(await get(`${item.root}?format=car&car-dups=y`))
    expect(new Set(once.map(({ cid }) => cid)).size).toBe(once.length)
    expect(twice.length).toBeGreaterThan(once.length)
  })

  it('hold the root alone, or the blocks of a range', async () => {
    const root = await archiveOf(await get(`${item.root}?format=car&dag-scope=block`))
    expect(root.map(({ cid }) => cid)).toEqual([item.root])
    const part = await archiveOf(
      await get(`${item.root}?format=car&dag-scope=entity&entity-bytes=9000000:9300000`),
    )
    const leaves = part.filter(({ cid }) => codecOf(cid) === 'raw')
    expect(leaves.length).toBeGreaterThan(1)
    const at = offsets()
    const first = at.get(leaves[0]?.cid as Cid) ?? -1
    const last = leaves.at(-1)
    const end = (at.get(last?.cid as Cid) ?? 0) + (last?.bytes.length ?? 0)
    expect([first <= 9_000_000, end > 9_300_000]).toEqual([true, true])
  })

  it('are cut, never ended short, when a block is gone', async () => {
    missing = [...item.blocks.keys()].filter(cid => codecOf(cid) === 'raw').at(-3)
    try {
      const response = await get(`${item.root}?format=car`)
      expect(response.status).toBe(200)
      await expect(response.arrayBuffer()).rejects.toThrow()
    } finally {
      missing = undefined
    }
  })
})

describe('plain files', () => {
  it('are given whole and by range', async () => {
    const whole = await get(item.root)
    expect(whole.headers.get('content-type')).toBe('video/mp4')
    expect(whole.headers.get('content-security-policy')).toBe('sandbox')
    expect((await bytesOf(whole)).equals(item.bytes)).toBe(true)
    for (const [header, first, last] of [
      ['bytes=0-0', 0, 0],
      ['bytes=8000000-9000000', 8_000_000, 9_000_000],
      ['bytes=20599990-', 20_599_990, item.sizeBytes - 1],
      ['bytes=-7', item.sizeBytes - 7, item.sizeBytes - 1],
    ] as const) {
      const part = await get(item.root, { headers: { Range: header } })
      expect(part.status).toBe(206)
      expect(part.headers.get('content-range')).toBe(`bytes ${first}-${last}/${item.sizeBytes}`)
      expect((await bytesOf(part)).equals(item.bytes.subarray(first, last + 1))).toBe(true)
    }
    expect((await get(item.root, { headers: { Range: 'bytes=99999999-' } })).status).toBe(416)
  })
})

it.each([
  ['nonsense', 400],
  ['QmYwAPJzv5CZsnA625s3Xf2nemtYgPpHdWEz79ojWnPbdG', 400],
  ['ROOT?format=dag-json', 400],
  ['ROOT?format=car&dag-scope=some', 400],
  ['ROOT?format=car&entity-bytes=9:3', 400],
  ['ROOT/below/it', 404],
  ['bafkreihdwdcefgh4dqkjv67uzcmw7ojee6xedzdetojuzjevtenxquvyku?format=raw', 404],
  [denied, 410],
])('answers %s with %i and a problem', async (path, status) => {
  const response = await get(path.replace('ROOT', item.root))
  expect(response.status).toBe(status)
  expect(response.headers.get('content-type')).toContain('application/problem+json')
  await response.body?.cancel()
})

it('refuses other methods', async () => {
  const response = await get(item.root, { method: 'POST' })
  expect([response.status, response.headers.get('allow')]).toEqual([405, 'GET, HEAD, OPTIONS'])
})
