/**
 * How well does a tower spend a connectivity window: what share of the bytes on the wire became
 * useful content, how many were fetched twice, and how soon is class P0 complete?
 *
 * Workload, from a fixed seed: a health dataset (P0, 2 MiB) and a video dataset (P3, 12 MiB), not
 * compressible, filled over real sockets through a proxy of our own (no `tc netem` needed):
 * `steady`, `far` (2 Mbit/s, 600 ms round trip), `cut` (all connections cut again and again), and
 * `windows` (the window closes every few seconds). `useful` is packed content over the bytes that
 * crossed; `twice` what crossed beyond that and headers. Rival in the same run: curl, fetching the
 * same files whole over the same link (`curlSeconds`; on `cut` it begins anew each time, at most
 * five times). With `--month` a month of nights is planned in virtual time with the node's own planner.
 *
 *   node bench/warm.ts [--links steady,far,cut,windows] [--month]
 */
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { readdir } from 'node:fs/promises'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { parseArgs } from 'node:util'
import { rawCidOf } from '../manifests/cid.ts'
import { sha256Of } from '../manifests/digest.ts'
import { noise } from '../manifests/testing/memory-item.ts'
import { type FillRequest, fillOnce } from '../warmers/fill-once.ts'
import { withinLimits } from '../warmers/fill-limits.ts'
import { type Batch, planFill, type Want } from '../warmers/plan-fill.ts'
import { STALL } from '../warmers/stall.ts'
import { openSlowProxy, type SlowProxy } from '../warmers/test-proxy.ts'
import { openNode, openOrigin } from '../warmers/test-world.ts'
import { windowsFrom } from '../warmers/windows.ts'
import { rounded } from './rounded.ts'

const MIB = 1024 * 1024
const LINKS = {
  steady: { delayMs: 20, bytesPerSecond: 4_000_000, cutMs: 0, windowMs: 0 },
  far: { delayMs: 300, bytesPerSecond: 250_000, cutMs: 0, windowMs: 0 },
  cut: { delayMs: 20, bytesPerSecond: 2_000_000, cutMs: 400, windowMs: 0 },
  windows: { delayMs: 50, bytesPerSecond: 1_000_000, cutMs: 0, windowMs: 2500 },
} as const
type LinkName = keyof typeof LINKS

const { values } = parseArgs({
  options: {
    links: { type: 'string', default: 'steady,far,cut,windows' },
    month: { type: 'boolean', default: false },
  },
})
for (const name of values.links.split(',')) {
  if (!(name in LINKS)) throw new Error(`--links: ${Object.keys(LINKS).join(', ')} are known`)
  console.log(JSON.stringify(await measure(name as LinkName)))
}
if (values.month) console.log(JSON.stringify(planMonth()))

async function measure(name: LinkName): Promise<Record<string, unknown>> {
  const { delayMs, bytesPerSecond, cutMs, windowMs } = LINKS[name]
  await using origin = await openOrigin()
  await using server = await origin.serve()
  await using proxy = await openSlowProxy(server.url, { delayMs, bytesPerSecond })
  await using node = await openNode(origin.root)
  const health = await origin.publish('health/guide', { 'guide.bin': noise(2 * MIB, 1) }, { priority: 0 })
  const video = await origin.publish('media/films', { 'film.bin': noise(12 * MIB, 2) }, { priority: 3 })
  const packed = health.packBytes + video.packBytes

  const upstream = node.upstream(proxy.url, { connectionsMax: 6, stall: STALL })
  using _cuts = cutEvery(cutMs, proxy)
  const since = performance.now()
  const isHere = async () => (await node.releases.missing('health/guide')).extents.length === 0
  let p0Seconds = 0
  let windows = 0
  for (let complete = false; !complete; windows++) {
    const closed = windowMs > 0 ? AbortSignal.timeout(windowMs) : new AbortController().signal
    const request: FillRequest = {
      ...node.request([upstream]),
      signal: closed,
      board: { attemptsMax: 100, pauseMs: 50, pauseMsMax: 200 },
    }
    try {
      for await (const event of fillOnce(request)) {
        if (p0Seconds === 0 && node.releases.releases().length > 1 && (await isHere()))
          p0Seconds = (performance.now() - since) / 1000
        if (event.type === 'done') complete = event.complete
      }
    } catch (error) {
      if (!closed.aborted && windows > 50) throw error
    }
  }
  const seconds = (performance.now() - since) / 1000
  const { bytesDown, bytesUp } = upstream.wire
  return {
    bench: 'warm',
    link: name,
    useful: rounded(packed / (bytesDown + bytesUp)),
    wasted: bytesDown + bytesUp - packed,
    twice: Math.max(
      0,
      node.records
        .filter(({ reason }) => reason === 'frame')
        .reduce((sum, record) => sum + record.bytesDown, 0) - Math.round(packed * 1.01),
    ),
    p0Seconds: rounded(p0Seconds),
    seconds: rounded(seconds),
    windows,
    linkUsed: rounded(packed / bytesPerSecond / seconds),
    curlSeconds: rounded(await curlSeconds(proxy, join(origin.folder, 'packs'))),
    node: process.version,
  }
}

