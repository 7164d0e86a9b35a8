/**
 * Real datasets, from old to new, out of every kind of origin that a publisher may have: the plan
 * says what crosses the wire, and every item equals its source.
 */
import { execFileSync, spawn } from 'node:child_process'
import { createHash } from 'node:crypto'
import { once } from 'node:events'
import { createReadStream, existsSync } from 'node:fs'
import { chmod, copyFile, mkdir, readdir, writeFile } from 'node:fs/promises'
import { connect, createServer, type AddressInfo } from 'node:net'
import { join } from 'node:path'
import { pipeline } from 'node:stream/promises'
import { setTimeout as sleep } from 'node:timers/promises'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { nginxIsHere } from '../../nginx/testing.ts'
import { openStaticOrigin } from '../static-origin.ts'
import { openWorld, type World } from './test-world.ts'

const DATA = process.env['TOWERLIGHT_DATA'] ?? join(import.meta.dirname, '..', '..', '..', 'shared', 'data')
const DATASETS = ['education/italy-csv', 'education/chem-images', 'education/cphys-text']
/** Of the datasets' size: what the update may put on the wire. */
const UPDATE_SHARE_MAX = 0.05
/** How far the wire may be off the plan. */
const PLAN_ERROR_MAX = 0.01
const ORIGINS = ['a plain static NGINX', 'a server that ignores Range', 'a folder']

const sourceOf = (dataset: string, version: string) =>
  join(DATA, 'datasets', dataset.split('/')[1]!, version + (dataset.endsWith('csv') ? '.csv' : '.tar'))
const here = DATASETS.every(dataset => existsSync(sourceOf(dataset, 'new')))
if (!here) console.warn(`NOT RUN: origins with real datasets, which are not in ${DATA} (TOWERLIGHT_DATA)`)

interface Wire {
  readonly down: number
  readonly up: number
  readonly requests: number
}
interface Planned {
  readonly wire: Wire
  readonly spent: Wire
  readonly contentBytes: number
}
interface Filled extends Omit<Planned, 'spent'> {
  readonly complete: boolean
}
interface PlannedAndFilled {
  readonly planned: Planned
  readonly filled: Filled
}
const wireBytesOf = ({ down, up }: Wire) => down + up

function expectAsPlanned({ planned, filled }: PlannedAndFilled): void {
  expect(filled).toMatchObject({ complete: true, contentBytes: planned.contentBytes })
  expect(Math.abs(wireBytesOf(filled.wire) / wireBytesOf(planned.wire) - 1)).toBeLessThanOrEqual(
    PLAN_ERROR_MAX,
  )
}

describe.runIf(here)('a real dataset', { timeout: 300_000 }, () => {
  let world: World
  let upstreams: Record<string, string>
  /** Of the old version, into nothing. */
  const first = new Map<string, PlannedAndFilled>()
  const stack = new AsyncDisposableStack()
  const settingsOf = (origin: string) => ({
    TOWER_DATA: join(world.folder, `tower ${origin}`),
    TOWER_UPSTREAM: upstreams[origin]!,
  })

  beforeAll(async () => {
    world = stack.use(await openWorld('education'))
    const ranged = stack.use(
      nginxIsHere() ? await startNginx(world) : await openStaticOrigin(world.repository),
    )
    const whole = stack.use(await openStaticOrigin(world.repository, { ranges: false }))
    upstreams = {
      'a plain static NGINX': ranged.url,
      'a server that ignores Range': whole.url,
      'a folder': world.env['TOWER_UPSTREAM']!,
    }
    await publishAll('old')
    for (const origin of ORIGINS) first.set(origin, await planAndFill(origin))
    await publishAll('new')
  }, 300_000)
  afterAll(() => stack.disposeAsync())

  async function planAndFill(origin: string): Promise<PlannedAndFilled> {
    const settings = settingsOf(origin)
    const planned = (await world.ask(['plan'], settings)) as Planned
    return { planned, filled: (await world.ask(['fill', '--once'], settings)) as Filled }
  }

  async function publishAll(version: string): Promise<void> {
    for (const dataset of DATASETS) {
      const folder = join(world.folder, version, dataset)
      await mkdir(folder, { recursive: true })
      const source = sourceOf(dataset, version)
      if (source.endsWith('.tar')) execFileSync('tar', ['-xf', source, '-C', folder])
      else await copyFile(source, join(folder, 'italy.csv'))
      await world.publish(folder, dataset)
    }
  }

  it.each(ORIGINS)('is filled from %s by the bytes that were planned', origin => {
    expectAsPlanned(first.get(origin)!)
  })

  it.each(ORIGINS)('is updated from %s by the bytes that were planned', async origin => {
    const settings = settingsOf(origin)
    const { planned, filled } = await planAndFill(origin)
    expectAsPlanned({ planned, filled })

    await using node = await world.serve(settings)
    let itemBytes = 0
    for (const dataset of DATASETS) {
      const folder = join(world.folder, 'new', dataset)
      const entries = await readdir(folder, { recursive: true, withFileTypes: true })
      for (const entry of entries.filter(entry => entry.isFile())) {
        const file = join(entry.parentPath, entry.name)
        const path = file.slice(folder.length + 1)
        const response = await node.get(
          `data/${dataset}/${path.split('/').map(encodeURIComponent).join('/')}`,
        )
        const bytes = Buffer.from(await response.arrayBuffer())
        itemBytes += bytes.length
        expect([path, createHash('sha256').update(bytes).digest('hex')]).toEqual([path, await sha256In(file)])
      }
    }
    const wireBytes = wireBytesOf(filled.wire) + wireBytesOf(planned.spent)
    expect(wireBytes / itemBytes).toBeLessThan(UPDATE_SHARE_MAX)
  })
})

async function sha256In(file: string): Promise<string> {
  const hash = createHash('sha256')
  await pipeline(createReadStream(file), hash)
  return hash.digest('hex')
}

/** No module, no script: a root and nothing else. */
async function startNginx({ folder, repository }: World): Promise<AsyncDisposable & { url: string }> {
  await chmod(folder, 0o755) // its workers are another user, when root starts it
  const port = await freePort()
  const at = join(folder, 'nginx')
  await mkdir(at)
  const temporary = ['client_body', 'proxy', 'fastcgi', 'uwsgi', 'scgi'].map(
    name => `${name}_temp_path ${at}/temp;`,
  )
  const config = `daemon off; worker_processes 1; pid ${at}/pid; error_log ${at}/log; events {}
    http { access_log off; ${temporary.join(' ')} server { listen 127.0.0.1:${port}; root ${repository}; } }`
  await writeFile(join(at, 'nginx.conf'), config)
  const child = spawn('nginx', ['-c', join(at, 'nginx.conf')], { stdio: 'ignore' })
  const exit = once(child, 'exit')
  while (!(await listens(port))) {
    if (child.exitCode !== null) throw new Error('NGINX did not start')
    await sleep(20)
  }
  return {
    url: `http://127.0.0.1:${port}/`,
    async [Symbol.asyncDispose]() {
      child.kill('SIGTERM')
      await exit
    },
  }
}

async function freePort(): Promise<number> {
  await using server = createServer().listen(0, '127.0.0.1')
  await once(server, 'listening')
  return (server.address() as AddressInfo).port
}

function listens(port: number): Promise<boolean> {
  return new Promise(resolve => {
    const socket = connect(port, '127.0.0.1', () => resolve(true)).on('error', () => resolve(false))
    socket.on('connect', () => socket.destroy())
  })
}
