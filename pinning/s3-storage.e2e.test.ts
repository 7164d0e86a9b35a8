import { mkdtempDisposable } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { sha256Of } from '../manifests/digest.ts'
import { manifestTarget } from '../manifests/manifest.ts'
import { noise } from '../manifests/testing/memory-item.ts'
import { publishTest, testKeys, testRepository, writeFiles } from '../manifests/testing/publishing.ts'
import { releaseSigner } from '../manifests/tuf/release-signer.ts'
import { openS3Storage } from './s3-storage.ts'
import { haveServer, startMinio, type TestServer } from './testing/servers.ts'

const signal = new AbortController().signal

describe.runIf(haveServer('minio'))('a repository in a bucket', () => {
  let minio: TestServer
  let folder: Awaited<ReturnType<typeof mkdtempDisposable>>
  let nowMs = Date.now()
  beforeAll(async () => {
    minio = await startMinio()
    folder = await mkdtempDisposable(join(tmpdir(), 'tower-s3-'))
  }, 60_000)
  afterAll(async () => {
    await minio?.[Symbol.asyncDispose]()
    await folder?.remove()
  })

  const open = (spool = 'spool') =>
    openS3Storage({
      url: minio.url,
      region: 'us-east-1',
      callMs: 10_000,
      concurrency: 4,
      spoolFolder: join(folder.path, spool),
      now: () => nowMs,
      signal,
    })

  it('is published into, release after release', async () => {
    const keys = testKeys()
    const storage = await open()
    await testRepository(storage, keys, new Date())
    const own = [keys.health, keys.snapshot, keys.timestamp]
    const source = join(folder.path, 'guide')
    const release = { folder: source, dataset: 'health/guide', now: new Date() }
    const content = noise(2_000_000, 1)
    await writeFiles(source, { 'a.bin': content })
    await publishTest(storage, own, release)
    content.write('changed', 700_000)
    await writeFiles(source, { 'a.bin': content })
    const second = await publishTest(await open('another-machine'), own, release)
    expect(second).toMatchObject({ revision: 2, changed: true })
    expect(second.deltaBytes).toBeLessThan(20_000)
    const target = await releaseSigner({ keys: own }).current(manifestTarget('health/guide'), storage)
    const manifest = await storage.read(`targets/health/guide/${target?.sha256}.manifest.json`)
    expect(sha256Of(manifest ?? '')).toBe(target?.sha256)
    expect(await publishTest(storage, own, release)).toMatchObject({ changed: false })
  })

  it('gives ranges, sizes and lists, and says what is not there', async () => {
    const storage = await open()
    await storage.write('packs/x', Buffer.from('0123456789'))
    expect(Buffer.from((await storage.read('packs/x', { offset: 3, length: 4 })) ?? []).toString()).toBe(
      '3456',
    )
    expect(await storage.size('packs/x')).toBe(10)
    expect(await storage.list('packs/')).toContain('packs/x')
    await storage.remove('packs/x')
    await storage.remove('packs/x')
    expect([await storage.read('packs/x'), await storage.size('packs/x')]).toEqual([undefined, undefined])
  })

  it('lets one publisher in at a time, and takes over a lock that was left behind', async () => {
    const [one, other] = [await open(), await open()]
    {
      await using _held = await one.lock()
      await expect(other.lock()).rejects.toMatchObject({ code: 'PUBLISH_CONFLICT' })
    }
    const left = await one.lock()
    nowMs += 11 * 60_000
    await using _taken = await other.lock()
    expect(left).toBeDefined()
  })

  it('two publishers never overwrite each other', async () => {
    const storage = await open()
    await storage.write('metadata/9.snapshot.json', Buffer.from('mine'), { ifAbsent: true })
    const second = storage.write('metadata/9.snapshot.json', Buffer.from('other'), { ifAbsent: true })
    await expect(second).rejects.toMatchObject({ code: 'PUBLISH_CONFLICT' })
  })
})
