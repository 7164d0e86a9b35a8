/**
 * Kubo's gateway, which the IPFS project holds to its conformance suite in every release, and ours
 * answer the same for the same blocks: status, body to the last byte, and what headers promise.
 */
import { once } from 'node:events'
import { createServer } from 'node:http'
import type { AddressInfo } from 'node:net'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { sha256Of } from '../../manifests/digest.ts'
import { type MemoryItem, memoryItem, noise } from '../../manifests/testing/memory-item.ts'
import { openKuboTarget } from '../../pinning/kubo-target.ts'
import { haveServer, type KuboServer, startKubo } from '../../pinning/testing/servers.ts'
import { ipfsGateway } from './ipfs-gateway.ts'

const RAW = 'application/vnd.ipld.raw'
const CAR = 'application/vnd.ipld.car'
const PROMISED = [
  'content-type',
  'content-disposition',
  'content-range',
  'x-ipfs-path',
  'x-ipfs-roots',
  'x-content-type-options',
] as const

describe.runIf(haveServer('ipfs'))('beside Kubo', () => {
  let kubo: KuboServer
  let origin: string
  let items: Record<'large' | 'small', MemoryItem>
  const server = createServer()

  beforeAll(async () => {
    kubo = await startKubo()
    const repeated = noise(300_000, 7)
    const large = Buffer.concat([noise(9_000_000, 1), repeated, repeated, noise(5, 2)])
    items = { large: await memoryItem(large), small: await memoryItem(noise(700, 3)) }
    const signal = AbortSignal.timeout(30_000)
    const target = await openKuboTarget({ apiUrl: kubo.url, callMs: 10_000, importMs: 30_000 })
    await target.pin(Object.values(items), { signal })
    const { large: one, small: other } = items
    const gateway = ipfsGateway({
      blocks: { block: async cid => one.blocks.get(cid) ?? other.blocks.get(cid) },
      isDenied: () => false,
      mediaTypeOf: () => undefined,
    })
    server.on('request', (req, res) => void gateway.handle(req, res))
    server.listen(0, '127.0.0.1')
    await once(server, 'listening')
    origin = `http://127.0.0.1:${(server.address() as AddressInfo).port}`
  }, 60_000)
  afterAll(async () => {
    server.close()
    await kubo?.[Symbol.asyncDispose]()
  })

  const ask = async (base: string, path: string, init: RequestInit) => {
    const response = await fetch(`${base}/ipfs/${path}`, init)
    const body = Buffer.from(await response.arrayBuffer())
    const { status, headers, ok } = response
    const promised = Object.fromEntries(PROMISED.map(name => [name, ok ? headers.get(name) : null]))
    return {
      status,
      ...promised,
      hasEtag: headers.has('etag'),
      sizeBytes: body.length,
      digest: sha256Of(body),
    }
  }

  it.each([
    ['a raw block by query', 'large?format=raw', {}],
    ['a raw block by Accept', 'small', { Accept: RAW }],
    ['a raw block with a name', 'small?format=raw&filename=a-b.bin', {}],
    ['an archive by query', 'large?format=car', {}],
    ['an archive by Accept', 'large', { Accept: `${CAR}; version=1; order=dfs; dups=n` }],
    ['an archive of one raw block', 'small?format=car', {}],
    ['an archive with what occurs twice', 'large', { Accept: `${CAR}; order=dfs; dups=y` }],
    ['the root alone', 'large?format=car&dag-scope=block', {}],
    ['the whole entity', 'large?format=car&dag-scope=entity', {}],
    ['bytes from the start', 'large?format=car&dag-scope=entity&entity-bytes=0:1023', {}],
    ['bytes from the middle', 'large?format=car&dag-scope=entity&entity-bytes=4000000:5000000', {}],
    ['bytes up to the end', 'large?format=car&dag-scope=entity&entity-bytes=9000000:*', {}],
    ['the last bytes', 'large?format=car&dag-scope=entity&entity-bytes=-1024:*', {}],
    ['bytes up to before the end', 'large?format=car&dag-scope=entity&entity-bytes=100:-9000000', {}],
    ['bytes past the end', 'large?format=car&dag-scope=entity&entity-bytes=9000000:99999999', {}],
  ])('%s', async (_what, path, headers) => {
    const named = path.replace(/^(large|small)/, name => items[name as keyof typeof items].root)
    const [ours, theirs] = await Promise.all([
      ask(origin, named, { headers }),
      ask(kubo.gatewayUrl, named, { headers }),
    ])
    expect(ours).toEqual(theirs)
  })

  it.each([
    ['large?format=raw', 'HEAD'],
    ['large?format=car', 'HEAD'],
    ['large?format=car&entity-bytes=nonsense', 'GET'],
    ['nonsense?format=raw', 'GET'],
    ['bafkreihdwdcefgh4dqkjv67uzcmw7ojee6xedzdetojuzjevtenxquvyku?format=raw', 'GET'],
    ['bafkqaaa?format=raw', 'GET'],
  ])('%s by %s ends alike', async (path, method) => {
    const named = path.replace(/^large/, items.large.root)
    const [ours, theirs] = await Promise.all([
      ask(origin, named, { method }),
      ask(kubo.gatewayUrl, named, { method }),
    ])
    expect(ours.status).toBe(theirs.status)
  })

  it('an answer that is known already is not sent again', async () => {
    for (const base of [origin, kubo.gatewayUrl]) {
      const url = `${base}/ipfs/${items.large.root}?format=raw`
      const first = await fetch(url)
      await first.body?.cancel()
      const again = await fetch(url, { headers: { 'If-None-Match': first.headers.get('etag')! } })
      expect([base === origin, again.status]).toEqual([base === origin, 304])
    }
  })
})
