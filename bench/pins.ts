/**
 * Question: is pinning items in Kubo through us at least as fast as `ipfs add -r` of the same folder?
 *
 * Workload: every file below `--items PATH`. Rival: `ipfs add -r --pin` into a second, equally new
 * Kubo, in the same run; order alternates with `--seed`. S3 is measured beside it, without a rival.
 * The index of the items is made beforehand, as a node has it from publishing; content is read and
 * verified while pinning. `loopDelayMsMax` is the longest wait of the event loop, `loopBusyMsMax` the
 * most CPU time that it spent without a turn: on a busy machine only the latter is ours.
 *
 *   node bench/pins.ts --items PATH [--seed N]
 */
import { createReadStream } from 'node:fs'
import { glob, open, stat } from 'node:fs/promises'
import { join } from 'node:path'
import { monitorEventLoopDelay, performance } from 'node:perf_hooks'
import { parseArgs } from 'node:util'
import type { Cid } from '../manifests/cid.ts'
import { EdgeError } from '../manifests/errors.ts'
import type { DagNode, Extent } from '../manifests/extent.ts'
import { chunksOf } from '../manifests/fastcdc.ts'
import { type CutExtent, ExtentCutter, itemDag } from '../manifests/unixfs.ts'
import { sha256Of } from '../manifests/digest.ts'
import { openKuboTarget } from '../pinning/kubo-target.ts'
import { openPinRecord } from '../pinning/pin-record.ts'
import type { PinItem, PinTarget } from '../pinning/pin-target.ts'
import { type PinSource, reconcile } from '../pinning/reconciler.ts'
import { openS3Target } from '../pinning/s3-target.ts'
import { startKubo, startMinio } from '../pinning/testing/servers.ts'

const { values } = parseArgs({
  options: { items: { type: 'string' }, seed: { type: 'string', default: '1' } },
})
if (!values.items) throw new Error('usage: node bench/pins.ts --items PATH [--seed N]')
const signal = new AbortController().signal

const items: PinItem[] = []
for await (const path of glob('**', { cwd: values.items })) {
  const file = join(values.items, path)
  if ((await stat(file)).isFile()) items.push(await fileItem(file))
}
const distinct = [...new Map(items.map(item => [item.root, item])).values()]

let loopDelayMs = 0
let loopBusyMs = 0
let spentUs = 0
/** Ours, not the servers'. */
const cpuS = { kubo: 0, s3: 0 }
const inOurOrder = Number(values.seed) % 2 === 1
let kuboAddSeconds = inOurOrder ? 0 : await rivalSeconds(values.items)
const seconds = await pinSeconds(distinct)
if (inOurOrder) kuboAddSeconds = await rivalSeconds(values.items)
const s3Seconds = await s3PinSeconds(distinct)

console.log(
  JSON.stringify({
    bench: 'pins',
    items: distinct.length,
    bytes: distinct.reduce((sum, { sizeBytes }) => sum + sizeBytes, 0),
    seconds,
    kuboAddSeconds,
    ratio: seconds / kuboAddSeconds,
    s3Seconds,
    cpuS,
    rssMb: Math.round(process.resourceUsage().maxRSS / 1024),
    loopDelayMsMax: Math.round(loopDelayMs),
    loopBusyMsMax: Math.round(loopBusyMs),
    node: process.version,
  }),
)

async function pinSeconds(all: readonly PinItem[]): Promise<number> {
  await using kubo = await startKubo()
  const target = await openKuboTarget({ apiUrl: kubo.url, callMs: 10_000, importMs: 600_000 })
  return await timed(target, all)
}

async function s3PinSeconds(all: readonly PinItem[]): Promise<number> {
  await using minio = await startMinio(6)
  const target = await openS3Target(
    { url: minio.url, region: 'us-east-1', callMs: 30_000, concurrency: 16 },
    { signal },
  )
  return await timed(target, all)
}

