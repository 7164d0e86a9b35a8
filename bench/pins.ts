/**
 * Question: is pinning items in Kubo through us at least as fast as `ipfs add -r` of the same folder?
 *
 * Workload: every file below `--items PATH`. Rival: `ipfs add -r --pin` into a second, equally new
 * Kubo, in the same run; order alternates with `--seed`. S3 is measured beside it, without a rival.
 * The index of the items is made beforehand, as a node has it from publishing; content is read and
 * verified while pinning.
 *
 *   node bench/pins.ts --items PATH [--seed N]
 */
import { openAsBlob } from 'node:fs'
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
import type { PinItem, PinTarget } from '../pinning/pin-target.ts'
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

const loopDelay = monitorEventLoopDelay({ resolution: 10 })
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
    rssMb: Math.round(process.resourceUsage().maxRSS / 1024),
    loopDelayMsMax: Math.round(loopDelay.max / 1e6),
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
    { url: minio.url, region: 'us-east-1', callMs: 30_000, concurrency: 8 },
    { signal },
  )
  return await timed(target, all)
}

async function timed(target: PinTarget, all: readonly PinItem[]): Promise<number> {
  loopDelay.enable()
  const startMs = performance.now()
  for (let from = 0; from < all.length; from += 256) {
    const outcomes = await target.pin(all.slice(from, from + 256), { signal })
    const failed = outcomes.find(({ error }) => error)
    if (failed) throw new Error(`${target.name} did not pin ${failed.root}`, { cause: failed.error })
  }
  const elapsed = (performance.now() - startMs) / 1000
  loopDelay.disable()
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
  const content = (await openAsBlob(path)).stream() as unknown as AsyncIterable<Uint8Array>
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
