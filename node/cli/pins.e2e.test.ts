import { mkdir, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, it, vi } from 'vitest'
import { encodeDenylist } from '../../manifests/tuf/denylist.ts'
import { haveServer } from '../../pinning/testing/servers.ts'
import { openS3Target } from '../../pinning/s3-target.ts'
import { takeSnapshot } from '../../pinning/snapshot.ts'
import type { RunningNode } from '../main.ts'
import { fill, openPinWorld, type PinWorld, readAll, signal, untilPinned, upstreamOf } from './test-pins.ts'
import { tower } from './testing.ts'

const WAIT = { timeout: 20_000 }

describe.runIf(haveServer('ipfs') && haveServer('minio'))('a node with Kubo and MinIO', () => {
  let world: PinWorld
  let node: RunningNode
  /** Distinct roots, and the catalog. */
  let pins: number

  beforeAll(async () => {
    world = await openPinWorld()
    pins = new Set([...world.files.values()].map(bytes => bytes.toString('latin1'))).size + 1
    const targets = { ipfsApi: [world.kubo.url], s3Url: world.minio.url }
    node = await world.start(await world.folder(), { ...targets, ...upstreamOf(world) })
    await fill(node)
    node.owner.pins!.wake()
    await untilPinned(node, pins)
  }, 90_000)
  afterAll(async () => {
    await node?.[Symbol.asyncDispose]()
    await world?.[Symbol.asyncDispose]()
  })

  it('pins what the publisher asks for, under our roots', async () => {
    const lines = (await world.kubo.run('pin', 'ls', '--type=recursive', '--quiet'))
      .toString()
      .trim()
      .split('\n')
    const listed = lines.filter(cid => !cid.startsWith('Qm')) // Kubo's own: an empty folder
    const rows = [...node.owner.pins!.list({ target: `kubo@${new URL(world.kubo.url).host}` })]
    expect(listed.toSorted()).toEqual(rows.map(({ root }) => root).toSorted())
    expect(listed).toHaveLength(pins)
    const film = node.owner.library.open('health/kept', 'large/film.mp4')
    expect((await world.kubo.run('cat', film.root)).equals(world.files.get('large/film.mp4')!)).toBe(true)
  })

  it('does not pin, and does not scrub, while the battery is low, also without an upstream', async () => {
    const powerSupply = await world.folder()
    await mkdir(join(powerSupply, 'BAT0'))
    for (const [name, text] of Object.entries({ type: 'Battery', status: 'Discharging', capacity: '9' }))
      await writeFile(join(powerSupply, 'BAT0', name), text)
    await using dark = await world.start(await world.folder(), { ipfsApi: [world.kubo.url], powerSupply })
    dark.owner.pins!.wake()
    await vi.waitUntil(async () => {
      const status = (await (await fetch(new URL('api/v1/status', dark.url))).json()) as {
        scrub: { state: string }
      }
      return status.scrub.state === 'battery is low'
    }, WAIT)
    expect(dark.owner.pins!.report()).toMatchObject([{ state: 'not asked yet' }])
  })

  it('proves by reading back, and says so in metrics and status', async () => {
    for await (const proof of node.owner.pins!.verify({ signal })) expect(proof.failed).toBe(0)
    const metrics = await (await fetch(new URL('metrics', node.url))).text()
    expect(metrics).toMatch(new RegExp(`tower_pins{target="s3",status="pinned"} ${pins}\\b`))
    expect(metrics).toMatch(/tower_pin_proved_bytes{target="s3"} \d{8,}\b/)
    const status = (await (await fetch(new URL('api/v1/status', node.url))).json()) as {
      pins: { targets: { state: string }[] }
    }
    expect(status.pins.targets.map(({ state }) => state)).toEqual(['up', 'up'])
  })

  it('answers 410 for what is withdrawn, by path and by CID, and lets its pins go', async () => {
    const { trust, library, pins: service } = node.owner
    const paths = ['large/book.pdf', 'small/3.txt']
    const items = paths.map(path => library.open('health/kept', path))
    const addresses = items.flatMap(({ root }, at) => [
      `data/health/kept/${paths[at]}`,
      ...['', '?format=raw', '?format=car'].map(query => `ipfs/${root}${query}`),
    ])
    const statuses = async () =>
      new Set(
        await Promise.all(
          addresses.map(async address => {
            const { status, body } = await fetch(new URL(address, node.url), {
              headers: { Accept: 'application/vnd.ipld.raw, */*' },
            })
            await body?.cancel()
            return status
          }),
        ),
      )
    expect(await statuses()).toEqual(new Set([200]))
    const denied = items.map(({ sha256 }) => ({ sha256, reason: 'a test' }))
    await trust.update(record => ({ ...record, denylist: encodeDenylist(denied) }))
    await vi.waitUntil(async () => (await statuses()).symmetricDifference(new Set([410])).size === 0, WAIT)
    service!.wake()
    await untilPinned(node, pins - items.length)
    await trust.update(record => ({ ...record, denylist: undefined }))
    await fill(node) // what was withdrawn is not kept
    service!.wake()
    await untilPinned(node, pins)
  })

  it.each([['kubo'], ['s3']])('an empty node restores from %s alone, and serves', async from => {
    const targets = from === 's3' ? { s3Url: world.minio.url } : { ipfsApi: [world.kubo.url] }
    await using empty = await world.start(await world.folder(), targets)
    expect((await readAll(empty, world.files)).refused).toHaveLength(world.files.size)
    const events = await Array.fromAsync(empty.control('restore', null, { signal }))
    expect(events.at(-1)).toMatchObject({ type: 'done', datasets: [{ dataset: 'health/kept', revision: 1 }] })
    expect(await readAll(empty, world.files)).toEqual({ wrong: [], refused: [] })
  })

  it('keeps a snapshot of its records, which an empty folder takes back', async () => {
    const s3 = { url: world.minio.url, region: 'us-east-1', callMs: 10_000, concurrency: 4 }
    const { files } = await openS3Target(s3, { signal })
    await node.owner.trust.update(record => ({ ...record, pins: ['health/kept/small/'] }))
    const { nodeId, trust } = node.owner
    const now = new Date(Date.now() + 86_400_000)
    const folder = node.owner.config.data
    await takeSnapshot({ files, folder, nodeId, trust: trust.record, now }, { signal })
    const data = await world.folder()
    const env = { TOWER_DATA: data, TOWER_ROOT: world.root, TOWER_S3_URL: world.minio.url }
    const { code, stdout } = await tower(['restore', '--snapshot', nodeId, '--json'], { env })
    expect({ code, ...JSON.parse(stdout) }).toMatchObject({ code: 0, datasets: [{ dataset: 'health/kept' }] })
    await using restored = await world.start(data)
    expect(await readAll(restored, world.files)).toEqual({ wrong: [], refused: [] })
    expect(restored.owner.trust.record.pins).toEqual(['health/kept/small/'])
    await node.owner.trust.update(record => ({ ...record, pins: [] }))
  })

  it('restores from another node, whose pins it does not touch', async () => {
    await using empty = await world.start(await world.folder(), { peers: [node.url] })
    await Array.fromAsync(empty.control('restore', null, { signal }))
    expect(await readAll(empty, world.files)).toEqual({ wrong: [], refused: [] })
    await untilPinned(node, pins)
  })
})