function noteBusy(): void {
  const { user, system } = process.threadCpuUsage()
  if (spentUs > 0) loopBusyMs = Math.max(loopBusyMs, (user + system - spentUs) / 1000)
  spentUs = user + system
}

/** What a node does in one round, its record included. */
async function timed(target: PinTarget, all: readonly PinItem[]): Promise<number> {
  const loopDelay = monitorEventLoopDelay({ resolution: 5 })
  using record = openPinRecord(':memory:')
  const byRoot = new Map(all.map(item => [item.root, item]))
  const source: PinSource = {
    wanted: async () => ({
      pins: all.map(({ root, sizeBytes }) => ({ root, sizeBytes, why: 'bench' })),
      complete: true,
    }),
    item: ({ root }) => byRoot.get(root),
  }
  spentUs = 0
  loopDelay.enable()
  const busy = setInterval(noteBusy, 2)
  const before = process.cpuUsage()
  const startMs = performance.now()
  const { failed } = await reconcile({ target, source, record, nowMs: Date.now }, { signal })
  const elapsed = (performance.now() - startMs) / 1000
  loopDelay.disable()
  clearInterval(busy)
  const { user, system } = process.cpuUsage(before)
  cpuS[target.name === 's3' ? 's3' : 'kubo'] = (user + system) / 1e6
  loopDelayMs = Math.max(loopDelayMs, loopDelay.max / 1e6)
  if (failed > 0) throw new Error(`${target.name} did not pin ${failed} items`)
  const kept = await Array.fromAsync(target.list({ signal }))
  if (kept.length !== all.length) throw new Error(`${target.name} keeps ${kept.length} of ${all.length}`)
  return elapsed
}

async function rivalSeconds(folder: string): Promise<number> {
  await using kubo = await startKubo()
  const startMs = performance.now()
  await kubo.run('add', '--recursive', '--quieter', '--cid-version=1', '--raw-leaves', folder)
  return (performance.now() - startMs) / 1000
}

async function fileItem(path: string): Promise<PinItem> {
  const cutter = new ExtentCutter()
  const cuts: CutExtent[] = []
  const content = createReadStream(path, { highWaterMark: 1024 * 1024 }) as AsyncIterable<Uint8Array>
  for await (const { digest, sizeBytes } of chunksOf(content)) {
    const ended = cutter.add({ digest, sizeBytes })
    if (ended) cuts.push(ended)
  }
  const last = cutter.end()
  if (last) cuts.push(last)
  const extents = cuts.map(({ extent }) => extent)
  const dag = itemDag(extents)
  const placed = placeOf(extents)
  return {
    root: dag.root,
    sizeBytes: dag.sizeBytes,
    extents,
    async *nodes(): AsyncGenerator<DagNode> {
      for (const { node } of cuts) if (node) yield node
      yield* dag.nodes
    },
    async readExtent(cid) {
      const place = placed.get(cid)
      if (!place) throw new EdgeError('CHUNK_ABSENT', `extent ${cid}`)
      const bytes = Buffer.allocUnsafe(place.extent.sizeBytes)
      await using file = await open(path)
      await file.read(bytes, 0, bytes.length, place.offset)
      verify(place.extent, bytes)
      return bytes
    },
  }
}

function placeOf(extents: readonly Extent[]): ReadonlyMap<Cid, { extent: Extent; offset: number }> {
  let offset = 0
  const placed = new Map<Cid, { extent: Extent; offset: number }>()
  for (const extent of extents) {
    placed.set(extent.cid, { extent, offset })
    offset += extent.sizeBytes
  }
  return placed
}

function verify(extent: Extent, bytes: Uint8Array): void {
  let from = 0
  for (const { digest, sizeBytes } of extent.chunks) {
    if (sha256Of(bytes.subarray(from, from + sizeBytes)) !== digest) {
      throw new EdgeError('CHUNK_CORRUPT', `extent ${extent.cid} at ${from}`)
    }
    from += sizeBytes
  }
}
