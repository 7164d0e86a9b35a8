import { createServer, type ServerResponse } from 'node:http'
import { once } from 'node:events'
import type { AddressInfo } from 'node:net'
import { mkdir, mkdtemp, readdir, readFile, rm, truncate, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { Readable } from 'node:stream'
import { pipeline } from 'node:stream/promises'
import { setImmediate } from 'node:timers/promises'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { TestRepository } from '../../manifests/tuf/testing.ts'
import { tower } from './testing.ts'

const PATH = 'health/guide/manifest.json'
let folder: string
let repository: TestRepository
let origin: Origin

/** Serves the repository in memory, and counts. */
interface Origin extends AsyncDisposable {
  readonly url: string
  readonly asked: string[]
  /** Answers these paths in a way of its own. */
  readonly answers: Map<string, (response: ServerResponse) => void>
}

async function serve({ storage }: TestRepository): Promise<Origin> {
  const asked: string[] = []
  const answers: Origin['answers'] = new Map()
  const server = createServer((request, response) => {
    const path = decodeURIComponent(request.url ?? '').slice(1)
    asked.push(path)
    const special = answers.get(path)
    const bytes = storage.files.get(path)
    if (special) special(response)
    else if (bytes) response.end(bytes)
    else response.writeHead(404).end()
  }).listen(0, '127.0.0.1')
  await once(server, 'listening')
  return {
    url: `http://127.0.0.1:${(server.address() as AddressInfo).port}`,
    asked,
    answers,
    async [Symbol.asyncDispose]() {
      server.close()
      server.closeAllConnections()
      await once(server, 'close')
    },
  }
}

const tuf = (...args: string[]) =>
  tower([
    'tuf',
    '--metadata-dir',
    join(folder, 'metadata'),
    '--metadata-url',
    `${origin.url}/metadata`,
    ...args,
  ])
const init = () => tuf('init', join(folder, '1.root.json'))
const download = (...names: string[]) =>
  tuf(
    ...names.flatMap(name => ['--target-name', name]),
    ...['--target-base-url', `${origin.url}/targets/`, '--target-dir', join(folder, 'targets'), 'download'],
  )

beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), 'tuf-'))
  repository = await TestRepository.open()
  repository.now = new Date()
  await repository.publish(PATH, 'one')
  await mkdir(join(folder, 'metadata'))
  await writeFile(join(folder, '1.root.json'), repository.root)
  origin = await serve(repository)
})
afterEach(async () => {
  await origin[Symbol.asyncDispose]()
  await rm(folder, { recursive: true, force: true })
})

