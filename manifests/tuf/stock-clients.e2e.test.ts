import { mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { openStaticOrigin, type StaticOrigin } from '../../node/static-origin.ts'
import { removePublisher, renew } from './ceremony.ts'
import { loadRepository } from './repository.ts'
import { havePythonTuf, pythonTuf, type StockClient, tufJs } from './test-clients.ts'
import { TestRepository } from './testing.ts'

const clients: [name: string, client: StockClient][] = [['tuf-js', tufJs]]
if (await havePythonTuf()) clients.push(['python-tuf', pythonTuf])
const PUBLISHERS = {
  health: ['health/*/manifest.json'],
  edu: ['edu/*/manifest.json', 'school/*/manifest.json'],
}

let folder: string
let repository: TestRepository
let origin: StaticOrigin
const published = new Map<string, string>()

beforeEach(async () => {
  published.clear()
  folder = await mkdtemp(join(tmpdir(), 'stock-'))
  repository = await TestRepository.open({ rootKeys: 3, threshold: 2, publishers: PUBLISHERS })
  repository.now = new Date()
  await mkdir(join(folder, 'repository'))
  origin = await openStaticOrigin(join(folder, 'repository'))
})
afterEach(async () => {
  await origin[Symbol.asyncDispose]()
  await rm(folder, { recursive: true, force: true })
})

async function publish(path: string, text: string): Promise<void> {
  await repository.publish(path, text)
  published.set(path, text)
}

/** What the client gets for every target, out of its folder of that name. */
async function downloadAll(client: StockClient, name: string): Promise<string[]> {
  await rm(join(folder, 'repository'), { recursive: true })
  for (const [path, bytes] of repository.storage.files) {
    const place = join(folder, 'repository', path)
    await mkdir(dirname(place), { recursive: true })
    await writeFile(place, bytes)
  }
  const downloaded = await client({
    folder: join(folder, name),
    root: repository.root,
    metadataUrl: `${origin.url}metadata/`,
    targetsUrl: `${origin.url}targets/`,
    targets: [...published.keys()],
  })
  return downloaded.map(String)
}

describe.each(clients)('%s', (_name, client) => {
  const expected = () => [...published.values()]

  it('verifies every target, before and after twenty root rotations and new keys for every role', async () => {
    await publish('health/guide/manifest.json', 'guide 1')
    await publish('edu/maths/manifest.json', 'maths 1')
    await publish('school/a.b-c_d/manifest.json', 'school 1')
    expect(await downloadAll(client, 'old')).toEqual(expected())

    for (let version = 0; version < 20; version++) await repository.rotate('root')
    for (const role of ['timestamp', 'snapshot', 'targets'] as const) await repository.rotate(role)
    await repository.addPublisher('health', PUBLISHERS.health) // a new key
    await publish('health/guide/manifest.json', 'guide 2')
    await publish('health/new/manifest.json', 'new 1')
    expect(await downloadAll(client, 'old')).toEqual(expected())
    expect(await downloadAll(client, 'new')).toEqual(expected())
  })

  it('goes on after a fast-forward attack was ended by new keys, and after renewal', async () => {
    await publish('health/guide/manifest.json', 'guide 1')
    const honest = repository.saved()
    repository.forge('timestamp.json', { version: 1_000_000 })
    expect(await downloadAll(client, 'client')).toEqual(expected())
    repository.restore(honest)
    await repository.rotate('timestamp')
    await publish('health/guide/manifest.json', 'guide 2')
    expect(await downloadAll(client, 'client')).toEqual(expected())
    await renew(repository.context, await loadRepository(repository.storage))
    expect(await downloadAll(client, 'client')).toEqual(expected())
  })

  it('finds nothing of a publisher who was revoked', async () => {
    await publish('health/guide/manifest.json', 'guide 1')
    await removePublisher(repository.context, await loadRepository(repository.storage), 'health')
    await expect(downloadAll(client, 'client')).rejects.toThrow('no such target')
  })
})
