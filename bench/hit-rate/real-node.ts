/**
 * The node itself, given a trace's requests one by one over HTTP: real releases, real fills in contact
 * windows and on demand, its own tiers, planner and demand counts. Only time is not real.
 *
 * Sizes are divided so that the volume is bearable. Catalogs come on top of the capacity: divided
 * sizes would make them weigh as much as what they list.
 */
import { existsSync, readdirSync } from 'node:fs'
import { mkdtemp, rm } from 'node:fs/promises'
import { Agent, get } from 'node:http'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { loadConfig } from '../../node/config.ts'
import { createNodeServer } from '../../node/http/server.ts'
import { openOwner } from '../../node/owner.ts'
import type { Trace } from '../trace.ts'
import type { Catalog, ContactWindow } from './link-model.ts'
import { openRealOrigin, type Published } from './real-origin.ts'
import { median, rounded, Tally, type Ratios } from './tally.ts'

export interface RealWorld {
  readonly trace: Trace
  readonly capacityBytes: number
  /** Always on when absent. */
  readonly windows?: readonly ContactWindow[]
  readonly catalog?: Catalog
}

export interface RealResult extends Ratios {
  readonly sizesDividedBy: number
  readonly fills: number
  readonly originBytes: number
  readonly cpuUsPerRequest: number
  /** Of the whole process, origin and client in it: medians of the second and of the last quarter. */
  readonly rssMb: readonly [early: number, late: number]
  readonly openFiles: readonly [early: number, late: number]
  /** The most that content took, over what it may take: capacity, catalogs, what passes through. */
  readonly diskShareMax: number
}

/** Bodies of a run; sizes are divided by 64 where they would be more. */
const VOLUME_MAX = 1.2e9
/** Virtual time begins here; any date will do. */
const EPOCH_MS = Date.UTC(2024, 0, 1)
const ITEMS_PER_DATASET = 100
/** Each is looked at in each plan. */
const DATASETS_MAX = { always: 400, windows: 64 }
const PASSING_SHARE = 0.01
const SAMPLES = 400
const MIB = 1024 * 1024

export async function runRealNode(world: RealWorld): Promise<RealResult> {
  const { trace, capacityBytes, windows } = world
  await using stack = new AsyncDisposableStack()
  const folder = await mkdtemp(join(existsSync('/dev/shm') ? '/dev/shm' : tmpdir(), 'real-node-'))
  stack.defer(() => rm(folder, { recursive: true, force: true }))
  const divisor = divisorOf(trace)
  const bodyOf = (size: number) => Math.max(1, Math.round(size / divisor))
  const datasets = datasetsOf(world, bodyOf)
  const datasetOf = new Map(
    datasets.flatMap(({ name, items }) => items.map(({ key }) => [key, name] as const)),
  )
  const origin = stack.use(await openRealOrigin(folder, datasets))

  const first = trace.seconds[0]!
  let virtualMs = EPOCH_MS + first * 1000
  let isUp = windows === undefined
  const capacity = Math.ceil(capacityBytes / divisor)
  const passingBytesMax = Math.ceil(capacity * PASSING_SHARE)
  const kept = capacity - passingBytesMax + origin.catalogBytes
  const hotBytesMax = Math.floor(kept / 5)
  const { config } = await loadConfig({
    env: {
      TOWER_DATA: join(folder, 'node'),
      TOWER_ROOT: origin.rootPath,
      TOWER_UPSTREAM: origin.url,
      TOWER_HOT_BYTES: String(hotBytesMax),
      TOWER_WARM_BYTES: String(kept - hotBytesMax),
      TOWER_RESERVE_BYTES: String(MIB),
    },
    cwd: folder,
  })
  const now = () => virtualMs
  const owner = stack.use(await openOwner(config, { now, isLinkUp: () => isUp, passingBytesMax }))
  const server = createNodeServer(
    {
      library: owner.library,
      now,
      onAsked: item => owner.asked(item),
    },
    { memoryBytesMax: 1 },
  )
  stack.defer(() => server.close(0))
  const { port } = await server.listen({ port: 0 })
  const agent = new Agent({ keepAlive: true, maxSockets: 1 })
  stack.defer(() => agent.destroy())

  const never = new AbortController().signal
  await owner.links.probe({ signal: never })
  let fills = 0
  const fill = async (limits: { wireBytesMax?: number; priorityMax?: -1 }) => {
    fills++
    const published = datasets.filter(({ publishedMs }) => publishedMs <= virtualMs).map(({ name }) => name)
    for await (const event of owner.fill({ datasets: published, limits }, { signal: never })) {
      if (event.type === 'failed') console.error(event.code, event.message)
    }
    await owner.store.settled()
  }
  // catalogs are there before anybody asks, as in the model
  await fill({ priorityMax: -1 })

  const tally = new Tally()
  const span = trace.seconds.at(-1)! - first
  const countFrom = windows ? first + span / 10 : -Infinity
  let next = 0
  let open: ContactWindow | undefined
  let asked = 0
  let plannedMs = -Infinity
  const sampledEvery = Math.ceil(trace.key.length / SAMPLES)
  const rss: number[] = []
  const files: number[] = []
  let diskShareMax = 0
  const cpuBefore = process.cpuUsage()
  for (const [n, key] of trace.key.entries()) {
    const seconds = trace.seconds[n]!
    for (;;) {
      if (open && open.toSeconds <= seconds) {
        open = undefined
        isUp = false
      } else if (windows?.[next] && windows[next]!.fromSeconds <= seconds) {
        open = windows[next++]!
        virtualMs = EPOCH_MS + open.fromSeconds * 1000
        const isNew = ({ publishedMs }: Published) => plannedMs < publishedMs && publishedMs <= virtualMs
        const hasNews = asked > 0 || datasets.some(isNew)
        if (!hasNews) continue // since the last plan: it would be the same
        asked = 0
        plannedMs = virtualMs
        isUp = true
        const bytes = (open.bytesPerSecond * (open.toSeconds - open.fromSeconds)) / divisor
        await fill({ wireBytesMax: Math.ceil(bytes) + 100_000 })
      } else break
    }
    if (windows) isUp = open !== undefined
    virtualMs = EPOCH_MS + seconds * 1000
    const hit = await isHit(port, `/data/${datasetOf.get(key)}/${key}`, agent)
    if (seconds >= countFrom) tally.count(hit, trace.size[n]!)
    asked++
    if (n % sampledEvery === 0) {
      const { hotBytes, warmBytes } = owner.store.usage()
      rss.push(process.memoryUsage.rss() / 1e6)
      files.push(readdirSync('/proc/self/fd').length)
      diskShareMax = Math.max(diskShareMax, (hotBytes + warmBytes) / kept)
    }
  }
  const { user, system } = process.cpuUsage(cpuBefore)
  return {
    ...tally.ratios,
    sizesDividedBy: divisor,
    fills,
    originBytes: origin.served.bodyBytes,
    cpuUsPerRequest: rounded((user + system) / trace.key.length),
    rssMb: earlyAndLate(rss),
    openFiles: earlyAndLate(files),
    diskShareMax: rounded(diskShareMax),
  }
}

