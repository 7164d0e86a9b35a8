import { once } from 'node:events'
import { readdir } from 'node:fs/promises'
import { mkdtempDisposable } from 'node:fs/promises'
import { createServer, type Server } from 'node:http'
import type { AddressInfo } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, expect, it } from 'vitest'
import { sha256Of } from '../../manifests/digest.ts'
import { manifestTarget } from '../../manifests/manifest.ts'
import { folderStorage } from '../../manifests/publish/folder-storage.ts'
import type { RepositoryStorage } from '../../manifests/publish/storage.ts'
import { noise } from '../../manifests/testing/memory-item.ts'
import {
  publishTest,
  type TestKeys,
  testKeys,
  testRepository,
  writeFiles,
} from '../../manifests/testing/publishing.ts'
import { findTarget } from '../../manifests/tuf/accepted-state.ts'
import { loadRepository } from '../../manifests/tuf/repository.ts'
import { generateKeyPem, parseSigningKey, type SigningKey } from '../../manifests/tuf/signing-key.ts'
import { problemOf, sendProblem } from '../http/problem.ts'
import { packView } from '../pack-view.ts'
import { httpStorage } from './http-storage.ts'
import { publishReceiver } from './receiver.ts'

const signal = new AbortController().signal
const now = () => Date.now()
const stranger = parseSigningKey(generateKeyPem())

let folder: Awaited<ReturnType<typeof mkdtempDisposable>>
let keys: TestKeys
let repository: RepositoryStorage
let server: Server
let url: URL
let releases: number
/** Called with each request before it is answered; may break the connection. */
let meddle: (path: string) => 'cut' | undefined

beforeEach(async () => {
  folder = await mkdtempDisposable(join(tmpdir(), 'tower-publish-'))
  keys = testKeys()
  repository = folderStorage(join(folder.path, 'repository'))
  const pinnedRoot = await testRepository(repository, keys, new Date())
  releases = 0
  meddle = () => undefined
  const receiver = publishReceiver({
    storage: repository,
    packs: packView(join(folder.path, 'repository')),
    uploadsFolder: join(folder.path, 'uploads'),
    pinnedRoot,
    limits: { fileBytesMax: 1024 ** 3, reserveBytes: 0 },
    now,
    onRelease: () => void releases++,
  })
  server = createServer((req, res) => {
    if (meddle(req.url ?? '') === 'cut') {
      req.once('data', () => setImmediate(() => req.socket.destroy()))
    }
    Promise.resolve(receiver.handle(req, res)).catch(error => {
      if (res.headersSent) res.destroy()
      else sendProblem(res, problemOf(error, req.url))
    })
  })
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  url = new URL(`http://127.0.0.1:${(server.address() as AddressInfo).port}/`)
})

afterEach(async () => {
  server.close()
  server.closeAllConnections()
  await folder.remove()
})

const remote = (some: readonly SigningKey[], spool = 'spool') =>
  httpStorage({ url, keys: some, spoolFolder: join(folder.path, spool), now, signal })
const publisherKeys = () => [keys.health, keys.snapshot, keys.timestamp]
const guide = () => join(folder.path, 'guide')
const release = (dataset = 'health/guide') => ({ folder: guide(), dataset, now: new Date() })
const current = async (dataset: string) => {
  const { state } = await loadRepository(repository)
  return findTarget(state, manifestTarget(dataset))?.sha256
}

it('a folder becomes a release elsewhere, the next one a small delta; a replay changes nothing', async () => {
  await writeFiles(guide(), { 'a.bin': noise(3_000_000, 1), 'b/c.txt': 'hello' })
  const first = await publishTest(remote(publisherKeys()), publisherKeys(), release())
  expect(first).toMatchObject({ revision: 1, changed: true, items: 2 })
  expect(releases).toBe(1)

  const changed = noise(3_000_000, 1)
  changed.write('changed', 1_000_000)
  await writeFiles(guide(), { 'a.bin': changed })
  const second = await publishTest(remote(publisherKeys()), publisherKeys(), release())
  expect(second).toMatchObject({ revision: 2, changed: true })
  expect(second.deltaBytes).toBeGreaterThan(0)
  expect(second.deltaBytes).toBeLessThan(20_000)
  expect(await current('health/guide')).toBe(
    sha256Of(
      (await repository.read(`targets/health/guide/${await current('health/guide')}.manifest.json`)) ?? '',
    ),
  )

  const before = await repository.list('packs/')
  const again = await publishTest(remote(publisherKeys()), publisherKeys(), release())
  expect(again).toMatchObject({ revision: 2, changed: false })
  expect([await repository.list('packs/'), releases]).toEqual([before, 2])
})

