/**
 * A real tower under mixed load for half an hour (`SOAK_MINUTES`): readers who ask, seek and leave, new
 * releases each minute, more content than the tiers hold, fills, scrubbing. Memory has to be flat
 * after warm-up, no handle may leak, and the disk has to stay within its marks.
 */
import { hash } from 'node:crypto'
import { mkdir, readdir, readFile, readlink, stat, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { expect, it } from 'vitest'
import { bytesOf } from '../store/testing.ts'
import { openWorld, type Serving } from './test-world.ts'

const MINUTES = Number(process.env['SOAK_MINUTES'] ?? 30)
const MIB = 1024 * 1024
const ITEMS = 160
const CAPACITY = { hot: 6 * MIB, warm: 14 * MIB }
/** What passes through, databases apart. */
const BESIDE_BYTES = 16 * MIB
const CLIENTS = 4
const SAMPLE_MS = 3000

interface Sample {
  readonly rssMb: number
  /** Without those of extents, of which up to 256 are held open on purpose. */
  readonly handles: number
  /** Of extents that are gone: their bytes stay on the disk as long. */
  readonly deleted: number
  readonly contentBytes: number
}

it(`${MINUTES} minutes of mixed load: memory flat, handles closed, disk within its marks`, {
  timeout: (MINUTES + 5) * 60_000,
}, async () => {
  await using world = await openWorld('media')
  const files = join(world.folder, 'files')
  await mkdir(files)
  const pathOf = (n: number) => `item-${String(n).padStart(3, '0')}.bin`
  const write = (n: number, version: number) =>
    writeFile(join(files, pathOf(n)), bytesOf(`soak ${n} ${version}`, 20_000 + ((n * 7919) % 500_000)))
  for (let n = 0; n < ITEMS; n++) await write(n, 0)
  await world.publish(files, 'media/soak')
  await using node = await world.serve({
    TOWER_HOT_BYTES: String(CAPACITY.hot),
    TOWER_WARM_BYTES: String(CAPACITY.warm),
    TOWER_RESERVE_BYTES: String(MIB),
    TOWER_REFRESH_SECONDS: '5',
    TOWER_SCRUB_DAYS: '1',
  })
  const { pid } = (await world.ask(['status'])) as { pid: number }
  const until = performance.now() + MINUTES * 60_000
  const isOver = () => performance.now() > until
  const answers: Record<string, number> = {}
  const samples: Sample[] = []

  const publishing = (async () => {
    for (let version = 1; !isOver(); version++) {
      for (let n = version % 7; n < ITEMS; n += 23) await write(n, version)
      await world.publish(files, 'media/soak')
      await sleep(Math.min(60_000, Math.max(0, until - performance.now())))
    }
  })()
  const sampling = (async () => {
    while (!isOver()) {
      samples.push(await sampleOf(pid, world.data))
      await sleep(SAMPLE_MS)
    }
  })()
  const reading = Array.from({ length: CLIENTS }, async () => {
    while (!isOver()) {
      const said = await readOne(node, pathOf(Math.floor(ITEMS * Math.random() ** 3)))
      answers[said] = (answers[said] ?? 0) + 1
    }
  })
  await Promise.all([publishing, sampling, ...reading])

  const quarter = samples.length >> 2
  const [early, late] = [samples.slice(quarter, 2 * quarter), samples.slice(3 * quarter)]
  const medianOf = (some: readonly Sample[], what: keyof Sample) =>
    some.map(sample => sample[what]).toSorted((a, b) => a - b)[some.length >> 1]!
  const figures = {
    answers,
    rssMb: [medianOf(early, 'rssMb'), medianOf(late, 'rssMb')],
    handles: [medianOf(early, 'handles'), medianOf(late, 'handles')],
    deleted: [medianOf(early, 'deleted'), medianOf(late, 'deleted')],
    contentMbMax: Math.max(...samples.map(({ contentBytes }) => contentBytes)) / 1e6,
  }
  console.log(JSON.stringify(figures))
  expect(answers['wrong'] ?? 0).toBe(0)
  expect(answers['200'] ?? 0).toBeGreaterThan(MINUTES * 100)
  expect(figures.rssMb[1]).toBeLessThanOrEqual(figures.rssMb[0]! * 1.05)
  expect(figures.handles[1]).toBeLessThanOrEqual(figures.handles[0]! + 8)
  expect(figures.deleted[1]).toBeLessThanOrEqual(CLIENTS)
  expect(figures.contentMbMax * 1e6).toBeLessThanOrEqual(CAPACITY.hot + CAPACITY.warm + BESIDE_BYTES)
})

/** Whole, a part of it, or left in the middle. @returns the status, or what went wrong. */
async function readOne(node: Serving, path: string): Promise<string> {
  const way = Math.random()
  const leaving = new AbortController()
  const init = way < 0.2 ? { headers: { range: 'bytes=1000-9999' } } : { signal: leaving.signal }
  const response = await node.get(`/data/media/soak/${path}`, init)
  if (way > 0.9) {
    leaving.abort()
    return 'left'
  }
  const body = Buffer.from(await response.arrayBuffer())
  if (response.status === 503) await sleep(50)
  if (response.status !== 200) return String(response.status)
  const digest = /sha-256=:(.+?):/.exec(response.headers.get('repr-digest') ?? '')?.[1]
  return hash('sha256', body, 'base64') === digest ? '200' : 'wrong'
}

async function sampleOf(pid: number, data: string): Promise<Sample> {
  const status = await readFile(`/proc/${pid}/status`, 'utf8')
  const numbers = await readdir(`/proc/${pid}/fd`)
  const opened = await Promise.all(numbers.map(fd => readlink(`/proc/${pid}/fd/${fd}`).catch(() => '')))
  const extents = opened.filter(path => path.includes('/extents-v1/'))
  let contentBytes = 0
  for (const tier of ['hot', 'warm']) {
    for (const entry of await readdir(join(data, tier), { recursive: true, withFileTypes: true })) {
      if (!entry.isFile()) continue
      contentBytes += await stat(join(entry.parentPath, entry.name)).then(
        ({ size }) => size,
        () => 0,
      )
    }
  }
  return {
    rssMb: Number(/VmRSS:\s+(\d+)/.exec(status)![1]) / 1000,
    handles: opened.length - extents.length,
    deleted: extents.filter(path => path.endsWith('(deleted)')).length,
    contentBytes,
  }
}