function earlyAndLate(samples: readonly number[]): [number, number] {
  const quarter = samples.length >> 2
  const [early, late] = [samples.slice(quarter, 2 * quarter), samples.slice(3 * quarter)]
  return [Math.round(median(early)), Math.round(median(late))]
}

function divisorOf(trace: Trace): number {
  // traces whose sizes are all 1 get bodies that the database holds
  if (trace.footprintBytes === trace.objects) return 1 / 3000
  const volume = trace.size.reduce((sum, size) => sum + size, 0)
  return volume > VOLUME_MAX ? 64 : 1
}

/** Items that are published about together are a dataset, and published with the first of them. */
function datasetsOf({ trace, windows, catalog }: RealWorld, bodyOf: (size: number) => number): Published[] {
  const sizes = new Map<number, number>()
  for (const [n, key] of trace.key.entries()) sizes.set(key, bodyOf(trace.size[n]!))
  if (catalog) for (const [key, size] of catalog.sizeBytes.entries()) sizes.set(key, bodyOf(size))
  const secondsOf = (key: number) => catalog?.publishedSeconds[key] ?? trace.seconds[0]!
  return groupsOf([...sizes.keys()], secondsOf, windows ? 'windows' : 'always').map((keys, n) => ({
    name: `trace/set-${String(n).padStart(3, '0')}`,
    publishedMs: EPOCH_MS + Math.floor(secondsOf(keys[0]!)) * 1000,
    items: keys.map(key => ({ key, sizeBytes: sizes.get(key)! })),
  }))
}

function groupsOf(
  keys: readonly number[],
  secondsOf: (key: number) => number,
  links: keyof typeof DATASETS_MAX,
): number[][] {
  const sorted = keys.toSorted((a, b) => secondsOf(a) - secondsOf(b))
  const count = Math.min(DATASETS_MAX[links], Math.ceil(keys.length / ITEMS_PER_DATASET))
  const each = Math.ceil(keys.length / count)
  return Array.from({ length: count }, (_, n) => sorted.slice(n * each, (n + 1) * each))
}

/** The catalog with the dates that its items have as datasets: for a comparison on the same world. */
export function publishedTogether(catalog: Catalog): Catalog {
  const publishedSeconds = catalog.publishedSeconds.slice()
  const secondsOf = (key: number) => catalog.publishedSeconds[key]!
  for (const keys of groupsOf([...publishedSeconds.keys()], secondsOf, 'windows')) {
    for (const key of keys) publishedSeconds[key] = Math.floor(secondsOf(keys[0]!))
  }
  return { ...catalog, publishedSeconds }
}

function isHit(port: number, path: string, agent: Agent): Promise<boolean> {
  return new Promise((resolve, reject) => {
    get({ host: '127.0.0.1', port, path, agent }, response => {
      const hit = response.statusCode === 200 && /;\s*hit\b/.test(String(response.headers['cache-status']))
      response.resume()
      response.on('end', () => resolve(hit))
      response.on('error', reject)
    }).on('error', reject)
  })
}