describe('tower tuf', () => {
  it('inits without a request, refreshes, and shows what it accepted', async () => {
    expect(await init()).toMatchObject({ code: 0, stdout: '' })
    expect(origin.asked).toEqual([])
    expect(await tuf('refresh')).toMatchObject({ code: 0 })
    for (const [copy, file] of Object.entries({
      'root.json': '1.root.json',
      'timestamp.json': 'timestamp.json',
    })) {
      const shown = await readFile(join(folder, 'metadata', copy))
      expect(shown).toEqual(repository.storage.files.get(`metadata/${file}`))
    }
    expect((await readdir(join(folder, 'metadata'))).toSorted()).toEqual([
      'root.json',
      'snapshot.json',
      'targets.json',
      'timestamp.json',
      'trust-v1',
    ])
  })

  it('downloads targets in order, and one that is here already only once', async () => {
    await repository.publish('health/other/manifest.json', 'other')
    await init()
    expect(await download(PATH, 'health/other/manifest.json')).toMatchObject({ code: 0 })
    const targets = () => origin.asked.filter(path => path.startsWith('targets/'))
    expect(targets()).toHaveLength(2)
    expect(await download(PATH)).toMatchObject({ code: 0 })
    expect(targets()).toHaveLength(2)
    expect(await readFile(join(folder, 'targets/health%2Fguide%2Fmanifest.json'), 'utf8')).toBe('one')

    await writeFile(join(folder, 'targets/health%2Fguide%2Fmanifest.json'), 'off')
    expect(await download(PATH)).toMatchObject({ code: 0 })
    expect(targets()).toHaveLength(3)
    const failing = await download('health/unknown/manifest.json', PATH)
    expect(failing).toMatchObject({ code: 1, stderr: expect.stringContaining('ITEM_UNKNOWN') })
    expect(targets()).toHaveLength(3)
  })

  it('refuses a target with other bytes, and one that never ends', async () => {
    await init()
    const file = [...repository.storage.files.keys()].find(path => path.startsWith('targets/'))!
    repository.storage.files.set(file, Buffer.from('two'))
    expect(await download(PATH)).toMatchObject({ code: 1, stderr: expect.stringContaining('TRUST_MISMATCH') })
    origin.answers.set(file, response => {
      pipeline(Readable.from(endless()), response).catch(() => undefined)
    })
    expect(await download(PATH)).toMatchObject({ code: 1, stderr: expect.stringContaining('TRUST_TOO_LONG') })
    expect(await readdir(join(folder, 'targets'))).toEqual([])
  })

  it('keeps its floors and goes on when any one of its files is cut anywhere', async () => {
    await init()
    await tuf('refresh')
    const older = repository.saved()
    await repository.publish(PATH, 'two')
    await download(PATH)
    const newer = repository.saved()
    const accepted = await filesBeneath(join(folder, 'metadata'))
    expect([...accepted.keys()]).toContain('trust-v1/a')

    for (const [path, bytes] of accepted) {
      const length = Math.floor(bytes.length / 2)
      await restore(accepted)
      await truncate(join(folder, 'metadata', path), length)
      repository.restore(older)
      const refused = await tuf('refresh')
      expect(refused, `${path} cut at ${length}`).toMatchObject({
        code: 1,
        stderr: expect.stringContaining('TRUST_ROLLBACK'),
      })
      repository.restore(newer)
      expect(await tuf('refresh'), `${path} cut at ${length}`).toMatchObject({ code: 0 })
      expect(await filesBeneath(join(folder, 'metadata'))).toEqual(accepted)
    }
  })

  it('refuses everything when both copies of its state are damaged, and says what to do', async () => {
    await init()
    await writeFile(join(folder, 'metadata/trust-v1/a'), 'x')
    await writeFile(join(folder, 'metadata/trust-v1/b'), 'x')
    expect(await tuf('refresh')).toMatchObject({
      code: 1,
      stderr: expect.stringContaining('TRUST_STATE_DAMAGED'),
    })
    expect(origin.asked).toEqual([])
  })

  it('takes no second root, and none that is not signed', async () => {
    expect(await tuf('refresh')).toMatchObject({
      code: 1,
      stderr: expect.stringContaining('TRUST_ROOT_ABSENT'),
    })
    await init()
    expect(await init()).toMatchObject({ code: 0 })
    const other = await TestRepository.open()
    await writeFile(join(folder, '1.root.json'), other.root)
    expect(await init()).toMatchObject({ code: 1, stderr: expect.stringContaining('TRUST_ROLLBACK') })
  })

  it.each([['refresh', '--no-such'], ['download'], ['init'], ['init', '/no/such/root.json'], ['nonsense']])(
    'exits with 1 for %j, like for any failure',
    async (...args) => {
      expect((await tuf(...args)).code).toBe(1)
    },
  )
})

async function* endless(): AsyncGenerator<Buffer> {
  for (;;) {
    yield Buffer.alloc(65_536)
    await setImmediate()
  }
}

async function filesBeneath(root: string): Promise<ReadonlyMap<string, Buffer>> {
  const names = await readdir(root, { recursive: true, withFileTypes: true })
  const paths = names
    .filter(entry => entry.isFile())
    .map(({ parentPath, name }) => join(parentPath, name).slice(root.length + 1))
  return new Map(
    await Promise.all(paths.toSorted().map(async path => [path, await readFile(join(root, path))] as const)),
  )
}

async function restore(files: ReadonlyMap<string, Buffer>): Promise<void> {
  for (const [path, bytes] of files) {
    const place = join(folder, 'metadata', path)
    await mkdir(dirname(place), { recursive: true })
    await writeFile(place, bytes)
  }
}
