/**
 * Workers beside the owner on one port: same bytes, same answers, and they may die.
 */
import { randomBytes } from 'node:crypto'
import { mkdir, open, readdir, writeFile } from 'node:fs/promises'
import { availableParallelism, loadavg, tmpdir } from 'node:os'
import { join } from 'node:path'
import { pathToFileURL } from 'node:url'
import { pino } from 'pino'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { sha256Of } from '../manifests/digest.ts'
import { folderStorage } from '../manifests/publish/folder-storage.ts'
import { publishRelease } from '../manifests/publish/publish-release.ts'
import { releaseSigner } from '../manifests/tuf/release-signer.ts'
import { openSampleRepository } from './cli/sample-repository.ts'
import { loadConfig } from './config.ts'
import { createNodeServer } from './http/server.ts'
import { ask } from './http/test-client.ts'
import { loadKeys, loadPinnedRoot } from './key-folder.ts'
import { startNode } from './main.ts'
import { openLibrary } from './open-library.ts'
import { MIB, bytesOf, openTestStore, temporaryFolder } from './store/testing.ts'
import { storeCatalog, storeItems, testRelease } from './testing.ts'
import { openTrustStore } from './trust-store.ts'
import { startWorkers } from './workers.ts'

const dataset = 'education/physics'
const files = {
  'small.txt': bytesOf('small', 900),
  'large.bin': bytesOf('large', 3 * MIB),
  'later.bin': bytesOf('later', 100_000),
}

describe('workers', () => {
  const stack = new AsyncDisposableStack()
  const deaths: string[] = []
  let port: number
  let workers: Awaited<ReturnType<typeof startWorkers>>

  beforeAll(async () => {
    const { path: folder } = stack.use(await temporaryFolder())
    const store = stack.use(await openTestStore(folder))
    const trust = await openTrustStore(`${folder}/trust-v1`)
    const library = stack.use(await openLibrary({ store, trust, mustHaveUpTo: -1 }))
    const release = await testRelease({ dataset, revision: 1, files })
    await library.acceptRelease(dataset, release.bytes)
    await storeCatalog(store, release)
    await storeItems(store, release, 'small.txt', 'large.bin')
    await library.activateIfWhole(dataset)
    await library.settled()
    const node = createNodeServer({ library, status: () => ({ pid: process.pid }) })
    stack.defer(() => node.close(1_000))
    const at = { host: '127.0.0.1', reusePort: true }
    port = (await node.listen({ port: 0, ...at })).port
    const sizes = { memoryBytesMax: MIB, hotBytesMax: 256 * MIB, warmBytesMax: 256 * MIB, reserveBytes: 0 }
    const settings = {
      folder,
      warmFolder: `${folder}/warm`,
      ...sizes,
      drainMs: 500,
      logLevel: 'error',
      at: { port, ...at },
    }
    const onDeath = (_: number | undefined, why: string) => void deaths.push(why)
    workers = stack.use(
      await startWorkers({ count: 2, settings, server: node.server, temporary: tmpdir(), library, onDeath }),
    )
  })
  afterAll(() => stack.disposeAsync())

  /** New connections each time: the kernel spreads them over the processes. */
  const everywhere = (path: string, headers = {}) =>
    Promise.all(Array.from({ length: 24 }, () => ask(port, path, { headers })))

  it('give the same answers as the owner', async () => {
    // without TUF metadata nobody vouches for the dataset: what counts is that all say the same
    const answers = await everywhere(`/data/${dataset}/large.bin`)
    expect(new Set(answers.map(({ status }) => status)).size).toBe(1)
    for (const path of [
      '/livez',
      '/',
      '/data/',
      '/api/v1/items',
      '/api/v1/status',
      '/nowhere',
      `/data/${dataset}/../x`,
    ]) {
      const all = await everywhere(path)
      expect([path, new Set(all.map(({ status }) => status)).size]).toEqual([path, 1])
    }
    const pids = (await everywhere('/api/v1/status')).map(
      ({ body }) => JSON.parse(body.toString()).pid as number,
    )
    expect(new Set(pids)).toEqual(new Set([process.pid])) // handed over to the owner
  })

  it('come back when they are killed', async () => {
    const [victim] = workers.pids
    process.kill(victim!, 'SIGKILL')
    while (deaths.length === 0 || workers.pids.length < 2)
      await new Promise(resolve => setTimeout(resolve, 20))
    expect(deaths).toEqual(['SIGKILL'])
    const statuses = await everywhere('/livez')
    expect(new Set(statuses.map(({ status }) => status))).toEqual(new Set([200]))
  })
})

