/**
 * Questions: how fast does a tower take content in, how soon does it serve, and what memory does it
 * need, with a catalog of 100,000 items?
 *
 * Workload, from a fixed seed: one dataset of incompressible large items (fill rate), one of many
 * small ones (start, memory, items per second). Origin: a static server in a process of its own, on
 * loopback. Rival for the fill: `rsync -a` of the same folder into an empty one, synced afterwards,
 * in the same run. Chunking and hashing are measured by `bench/chunk-hash.ts`.
 *
 *   node bench/store.ts [--items 100000] [--large-mib 512]
 */
import { spawn, type ChildProcess } from 'node:child_process'
import { createCipheriv, createHash } from 'node:crypto'
import { once } from 'node:events'
import { mkdir, mkdtempDisposable, readdir, readFile, stat, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { text } from 'node:stream/consumers'
import { setTimeout as sleep } from 'node:timers/promises'
import { parseArgs } from 'node:util'

const { values } = parseArgs({
  options: { items: { type: 'string', default: '100000' }, 'large-mib': { type: 'string', default: '512' } },
})
const items = Number(values.items)
const largeBytes = Number(values['large-mib']) * 1024 * 1024
const TOWER = join(import.meta.dirname, '..', 'node', 'cli', 'tower')
const ITEM_BYTES = 64 * 1024 * 1024

/** Of the commands that are run; the tower's once there is an origin. */
const environment: Record<string, string | undefined> = { ...process.env }

await using folder = await mkdtempDisposable(join(tmpdir(), 'tower-bench-store-'))
const at = (...names: string[]) => join(folder.path, ...names)
const keys = ['--keys', at('keys'), '--to', at('repository')]
await writeLarge(at('large'))
await writeSmall(at('small'), 1)
await tower(['keys', 'init', ...keys])
await tower(['keys', 'add', 'education', ...keys])
await tower(['publish', at('large'), '--dataset', 'education/large', ...keys])
await using origin = await startOrigin(at('repository'))
Object.assign(environment, {
  TOWER_DATA: at('tower'),
  TOWER_ROOT: at('keys', 'root.json'),
  TOWER_UPSTREAM: origin.url,
  TOWER_PORT: '0',
})

const largeFill = await fill()
const rsyncSeconds = await secondsOf('rsync', ['-a', '--fsync', `${at('large')}/`, at('rsynced')])
const publishSeconds = (await tower(['publish', at('small'), '--dataset', 'education/small', ...keys]))
  .seconds
const publishUnchangedWrites = await writesOf(() =>
  tower(['publish', at('small'), '--dataset', 'education/small', ...keys]),
)
const smallFill = await fill()

const startsMs: number[] = []
for (let run = 0; run < 5; run++) {
  const node = await startNode()
  startsMs.push(node.startMs)
  await stop(node.process)
}
const node = await startNode()
await sleep(45_000) // idle is what is left when start-up's work has ended, and its garbage was collected
const rssIdleMb = await residentMb(node.process, 'VmRSS')
await writeSmall(at('small'), 2)
await tower(['publish', at('small'), '--dataset', 'education/small', ...keys])
const asking = askAll(node.url)
await fill()
await asking.stop()
const rssBusyMb = await residentMb(node.process, 'VmHWM')
await stop(node.process)

const chunkHash = await jsonOf([join(import.meta.dirname, 'chunk-hash.ts')])
console.log(
  JSON.stringify({
    bench: 'store',
    chunkHashMBps: chunkHash['chunkHashMBps'],
    chunkHash2MBps: chunkHash['chunkHash2MBps'],
    publishItemsPerS: Math.round(items / publishSeconds),
    publishUnchangedWrites,
    fillMBps: Math.round(largeFill.contentBytes / 1e6 / largeFill.seconds),
    fillItemsPerS: Math.round(items / smallFill.seconds),
    rivals: { rsyncMBps: Math.round(largeBytes / 1e6 / rsyncSeconds) },
    startMs: Math.round(startsMs.toSorted((a, b) => a - b)[2] ?? 0),
    rssIdleMb,
    rssBusyMb,
    requestsWhileBusy: asking.answered(),
    items,
    node: process.version,
  }),
)

/** 64 MiB each, so that packs and extents are as they are in use. */
async function writeLarge(path: string): Promise<void> {
  await mkdir(path, { recursive: true })
  for (let n = 0; n * ITEM_BYTES < largeBytes; n++) {
    await writeFile(join(path, `${n}.bin`), noise(Math.min(ITEM_BYTES, largeBytes - n * ITEM_BYTES), n))
  }
}

/** A tenth of the items differs from one version to the next. */
async function writeSmall(path: string, version: number): Promise<void> {
  for (let n = 0; n < items; n++) {
    if (version > 1 && n % 10 !== 0) continue
    const shelf = join(path, `unit-${Math.floor(n / 1000)}`)
    if (n % 1000 === 0) await mkdir(shelf, { recursive: true })
    const words = `lesson ${n} version ${n % 10 === 0 ? version : 1} `
    await writeFile(join(shelf, `lesson-${n}.txt`), words + noise(300 + (n % 700), n).toString('base64'))
  }
}

/** As good as random, so that nothing shrinks; the same for a seed each time. */
function noise(sizeBytes: number, seed: number): Buffer {
  const cipher = createCipheriv(
    'aes-128-ctr',
    createHash('md5').update(`noise ${seed}`).digest(),
    Buffer.alloc(16),
  )
  return cipher.update(Buffer.alloc(sizeBytes))
}

interface Ran {
  readonly output: string
  readonly seconds: number
}

async function tower(args: readonly string[]): Promise<Ran> {
  return await run(TOWER, args)
}

async function run(program: string, args: readonly string[]): Promise<Ran> {
  const since = performance.now()
  const child = spawn(program, args, { env: environment, stdio: ['ignore', 'pipe', 'pipe'] })
  const exited = once(child, 'exit')
  const [output, problems] = await Promise.all([text(child.stdout), text(child.stderr)])
  const [code] = await exited
  if (code !== 0) throw new Error(`${args.join(' ')} ended with ${code}: ${problems}${output}`)
  return { output, seconds: (performance.now() - since) / 1000 }
}

async function fill(): Promise<{ contentBytes: number; seconds: number }> {
  const { output } = await tower(['fill', '--once', '--json'])
  const report = JSON.parse(output) as { contentBytes: number; seconds: number; complete: boolean }
  if (!report.complete) throw new Error('the fill was not complete')
  return report
}

async function secondsOf(program: string, args: readonly string[]): Promise<number> {
  return (await run(program, args)).seconds
}

async function jsonOf(args: readonly string[]): Promise<Record<string, unknown>> {
  return JSON.parse((await run(process.execPath, args)).output) as Record<string, unknown>
}

/** Files of the repository that are new or changed afterwards. */
async function writesOf(work: () => Promise<unknown>): Promise<number> {
  const listing = async () => {
    const entries = await readdir(at('repository'), { recursive: true, withFileTypes: true })
    const files = entries
      .filter(entry => entry.isFile() && !entry.name.startsWith('.publish'))
      .map(entry => join(entry.parentPath, entry.name))
    return new Map(await Promise.all(files.map(async file => [file, (await stat(file)).mtimeMs] as const)))
  }
  const before = await listing()
  await work()
  const after = await listing()
  return [...after].filter(([file, changedMs]) => before.get(file) !== changedMs).length
}

/** From the start of the process to the first verified byte of an item, at the client. */
async function startNode(): Promise<{ process: ChildProcess; url: string; startMs: number }> {
  const since = performance.now()
  const child = spawn(TOWER, ['serve', '--json'], {
    env: environment,
    stdio: ['ignore', 'pipe', 'ignore'],
  })
  const [line] = (await once(child.stdout, 'data')) as [Buffer]
  const { url } = JSON.parse(line.toString('utf8')) as { url: string }
  const response = await fetch(`${url}data/education/small/unit-0/lesson-7.txt`)
  if (!response.ok) throw new Error(`the first item was answered with ${response.status}`)
  const reader = response.body?.getReader()
  await reader?.read()
  const startMs = performance.now() - since
  await reader?.cancel()
  return { process: child, url, startMs }
}

/** Apart from this process, whose memory is full of what it wrote. */
async function startOrigin(folder: string): Promise<AsyncDisposable & { readonly url: string }> {
  const script = join(import.meta.dirname, '..', 'warmers', 'folder-process.ts')
  const child = spawn(process.execPath, [script, folder, '127.0.0.1'], {
    stdio: ['ignore', 'pipe', 'inherit'],
  })
  const [port] = (await once(child.stdout, 'data')) as [Buffer]
  return { url: `http://127.0.0.1:${port.toString().trim()}/`, [Symbol.asyncDispose]: () => stop(child) }
}

async function stop(child: ChildProcess): Promise<void> {
  const exited = once(child, 'exit')
  child.kill('SIGTERM')
  await exited
}

/** Asks for one item after the other, from four clients, until stopped. */
function askAll(url: string): { stop(): Promise<void>; answered(): number } {
  let asking = true
  let answered = 0
  const client = async (first: number) => {
    // oxlint-disable-next-line no-unmodified-loop-condition -- `stop` ends it
    for (let n = first; asking; n = (n + 7919) % items) {
      const response = await fetch(`${url}data/education/small/unit-${Math.floor(n / 1000)}/lesson-${n}.txt`)
      await response.arrayBuffer()
      if (!response.ok) throw new Error(`item ${n} was answered with ${response.status}`)
      answered++
    }
  }
  const clients = Promise.all([0, 1, 2, 3].map(client))
  return {
    answered: () => answered,
    async stop() {
      asking = false
      await clients
    },
  }
}

async function residentMb(child: ChildProcess, field: 'VmRSS' | 'VmHWM'): Promise<number> {
  const status = await readFile(`/proc/${child.pid}/status`, 'utf8')
  return Math.round(Number(new RegExp(`${field}:\\s+(\\d+)`).exec(status)?.[1]) / 1024)
}
