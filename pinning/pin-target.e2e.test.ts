import { once } from 'node:events'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { rawCidOf } from '../manifests/cid.ts'
import { sha256Of } from '../manifests/digest.ts'
import { openKuboTarget } from './kubo-target.ts'
import type { PinTarget } from './pin-target.ts'
import { openS3Target } from './s3-target.ts'
import { type MemoryItem, memoryItem, noise } from '../manifests/testing/memory-item.ts'
import {
  haveServer,
  type KuboServer,
  startKubo,
  startMinio,
  startVersity,
  type TestServer,
  suspend,
} from './testing/servers.ts'

const signal = new AbortController().signal
const kuboOptions = { callMs: 5000, importMs: 60_000 }
const s3Options = { region: 'us-east-1', callMs: 5000, concurrency: 8 }
const SIZES = [0, 1, 300, 70_000, 300_000, 5_000_000, 21_000_000]

let items: MemoryItem[]
beforeAll(async () => {
  items = await Promise.all(SIZES.map((size, n) => memoryItem(noise(size, n))))
})

function pinTargetContract(open: () => Promise<PinTarget>): void {
  it('pins items, lists them, proves them, and pins again without harm', async () => {
    const target = await open()
    for (const _again of [1, 2]) {
      const outcomes = await target.pin(items, { signal })
      expect(outcomes).toEqual(items.map(({ root }) => ({ root })))
    }
    const listed = await Array.fromAsync(target.list({ signal }))
    expect(listed.toSorted()).toEqual(items.map(({ root }) => root).toSorted())
    for (const item of items) {
      const { bytesRead } = await target.prove(item, { signal })
      expect(bytesRead).toBeGreaterThanOrEqual(item.sizeBytes)
    }
  })

  it('gives extents and nodes back to heal from, and says what it lacks', async () => {
    const target = await open()
    const item = items.at(-1) as MemoryItem
    expect(item.extents.length).toBeGreaterThan(1)
    const pieces = []
    for (const extent of item.extents) pieces.push(await target.fetchExtent(extent, { signal }))
    expect(Buffer.concat(pieces as Uint8Array[]).equals(item.bytes)).toBe(true)
    for await (const { cid, bytes } of item.nodes()) {
      expect(Buffer.from((await target.fetchBlock(cid, { signal })) ?? []).equals(bytes)).toBe(true)
    }
  })

  it('an item that cannot be read is not pinned', async () => {
    const target = await open()
    const whole = await memoryItem(noise(9_000_000, 99))
    const broken: MemoryItem = { ...whole, readExtent: () => Promise.reject(new Error('gone')) }
    const [outcome] = await target.pin([broken], { signal })
    expect(outcome?.error?.message).toMatch(/gone/)
    expect(await Array.fromAsync(target.list({ signal }))).not.toContain(whole.root)
  })

  it('keeps small files by name, and replaces them', async () => {
    const { files } = await open()
    for (const text of ['first', 'the second one', 'third']) {
      await files.write('repo-v1/metadata/timestamp.json', Buffer.from(text), { signal })
      const bytes = await files.read('repo-v1/metadata/timestamp.json', 100, { signal })
      expect(Buffer.from(bytes ?? []).toString()).toBe(text)
    }
    await files.write('repo-v1/empty', Buffer.alloc(0), { signal })
    await files.write('other-v1/a', Buffer.from('a'), { signal })
    expect((await files.list('repo-v1/', { signal })).toSorted()).toEqual([
      'repo-v1/empty',
      'repo-v1/metadata/timestamp.json',
    ])
    expect(await files.read('repo-v1/nothing', 100, { signal })).toBeUndefined()
    expect(await files.list('nowhere-v1/', { signal })).toEqual([])
    await expect(files.read('repo-v1/metadata/timestamp.json', 4, { signal })).rejects.toMatchObject({
      code: 'UPSTREAM_LIED',
    })
    await files.remove(['repo-v1/empty', 'repo-v1/metadata/timestamp.json'], { signal })
    expect(await files.list('repo-v1/', { signal })).toEqual([])
  })

  it('unpins one item and keeps what others share', async () => {
    const target = await open()
    const [kept, removed] = [items[5] as MemoryItem, items[6] as MemoryItem]
    await target.unpin([removed.root], { signal })
    await target.unpin([removed.root], { signal })
    const listed = await Array.fromAsync(target.list({ signal }))
    expect(listed).toContain(kept.root)
    expect(listed).not.toContain(removed.root)
    await target.prove(kept, { signal })
  })
}

