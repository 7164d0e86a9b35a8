/**
 * The whole node under load, in a process of its own: `node bench/read/serve-node.ts <folder>` publishes the
 * files there as `bench/read` into a repository, fills a store from it, and serves that.
 *
 * With BENCH_LIBRARY=test the HTTP part alone, over files that are verified chunk by chunk.
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
  tower('keys', 'init', '--keys', keys, '--to', repository)
  tower('keys', 'add', 'bench', '--keys', keys, '--to', repository)
  tower('publish', folder, '--dataset', 'bench/read', '--keys', keys, '--to', repository)
  const { config } = await loadConfig({
    env: {
      TOWER_DATA: join(scratch, 'data'),
      TOWER_UPSTREAM: pathToFileURL(`${repository}/`).href,
      TOWER_ROOT: join(keys, 'root.json'),
      TOWER_PORT: '0',
      TOWER_LOG_LEVEL: 'warn',
      TOWER_REFRESH_SECONDS: '86400',
    },
    cwd: scratch,
  })
  const node = await startNode(config)
  for await (const _event of node.fill({ signal: AbortSignal.timeout(600_000) }));
  const [view] = node.owner.library.datasets()
  if (!view || view.present < view.expected)
    throw new Error(`filled ${view?.present} of ${view?.expected} bytes`)
  return Number(new URL(node.url).port)
}

function tower(...args: string[]): void {
  execFileSync(process.execPath, [join(import.meta.dirname, '../../node/cli/main.ts'), ...args], {
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