it('an upload that is cut goes on where it was', async () => {
  await writeFiles(guide(), { 'big.bin': noise(20_000_000, 3) })
  let patches = 0
  meddle = path => (path.startsWith('/publish/parts/') && ++patches % 3 === 0 ? 'cut' : undefined)
  const report = await publishTest(remote(publisherKeys()), publisherKeys(), release())
  expect(report).toMatchObject({ revision: 1, changed: true })
  expect(patches).toBeGreaterThan(4)
  expect(await readdir(join(folder.path, 'uploads'))).toEqual([])
})

it('refuses strangers, and publishers outside their paths', async () => {
  await writeFiles(guide(), { 'a.txt': 'a' })
  await expect(publishTest(remote([stranger]), publisherKeys(), release())).rejects.toMatchObject({
    code: 'NOT_AUTHORISED',
  })
  const notTheirs = publishTest(remote(publisherKeys()), publisherKeys(), release('education/guide'))
  await expect(notTheirs).rejects.toMatchObject({ code: 'KEY_NOT_AUTHORISED' })
  const unsigned = await fetch(new URL('publish/session', url), { method: 'POST' })
  expect(unsigned.status).toBe(403)
  expect(releases).toBe(0)
})

it('one publisher at a time: the other one gets a clear error', async () => {
  await writeFiles(guide(), { 'a.txt': 'a' })
  await using _first = await remote(publisherKeys()).lock()
  const second = publishTest(remote([keys.education]), publisherKeys(), release())
  await expect(second).rejects.toMatchObject({ code: 'PUBLISH_CONFLICT' })
})

it('nothing shows until all is proven: forged metadata, missing packs and wrong bytes are refused', async () => {
  await writeFiles(guide(), { 'a.bin': noise(500_000, 5) })
  await publishTest(remote(publisherKeys()), publisherKeys(), release())
  const before = await current('health/guide')
  const storage = remote(publisherKeys())
  await using _session = await storage.lock()

  const wrong = storage.add(
    () => `packs/${sha256Of('something else')}.pack`,
    (async function* () {
      yield Buffer.from('bytes')
    })(),
  )
  await expect(wrong).rejects.toMatchObject({ code: 'PUBLISH_REFUSED' })
  const timestamp = JSON.parse(
    Buffer.from((await repository.read('metadata/timestamp.json')) ?? []).toString('utf8'),
  )
  timestamp.signed.version += 1
  const forged = storage.write('metadata/timestamp.json', Buffer.from(JSON.stringify(timestamp)))
  await expect(forged).rejects.toMatchObject({ code: 'TRUST_SIGNATURE' })
  await expect(storage.write('packs/nonsense', Buffer.from('x'))).rejects.toMatchObject({
    code: 'PATH_INVALID',
  })
  const [pack = ''] = await repository.list('packs/')
  await expect(storage.remove(pack)).rejects.toMatchObject({ code: 'PUBLISH_REFUSED' })
  expect([await current('health/guide'), releases]).toEqual([before, 1])
})

it('a release whose pack never came is refused, and the one before stays', async () => {
  await writeFiles(guide(), { 'a.bin': noise(500_000, 6) })
  const honest = remote(publisherKeys())
  const forgetful: RepositoryStorage = {
    read: (path, range) => honest.read(path, range),
    size: path => honest.size(path),
    write: (path, bytes, options) => honest.write(path, bytes, options),
    list: prefix => honest.list(prefix),
    remove: path => honest.remove(path),
    lock: () => honest.lock(),
    async add(pathOf, pieces) {
      const bytes = Buffer.concat(await Array.fromAsync(pieces, piece => Buffer.from(piece)))
      pathOf(sha256Of(bytes))
      return { sha256: sha256Of(bytes), sizeBytes: bytes.length }
    },
  }
  await expect(publishTest(forgetful, publisherKeys(), release())).rejects.toMatchObject({
    code: 'PUBLISH_REFUSED',
  })
  expect([await current('health/guide'), releases]).toEqual([undefined, 0])
})

it('a signed request that is sent twice opens no second session', async () => {
  const seen: { url: string; headers: Record<string, string> }[] = []
  server.prependListener('request', req => {
    if (req.url === '/publish/session' && req.method === 'POST') {
      const { signature, 'signature-input': input } = req.headers
      seen.push({ url: req.url, headers: { signature: String(signature), 'signature-input': String(input) } })
    }
  })
  {
    await using _session = await remote(publisherKeys()).lock()
  }
  const replayed = await fetch(new URL('publish/session', url), {
    method: 'POST',
    headers: seen[0]?.headers ?? {},
  })
  expect(replayed.status).toBe(403)
})