it('serve what was published, and each next release within moments', async () => {
  await using stack = new AsyncDisposableStack()
  const { path: folder } = stack.use(await temporaryFolder())
  const samples = await openSampleRepository(join(folder, 'samples'))
  await samples.publish(1)
  const { config } = await loadConfig({
    env: {
      TOWER_DATA: join(folder, 'data'),
      TOWER_UPSTREAM: pathToFileURL(`${samples.folder}/`).href,
      TOWER_ROOT: samples.rootPath,
      TOWER_PORT: '0',
      TOWER_WORKERS: '2',
      TOWER_REFRESH_SECONDS: '86400',
    },
    cwd: folder,
  })
  const node = stack.use(await startNode(config, pino({ level: 'silent' })))
  const port = Number(new URL(node.url).port)
  const fill = async () => {
    for await (const _event of node.fill({ signal: AbortSignal.timeout(20_000) }));
  }

  const wrongAnswers = async (): Promise<string[]> => {
    const { items } = JSON.parse((await ask(port, '/api/v1/items?limit=1000')).body.toString()) as {
      items: { url: string; sha256: string }[]
    }
    expect(items.length).toBeGreaterThan(5)
    const wrong: string[] = []
    for (const { url, sha256 } of items) {
      for (const { status, body } of await Promise.all(Array.from({ length: 8 }, () => ask(port, url)))) {
        if (status !== 200 || sha256Of(body) !== sha256) wrong.push(`${status} ${url}`)
      }
    }
    return wrong
  }

  for (const release of [1, 2] as const) {
    if (release === 2) await samples.publish(2)
    await fill()
    const until = performance.now() + 5_000 // each process reads its trust again twice a second
    while ((await wrongAnswers()).length > 0 && performance.now() < until);
    expect(await wrongAnswers()).toEqual([])
  }
}, 60_000)

it('heal through the owner what fails in them, in the middle of an answer, and are counted with it', async () => {
  await using stack = new AsyncDisposableStack()
  const { path: folder } = stack.use(await temporaryFolder())
  const samples = await openSampleRepository(join(folder, 'samples'))
  await samples.publish(1)
  const film = randomBytes(3 * MIB)
  await mkdir(join(folder, 'films'))
  await writeFile(join(folder, 'films', 'film.mp4'), film)
  const keys = [join(folder, 'samples', 'keys')]
  await publishRelease({
    folder: join(folder, 'films'),
    dataset: 'education/films',
    repository: folderStorage(samples.folder),
    signer: releaseSigner({ keys: await loadKeys(keys), pinnedRoot: await loadPinnedRoot(keys) }),
    now: new Date(),
    options: { title: 'Films', priority: 0 },
  })
  const { config } = await loadConfig({
    env: {
      TOWER_DATA: join(folder, 'data'),
      TOWER_UPSTREAM: pathToFileURL(`${samples.folder}/`).href,
      TOWER_ROOT: samples.rootPath,
      TOWER_PORT: '0',
      TOWER_WORKERS: '2',
      TOWER_LOG_LEVEL: 'silent',
      TOWER_REFRESH_SECONDS: '86400',
    },
    cwd: folder,
  })
  const node = stack.use(await startNode(config, pino({ level: 'silent' })))
  for await (const _event of node.fill({ signal: AbortSignal.timeout(20_000) }));
  const port = Number(new URL(node.url).port)
  const url = '/data/education/films/film.mp4'
  const everywhere = () => Promise.all(Array.from({ length: 24 }, () => ask(port, url)))
  const sumOf = async (pattern: RegExp) => {
    const text = (await ask(port, '/metrics')).body.toString()
    return [...text.matchAll(pattern)].reduce((sum, [, value]) => sum + Number(value), 0)
  }
  const counted = () => sumOf(/tower_http_request_seconds_count\{tier="(?!none)\w+",status="200"\} (\d+)/g)
  const faults = () => sumOf(/tower_http_read_faults_total\{code="CHUNK_CORRUPT"\} (\d+)/g)

  const until = performance.now() + 10_000 // the workers read their trust again twice a second
  while ((await everywhere()).some(({ status }) => status !== 200) && performance.now() < until);

  const extents = join(config.data, 'hot', 'extents-v1')
  const files = await readdir(extents, { recursive: true, withFileTypes: true })
  for (const { name, parentPath } of files.filter(entry => entry.isFile())) {
    await using file = await open(join(parentPath, name), 'r+')
    const { size } = await file.stat()
    if (size < MIB) continue
    // Far from its beginning: by then the answer has begun. All processes have this file open.
    const { buffer } = await file.read(Buffer.alloc(1), 0, 1, size - 700_000)
    await file.write(Buffer.from([buffer[0]! ^ 1]), 0, 1, size - 700_000)
  }
  // Healing has two seconds: where the machine is too busy for that, an answer may be cut, never wrong.
  const answers = await Promise.allSettled(Array.from({ length: 24 }, () => ask(port, url)))
  const whole = answers.flatMap(answer => (answer.status === 'fulfilled' ? answer.value : []))
  expect(whole.length).toBeGreaterThan(isBusy() ? 0 : 23)
  for (const { status, body } of whole) expect([status, body.equals(film)]).toEqual([200, true])
  // What workers count comes in each second: answers that were counted have their faults counted, too.
  const countedRound = async () => {
    const before = await counted()
    for (const { body } of await everywhere()) expect(body.equals(film)).toBe(true)
    await expect.poll(counted, { timeout: 5_000 }).toBeGreaterThanOrEqual(before + 24)
    return faults()
  }
  await countedRound()
  const met = await countedRound()
  expect(met).toBeGreaterThan(0)
  expect(await countedRound()).toBe(met) // healed for all of them
}, 60_000)

/** More to do than cores, by far: what others run on this machine would be measured. */
function isBusy(): boolean {
  return loadavg()[0]! > 4 * availableParallelism()
}
