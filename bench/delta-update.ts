/**
 * An update as it happens: publish, fill, publish, fill, through the command line and over HTTP.
 */
import { spawn } from 'node:child_process'
import { cp, mkdir, readdir, readFile, rm, stat, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { text } from 'node:stream/consumers'
import { pathToFileURL } from 'node:url'
import { sha256Of } from '../manifests/digest.ts'
import { filesOf } from './delta-rivals.ts'
import { serveFolder } from './delta-server.ts'

export interface UpdateFigures {
  /** Bytes of the second fill, by the server's sockets. */
  readonly wire: number
  readonly down: number
  readonly up: number
  readonly requests: number
  /** What `tower plan` says a fill would take after it, and what that took. */
  readonly planned: number
  readonly filledAsPlanned: number
  readonly firstFill: number
  readonly changedItems: number
  /** CPU of publishing the new version, and of filling with it; helpers included. */
  readonly publishCpuS: number
  readonly fillCpuS: number
  /** The larger of the two processes. */
  readonly rssMb: number
}

const MAIN = join(import.meta.dirname, '..', 'node', 'cli', 'main.ts')
const DATASET = 'education/bench'

/** @param folder is made, and left behind. */
export async function measureUpdate(
  oldPath: string,
  newPath: string,
  folder: string,
): Promise<UpdateFigures> {
  await mkdir(folder)
  const usageHook = join(folder, 'usage.mjs')
  await writeFile(usageHook, USAGE_HOOK)
  const tower = (args: readonly string[], env: Record<string, string> = {}) =>
    runTower(args, { folder, usageHook, env })
  const keys = ['--keys', join(folder, 'keys'), '--to', join(folder, 'repository')]
  const publish = async (path: string) =>
    tower(['publish', await asFolder(path, join(folder, 'content')), '--dataset', DATASET, ...keys])

  await tower(['keys', 'init', ...keys])
  await tower(['keys', 'add', DATASET.split('/')[0]!, ...keys])
  await publish(oldPath)
  await using server = await serveFolder(join(folder, 'repository'))
  const env = {
    TOWER_DATA: join(folder, 'tower'),
    TOWER_ROOT: join(folder, 'keys', 'root.json'),
    TOWER_UPSTREAM: server.url,
  }
  await tower(['fill', '--once', '--json'], env)
  const first = server.traffic()

  const published = await publish(newPath)
  // A plan keeps what it had to fetch: it is made by a twin, so that the fill counts everything.
  const twin = join(folder, 'twin')
  await cp(env.TOWER_DATA, twin, { recursive: true })
  const planRun = await tower(['plan', '--json'], { ...env, TOWER_DATA: twin })
  server.traffic()
  await tower(['fill', '--once', '--json'], { ...env, TOWER_DATA: twin })
  const asPlanned = server.traffic()
  const filled = await tower(['fill', '--once', '--json'], env)
  const { down, up, requests } = server.traffic()
  await compareItems(newPath, env, folder)
  return {
    wire: down + up,
    down,
    up,
    requests,
    planned: plannedBytes(JSON.parse(planRun.stdout)),
    filledAsPlanned: asPlanned.down + asPlanned.up,
    firstFill: first.down + first.up,
    changedItems: await changedItems(oldPath, newPath),
    publishCpuS: published.cpuS,
    fillCpuS: filled.cpuS,
    rssMb: Math.max(published.rssMb, filled.rssMb),
  }
}

/** Publishing takes folders: a single file is put into one, under one name for both versions. */
async function asFolder(path: string, folder: string): Promise<string> {
  if ((await stat(path)).isDirectory()) return path
  await rm(folder, { recursive: true, force: true })
  await mkdir(folder)
  await cp(path, join(folder, 'item'))
  return folder
}

async function changedItems(oldPath: string, newPath: string): Promise<number> {
  const old = await filesOf(oldPath)
  let changed = 0
  for (const [name, file] of await filesOf(newPath)) {
    const before = old.get(name)
    if (!before || sha256Of(await readFile(before)) !== sha256Of(await readFile(file))) changed += 1
  }
  return changed
}

function plannedBytes(plan: { wireBytes?: number; wire?: { down: number; up: number } }): number {
  return plan.wireBytes ?? (plan.wire ? plan.wire.down + plan.wire.up : Number.NaN)
}

interface Ran {
  readonly stdout: string
  readonly cpuS: number
  readonly rssMb: number
}

/** Every item, byte for byte, as the node serves it. */
async function compareItems(newPath: string, env: Record<string, string>, folder: string): Promise<void> {
  const child = spawn(process.execPath, [MAIN, 'serve', '--json'], {
    cwd: folder,
    env: { PATH: process.env['PATH'], ...env, TOWER_PORT: '0', TOWER_HOST: '127.0.0.1' },
    stdio: ['ignore', 'pipe', 'pipe'],
  })
  const exit = new Promise(resolve => child.on('exit', resolve))
  try {
    const base = await addressIn(child.stdout)
    for (const [name, file] of await filesOf(newPath)) {
      const answer = await fetch(
        `${base}/data/${DATASET}/${name.split('/').map(encodeURIComponent).join('/')}`,
      )
      const bytes = Buffer.from(await answer.arrayBuffer())
      if (!answer.ok || !bytes.equals(await readFile(file)))
        throw new Error(`${name} is not served as it was published (${answer.status})`)
    }
  } finally {
    child.kill('SIGTERM')
    await exit
  }
}

async function addressIn(stdout: AsyncIterable<Buffer>): Promise<string> {
  let seen = ''
  for await (const piece of stdout) {
    seen += piece.toString()
    const [url] = /http:\/\/[^\s"/]+:\d+/.exec(seen) ?? []
    if (url) return url
  }
  throw new Error(`the node said no address: ${seen}`)
}

/** At its end every process writes down what it took; workers and helpers, too. */
const USAGE_HOOK = `import { writeFileSync } from 'node:fs'
import { isMainThread } from 'node:worker_threads'
if (isMainThread) process.on('exit', () => {
  const { userCPUTime, systemCPUTime, maxRSS } = process.resourceUsage()
  writeFileSync(process.env.BENCH_USAGE + '/' + process.pid, JSON.stringify({ cpuS: (userCPUTime + systemCPUTime) / 1e6, rssMb: Math.round(maxRSS / 1024) }))
})
`

async function runTower(
  args: readonly string[],
  {
    folder,
    usageHook,
    env,
  }: { readonly folder: string; readonly usageHook: string; readonly env: Record<string, string> },
): Promise<Ran> {
  const usage = join(folder, 'usage')
  await rm(usage, { recursive: true, force: true })
  await mkdir(usage)
  const child = spawn(process.execPath, [MAIN, ...args], {
    cwd: folder,
    env: {
      PATH: process.env['PATH'],
      ...env,
      BENCH_USAGE: usage,
      NODE_OPTIONS: `--import=${pathToFileURL(usageHook).href}`,
    },
    stdio: ['ignore', 'pipe', 'pipe'],
  })
  const exit = new Promise<number | null>((resolve, reject) => child.on('error', reject).on('close', resolve))
  const [stdout, stderr, code] = await Promise.all([text(child.stdout), text(child.stderr), exit])
  if (code !== 0) throw new Error(`tower ${args.join(' ')} ended with ${code}: ${stderr.slice(-2000)}`)
  const used: { cpuS: number; rssMb: number }[] = []
  for (const name of await readdir(usage)) used.push(JSON.parse(await readFile(join(usage, name), 'utf8')))
  return {
    stdout,
    cpuS: used.reduce((sum, { cpuS }) => sum + cpuS, 0),
    rssMb: Math.max(0, ...used.map(({ rssMb }) => rssMb)),
  }
}
