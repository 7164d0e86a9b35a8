/**
 * The whole node under load, in a process of its own: `node bench/read/serve-node.ts <folder>` publishes the
 * files there as `bench/read` into a repository, fills a store from it, and serves that.
 *
 * With BENCH_WORKERS=1 in two processes. With BENCH_BUSY=<address> it fills itself from there while it serves
 * (at that address somebody serves `BENCH_REPOSITORY`), has to evict for that, and scrubs; how far it has
 * come it writes to BENCH_REPORT from time to time. With BENCH_LIBRARY=test the HTTP part alone, over files that are verified chunk by chunk.
 */
import { execFileSync } from 'node:child_process'
import { randomBytes } from 'node:crypto'
import { mkdirSync, mkdtempSync, readFileSync, readdirSync, rmSync, statSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { pathToFileURL } from 'node:url'
import { loadConfig } from '../../node/config.ts'
import { createNodeServer } from '../../node/http/server.ts'
import { TestLibrary } from '../../node/http/test-library.ts'
import { type RunningNode, startNode } from '../../node/main.ts'
import { CHURN_BYTES, OLD_BYTES, ROOM_BYTES, SCRUB_BYTES_PER_SECOND } from './busy.ts'

const MiB = 1024 * 1024
const folder = process.argv[2] as string
const scratch = mkdtempSync(join(tmpdir(), 'bench-node-'))
const port =
  process.env.BENCH_LIBRARY === 'test'
    ? await serveFilesAlone()
    : process.env.BENCH_BUSY
      ? await serveBusyNode(process.env.BENCH_BUSY)
      : await serveNode()
console.log(`PORT ${port}`)
process.once('SIGTERM', () => {
  rmSync(scratch, { recursive: true, force: true })
  process.exit()
})

async function serveNode(): Promise<number> {
  const [keys, repository] = [join(scratch, 'keys'), join(scratch, 'repository')]
  const env = {
    TOWER_DATA: join(scratch, 'data'),
    TOWER_UPSTREAM: pathToFileURL(`${repository}/`).href,
    TOWER_ROOT: join(keys, 'root.json'),
    TOWER_PORT: '0',
    TOWER_WORKERS: process.env.BENCH_WORKERS ?? '0',
    TOWER_LOG_LEVEL: 'warn',
    TOWER_REFRESH_SECONDS: '86400',
  }
  tower(env, 'keys', 'init', '--keys', keys, '--to', repository)
  tower(env, 'keys', 'add', 'bench', '--keys', keys, '--to', repository)
  tower(env, 'publish', folder, '--dataset', 'bench/read', '--keys', keys, '--to', repository)
  tower(env, 'fill', '--once') // in a process of its own: what is measured here only serves
  const { config } = await loadConfig({ env, cwd: scratch })
  const node = await startNode(config)
  node.owner.library.datasets() // begins to count what is here
  await node.owner.library.settled()
  const [view] = node.owner.library.datasets()
  if (!view || view.present < view.expected)
    throw new Error(`filled ${view?.present} of ${view?.expected} bytes`)
  return Number(new URL(node.url).port)
}

async function serveBusyNode(upstream: string): Promise<number> {
  const keys = join(scratch, 'keys')
  const repository = process.env.BENCH_REPOSITORY as string
  const readMib = readdirSync(folder).reduce((sum, name) => sum + statSync(join(folder, name)).size, 0) / MiB
  const capacityMib = readMib + (OLD_BYTES + ROOM_BYTES) / MiB
  const env = {
    TOWER_DATA: join(scratch, 'data'),
    TOWER_UPSTREAM: pathToFileURL(`${repository}/`).href,
    TOWER_ROOT: join(keys, 'root.json'),
    TOWER_PORT: '0',
    TOWER_LOG_LEVEL: 'warn',
    TOWER_REFRESH_SECONDS: '86400',
    TOWER_HOT_BYTES: `${Math.round(capacityMib / 2)}MiB`,
    TOWER_WARM_BYTES: `${Math.round(capacityMib / 2)}MiB`,
    TOWER_RESERVE_BYTES: '1MiB',
  }
  const publish = (from: string, dataset: string, priority: string) =>
    tower(
      env,
      ...['publish', from, '--dataset', dataset, '--priority', priority, '--keys', keys, '--to', repository],
    )
  tower(env, 'keys', 'init', '--keys', keys, '--to', repository)
  tower(env, 'keys', 'add', 'bench', '--keys', keys, '--to', repository)
  publish(folder, 'bench/read', '0') // held: what is read here is never what gives way
  publish(noiseFolder('old', OLD_BYTES), 'bench/old', '3')
  tower(env, 'fill', '--once')
  publish(noiseFolder('churn', CHURN_BYTES), 'bench/churn', '1')

  const { config } = await loadConfig({ env: { ...env, TOWER_UPSTREAM: upstream }, cwd: scratch })
  const { owner, url } = await startNode(config) // begins to fill
  void scrubFor(owner.store)
  setInterval(() => {
    const datasets = owner.library.datasets().map(({ dataset, present }) => [dataset, present])
    writeFileSync(process.env.BENCH_REPORT as string, JSON.stringify(Object.fromEntries(datasets)))
  }, 1_500)
  return Number(new URL(url).port)
}

async function scrubFor(store: RunningNode['owner']['store']): Promise<never> {
  const options = {
    heal: true,
    rateBytesPerSecond: SCRUB_BYTES_PER_SECOND,
    signal: new AbortController().signal,
  }
  for (;;) for await (const _progress of store.verify(options));
}

function noiseFolder(name: string, sizeBytes: number): string {
  const path = join(scratch, name)
  mkdirSync(path)
  for (let i = 0; i < sizeBytes / MiB; i += 4) writeFileSync(join(path, `${name}-${i}`), randomBytes(4 * MiB))
  return path
}

function tower(env: NodeJS.ProcessEnv, ...args: string[]): void {
  const main = join(import.meta.dirname, '../../node/cli/main.ts')
  execFileSync(process.execPath, [main, ...args], {
    env: { PATH: process.env.PATH, ...env },
    stdio: 'ignore',
  })
}

async function serveFilesAlone(): Promise<number> {
  const library = new TestLibrary(scratch)
  for (const name of readdirSync(folder)) {
    library.add(name, readFileSync(join(folder, name)), { dataset: 'bench/read' })
  }
  const node = createNodeServer({ library })
  const { port } = await node.listen({ port: 0 })
  return port
}
