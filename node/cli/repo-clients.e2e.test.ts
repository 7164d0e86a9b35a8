/**
 * TUF clients that others wrote, on a running node's `/repo/`: another tower, or anybody, can take a
 * node for a repository at any time, also while an update of the node is half done.
 */
import { cp, mkdir, readFile, readdir, rename } from 'node:fs/promises'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { havePythonTuf, pythonTuf, type StockClient, tufJs } from '../../manifests/tuf/test-clients.ts'
import { openWorld, type Serving, type World } from './test-world.ts'

const SAMPLES = join(import.meta.dirname, '..', 'samples')
const DATASETS = ['education/light-and-colour', 'health/hands-and-water']
const clients: [name: string, client: StockClient][] = [['tuf-js', tufJs]]
if (await havePythonTuf()) clients.push(['python-tuf', pythonTuf])

let world: World
let node: Serving
const stack = new AsyncDisposableStack()

beforeAll(async () => {
  world = stack.use(await openWorld('education', 'health'))
  for (const dataset of DATASETS) await world.publish(join(SAMPLES, dataset, 'r1'), dataset)
  node = stack.use(await world.serve())
  await world.ask(['fill', '--once'])
}, 60_000)
afterAll(() => stack.disposeAsync())

/** The revisions that the client reads in the manifests, each verified by it, in order. */
async function revisions(client: StockClient, name: string): Promise<number[]> {
  const manifests = await client({
    folder: join(world.folder, name),
    root: await readFile(join(world.keys, 'root.json')),
    metadataUrl: `${node.url}repo/metadata/`,
    targetsUrl: `${node.url}repo/targets/`,
    targets: DATASETS.map(dataset => `${dataset}/manifest.json`),
  })
  return manifests.map(bytes => (JSON.parse(bytes.toString()) as { revision: number }).revision)
}

async function publishSecond(dataset: string): Promise<void> {
  const folder = join(world.folder, 'second', dataset)
  await mkdir(folder, { recursive: true })
  for (const release of ['r1', 'r2'])
    await cp(join(SAMPLES, dataset, release), folder, { recursive: true, force: true })
  await world.publish(folder, dataset)
}

const rootsShown = async () => {
  const shown: number[] = []
  while ((await node.get(`repo/metadata/${shown.length + 1}.root.json`)).ok) shown.push(shown.length + 1)
  return shown
}

describe('a running node is a repository to TUF clients', () => {
  it.each(clients)('%s verifies every manifest', async (name, client) => {
    expect(await revisions(client, `${name}-old`)).toEqual([1, 1])
  })

  it('shows no root that its metadata does not stand up to, while an update is half done', async () => {
    await world.keysDo('rotate', 'timestamp') // a new root and a new timestamp key
    await world.keysDo('rotate', 'root')
    const metadata = join(world.repository, 'metadata')
    const snapshots = (await readdir(metadata)).filter(name => name.endsWith('.snapshot.json'))
    const aside = (name: string) => join(world.folder, name)
    for (const name of snapshots) await rename(join(metadata, name), aside(name))
    expect((await world.run(['fill', '--once', '--json'])).code).toBe(3)
    expect(await world.ask(['status'])).toMatchObject({ trust: { rootVersion: 3 } }) // accepted, for good
    expect(await rootsShown()).toEqual([1])
    for (const [name, client] of clients) {
      expect(await revisions(client, `${name}-old`)).toEqual([1, 1])
      expect(await revisions(client, `${name}-half`)).toEqual([1, 1])
    }
    for (const name of snapshots) await rename(aside(name), join(metadata, name))
  }, 60_000)

  it('after the rotations clients old and new verify every manifest of the next release', async () => {
    await publishSecond(DATASETS[0]!)
    await world.ask(['fill', '--once'])
    expect(await rootsShown()).toEqual([1, 2, 3])
    for (const [name, client] of clients) {
      for (const folder of [`${name}-old`, `${name}-half`, `${name}-new`])
        expect(await revisions(client, folder), folder).toEqual([2, 1])
    }
  }, 60_000)
})
