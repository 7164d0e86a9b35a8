/**
 * The whole node under load, in a process of its own: `node bench/read/serve-node.ts <folder>` publishes the
 * files there as `bench/read` into a repository, fills a store from it, and serves that.
 *
 * With BENCH_WORKERS=1 in two processes. With BENCH_LIBRARY=test the HTTP part alone, over files that are verified chunk by chunk.
 */
import { execFileSync } from 'node:child_process'
import { mkdtempSync, readFileSync, readdirSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { pathToFileURL } from 'node:url'
import { loadConfig } from '../../node/config.ts'
import { createNodeServer } from '../../node/http/server.ts'
import { TestLibrary } from '../../node/http/test-library.ts'
import { startNode } from '../../node/main.ts'

const folder = process.argv[2] as string
const scratch = mkdtempSync(join(tmpdir(), 'bench-node-'))
const port = process.env.BENCH_LIBRARY === 'test' ? await serveFilesAlone() : await serveNode()
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
