import { readdir } from 'node:fs/promises'
import { join } from 'node:path'
import { describe, expect, it } from 'vitest'
import { bytesOf, openTestStore, temporaryFolder } from '../node/store/testing.ts'
import { rawCidOf } from '../manifests/cid.ts'
import { sha256Of } from '../manifests/digest.ts'
import { memoryItem } from '../manifests/testing/memory-item.ts'
import { storeItem } from '../node/testing.ts'
import { openS3Target } from './s3-target.ts'
import { restoreSnapshot, SNAPSHOTS_FOLDER, takeSnapshot } from './snapshot.ts'
import { haveServer, startMinio } from './testing/servers.ts'

const options = { signal: new AbortController().signal }
const NODE = 'tower-3f0e5a3e-0000-4000-8000-000000000001'

describe.runIf(haveServer('minio'))("the node's records in S3", () => {
  it('are kept nightly, seven of them, and put back into an empty folder', async () => {
    await using minio = await startMinio()
    const s3 = { url: minio.url, region: 'us-east-1', callMs: 10_000, concurrency: 4 }
    const { files } = await openS3Target(s3, options)
    await using folder = await temporaryFolder()
    const item = await memoryItem(bytesOf('an item', 3_000_000))
    const small = bytesOf('small', 900)
    const trust = { pins: ['health/who'], revisionFloors: new Map([['health/who', 12]]) }
    const nightly = (day: number) => {
      const now = new Date(Date.UTC(2026, 4, day, 2))
      return takeSnapshot({ files, folder: folder.path, nodeId: NODE, trust, now }, options)
    }
    {
      await using store = await openTestStore(folder.path)
      await storeItem(store, item)
      await store.admitExtent(rawCidOf(sha256Of(small)), small, 'fastcdc-v1', 'test')
      expect(await nightly(1)).toBe(true) // while it is open
      expect(await nightly(1)).toBe(false)
      for (let day = 2; day <= 9; day++) await nightly(day)
    }
    const kept = await files.list(`${SNAPSHOTS_FOLDER}${NODE}/`, options)
    const days = kept.filter(path => path.endsWith('index.json')).map(path => path.split('/')[2] ?? '')
    expect(days.toSorted()).toEqual(['03', '04', '05', '06', '07', '08', '09'].map(day => `2026-05-${day}`))
    expect((await readdir(folder.path)).filter(name => name.startsWith('snapshot-'))).toEqual([])

    await using empty = await temporaryFolder()
    const index = await restoreSnapshot({ files, folder: empty.path, nodeId: undefined }, options)
    expect(index).toMatchObject({ node: NODE, pins: ['health/who'], revisionFloors: { 'health/who': 12 } })
    await using store = await openTestStore(empty.path)
    await store.settled()
    for await (const { cid, bytes } of item.nodes())
      expect(Buffer.from(store.node(cid)!).equals(bytes)).toBe(true)
    expect(store.has(item.extents[0]!.cid)).toBe(false)
    expect(store.usage()).toMatchObject({ extents: 0, hotBytes: 0 })
    await storeItem(store, item)
    expect((await store.readExtent(item.extents[0]!.cid, options)).length).toBe(item.extents[0]!.sizeBytes)

    const again = restoreSnapshot({ files, folder: empty.path, nodeId: NODE }, options)
    await expect(again).rejects.toMatchObject({ code: 'STORE_FORMAT' })
  }, 60_000)

  it('are refused when they are damaged', async () => {
    await using minio = await startMinio()
    const s3 = { url: minio.url, region: 'us-east-1', callMs: 10_000, concurrency: 4 }
    const { files } = await openS3Target(s3, options)
    await using folder = await temporaryFolder()
    {
      await using _store = await openTestStore(folder.path)
    }
    const trust = { pins: [], revisionFloors: new Map() }
    await takeSnapshot({ files, folder: folder.path, nodeId: NODE, trust, now: new Date() }, options)
    const [part] = (await files.list(SNAPSHOTS_FOLDER, options)).filter(path => path.includes('node.db'))
    const bytes = Buffer.from((await files.read(part!, 1e9, options))!)
    bytes[bytes.length >> 1]! ^= 1
    await files.write(part!, bytes, options)
    await using empty = await temporaryFolder()
    const restored = restoreSnapshot({ files, folder: join(empty.path, 'new'), nodeId: undefined }, options)
    await expect(restored).rejects.toMatchObject({ code: 'CHUNK_CORRUPT' })
    await expect(
      restoreSnapshot({ files, folder: empty.path, nodeId: 'tower-other' }, options),
    ).rejects.toMatchObject({ code: 'NOT_FOUND' })
  }, 60_000)
})