function cutEvery(ms: number, proxy: SlowProxy): Disposable {
  const timer = ms > 0 ? setInterval(() => proxy.cutAll(), ms) : undefined
  return { [Symbol.dispose]: () => clearInterval(timer) }
}

/** The same packs, one after the other; 0 when five tries were not enough. */
async function curlSeconds(proxy: SlowProxy, packs: string): Promise<number> {
  const since = performance.now()
  for (const name of await readdir(packs)) {
    let code: unknown = 1
    for (let attempt = 0; code !== 0 && attempt < 5; attempt++) {
      const child = spawn('curl', ['-fsS', '-o', '/dev/null', new URL(`packs/${name}`, proxy.url).href], {
        stdio: 'ignore',
      })
      ;[code] = await once(child, 'exit')
      if (code !== 0) await sleep(50)
    }
    if (code !== 0) return 0
  }
  return (performance.now() - since) / 1000
}

/** 30 nights of four hours at 2 Mbit/s; each night a few items of every class come out anew. */
function planMonth(): Record<string, unknown> {
  const night = {
    name: 'night',
    start: '01:00',
    minutes: 240,
    timeZone: 'Africa/Nairobi',
    bytesMax: (2_000_000 / 8) * 240 * 60,
  }
  const windows = windowsFrom(
    [{ name: 'satellite', windows: [night], costPerGiB: 1, shared: false }],
    Date.UTC(2026, 0, 1),
    30,
  )
  const held = new Set<string>()
  const wanted = new Map<string, Want>()
  const classDoneNight: Record<string, number | null> = { P0: null, P1: null, P2: null, P3: null }
  let wire = 0
  let useful = 0
  const since = performance.now()
  for (const [index, window] of windows.entries()) {
    for (let item = 0; item < 2400; item++) addWant(wanted, index, item)
    const wants = [...wanted.values()].filter(({ cid }) => !held.has(cid))
    const plan = planFill({
      dataset: 'media/month',
      revision: index + 1,
      wants,
      sources: [sourceOf(wants)],
      holds: cid => held.has(cid),
      staged: () => [],
      cost: { downBytes: 260, upBytes: 70, connectDownBytes: 0, connectUpBytes: 0 },
      batchBytes: 2 * MIB,
      requestBytes: 256 * 1024,
    })
    const { taken } = withinLimits([...plan.batches].sort(byClass), { wireBytesMax: window.bytesMax })
    for (const batch of taken) {
      wire += batch.wire.down + batch.wire.up
      useful += batch.contentBytes
      for (const { wants: got } of batch.steps) for (const { cid } of got) held.add(cid)
    }
    for (const priority of [0, 1, 2, 3]) {
      const done = [...wanted.values()].every(want => want.priority !== priority || held.has(want.cid))
      if (done) classDoneNight[`P${priority}`] ??= index + 1
    }
  }
  const planMs = (performance.now() - since) / windows.length
  return {
    bench: 'warm',
    link: 'month',
    nights: windows.length,
    useful: rounded(useful / wire),
    wasted: wire - useful,
    twice: 0,
    classDoneNight,
    planMsPerNight: Math.round(planMs),
    items: wanted.size,
  }
}

/** 2,400 items of 8 MiB on the first night, 19 GB; then thirty of them anew each night. */
function addWant(wanted: Map<string, Want>, nightIndex: number, item: number): void {
  const version = item % 80 === nightIndex % 80 ? nightIndex : 0
  if (nightIndex > 0 && version === 0) return
  const cid = rawCidOf(sha256Of(`${item} ${version}`))
  wanted.set(`${item}`, {
    cid,
    sizeBytes: 8 * MIB - item,
    rule: 'fastcdc-v1',
    priority: (item % 4) as 0 | 1 | 2 | 3,
    step: 0,
    order: item,
    why: `item ${item}`,
  })
}

function sourceOf(wants: readonly Want[]) {
  let offset = 0
  const spans = new Map(
    wants.map(({ cid, sizeBytes }, index) => {
      const span = { offset, length: sizeBytes }
      offset += sizeBytes
      return [cid, { index, span, bases: [] }] as const
    }),
  )
  return {
    kind: 'frame' as const,
    path: 'packs/month.pack',
    fileBytes: offset,
    bundleOf: (cid: Want['cid']) => spans.get(cid),
    extentsOf: () => {
      throw new Error('nothing is fetched in virtual time')
    },
  }
}

function byClass(a: Batch, b: Batch): number {
  return a.priority - b.priority
}