describe.runIf(haveServer('ipfs'))('Kubo', () => {
  let kubo: KuboServer
  beforeAll(async () => {
    kubo = await startKubo()
  }, 60_000)
  afterAll(() => kubo?.[Symbol.asyncDispose]())

  pinTargetContract(() => openKuboTarget({ apiUrl: kubo.url, ...kuboOptions }))

  it('computes the same roots: `ipfs cat` gives the item', async () => {
    const target = await openKuboTarget({ apiUrl: kubo.url, ...kuboOptions })
    await target.pin(items, { signal })
    for (const item of items) {
      expect(sha256Of(await kubo.run('cat', item.root))).toBe(sha256Of(item.bytes))
    }
  })

  it('frees what nothing else needs, to the last block', async () => {
    const target = await openKuboTarget({ apiUrl: kubo.url, ...kuboOptions })
    const shared = noise(300_000, 50)
    const [kept, removed] = await Promise.all([
      memoryItem(shared),
      memoryItem(Buffer.concat([shared, noise(2_000_000, 51)])),
    ])
    await target.pin([kept, removed], { signal })
    await target.unpin([removed.root], { signal })
    await kubo.run('repo', 'gc', '--quiet')
    for (const cid of removed.blocks.keys()) {
      const isThere = (await target.fetchBlock(cid, { signal })) !== undefined
      expect([cid, isThere]).toEqual([cid, kept.blocks.has(cid)])
    }
    await target.prove(kept, { signal })
  })

  it('a target that hangs is down within the deadline, and back when it returns', async () => {
    const target = await openKuboTarget({ apiUrl: kubo.url, callMs: 300, importMs: 300 })
    await suspend(kubo)
    try {
      await expect(target.roomBytes({ signal })).rejects.toMatchObject({ code: 'PIN_TARGET_DOWN' })
      await expect(Array.fromAsync(target.list({ signal }))).rejects.toMatchObject({
        code: 'PIN_TARGET_DOWN',
      })
    } finally {
      kubo.process.kill('SIGCONT')
    }
    const patient = await openKuboTarget({ apiUrl: kubo.url, ...kuboOptions })
    expect(await patient.roomBytes({ signal })).toBeGreaterThan(0)
  })
})

function s3Tests(start: () => Promise<TestServer>): void {
  let server: TestServer
  beforeAll(async () => {
    server = await start()
  }, 60_000)
  afterAll(() => server?.[Symbol.asyncDispose]())

  pinTargetContract(() => openS3Target({ url: server.url, ...s3Options }, { signal }))

  it('frees what nothing else needs, to the last object', async () => {
    const target = await openS3Target({ url: server.url, ...s3Options }, { signal })
    const before = await target.files.list('', { signal })
    const [kept, removed] = await Promise.all([
      memoryItem(noise(300_000, 50)),
      memoryItem(noise(19_000_000, 51)),
    ])
    await target.pin([kept], { signal })
    const withKept = await target.files.list('', { signal })
    expect(withKept.length).toBeGreaterThan(before.length)
    await target.pin([removed], { signal })
    await target.unpin([removed.root], { signal })
    expect(await target.files.list('', { signal })).toEqual(withKept)
    await target.unpin([kept.root], { signal })
    expect(await target.files.list('', { signal })).toEqual(before)
  })

  it('says what it lacks', async () => {
    const target = await openS3Target({ url: server.url, ...s3Options }, { signal })
    const cid = rawCidOf(sha256Of('nowhere'))
    expect(await target.fetchExtent({ cid, sizeBytes: 7 }, { signal })).toBeUndefined()
    expect(await target.fetchBlock(cid, { signal })).toBeUndefined()
  })

  it('is down when it is killed', async () => {
    const target = await openS3Target({ url: server.url, ...s3Options, callMs: 1000 }, { signal })
    const exited = once(server.process, 'exit')
    server.process.kill('SIGKILL')
    await exited
    await expect(Array.fromAsync(target.list({ signal }))).rejects.toMatchObject({ code: 'PIN_TARGET_DOWN' })
    server = await server.restart()
    expect(await Array.fromAsync(target.list({ signal }))).toContain(items[0]?.root)
  })
}

describe.runIf(haveServer('minio'))('MinIO, six drives with two of them for parity', () =>
  s3Tests(() => startMinio(6)),
)
describe.runIf(haveServer('versitygw'))('Versity S3 gateway', () => s3Tests(startVersity))
