/**
 * An item of 20 GB of which a hundred places change and to which 5 MiB are added in the middle: what
 * publishing and filling take in memory, and the update on the wire. `BIG_UPDATE_GIB` for another size.
 */
import { createCipheriv, createHash } from 'node:crypto'
import { mkdir, open, readFile, rm } from 'node:fs/promises'
import { availableParallelism } from 'node:os'
import { join } from 'node:path'
import { text } from 'node:stream/consumers'
import { expect, it } from 'vitest'
import { openStaticOrigin } from '../static-origin.ts'
import { openWorld, type World } from './test-world.ts'
import { startTower } from './testing.ts'

const MIB = 1024 ** 2
const ITEM_MIB = Number(process.env['BIG_UPDATE_GIB'] ?? 20_000 / 1024) * 1024
/** So much of it, at the end, is a hole: disks are small. */
const HOLE_SHARE = ITEM_MIB > 4096 ? 0.6 : 0
const EDITS = 100
const EDIT_BYTES = 1024
const INSERTED_BYTES = 5 * MIB
const RSS_MIB_MAX = 400
const DATASET = 'education/film'
const LOOK_MS = 100

it('an item of 20 GB is updated by what changed, in 400 MB', { timeout: 4 * 3_600_000 }, async () => {
  await using world = await openWorld('education')
  const items = join(world.folder, 'items')
  await mkdir(items)
  const publish = () =>
    measured(world, ['publish', items, '--dataset', DATASET, '--keys', world.keys, '--to', world.repository])
  await writeItem(join(items, 'film.mkv'), false)
  const first = await publish()
  await using origin = await openStaticOrigin(world.repository)
  const env = { TOWER_UPSTREAM: origin.url }
  const filled = await measured(world, ['fill', '--once'], env)

  await rm(join(items, 'film.mkv'))
  const sha256 = await writeItem(join(items, 'film.mkv'), true)
  const second = await publish()
  await rm(join(items, 'film.mkv'))
  const plan = await measured(world, ['plan'], env)
  const update = await measured(world, ['fill', '--once'], env)
  const spent = plan.said['spent'] as { down: number; up: number }
  const wireBytes = (update.said['wireBytes'] as number) + spent.down + spent.up
  const steps = { first, filled, second, plan, update }
  const figures = {
    ...{ itemBytes: ITEM_MIB * MIB, cores: availableParallelism(), node: process.version, wireBytes },
    ...Object.fromEntries(
      Object.entries(steps).map(([name, { seconds, rssMiB }]) => [name, { seconds, rssMiB }]),
    ),
  }
  console.log(JSON.stringify(figures))
  expect(plan.said['wireBytes']).toBe(update.said['wireBytes'])
  expect(wireBytes).toBeLessThan(INSERTED_BYTES + 2 * MIB)
  for (const { rssMiB } of Object.values(steps)) expect(rssMiB).toBeLessThan(RSS_MIB_MAX)
  await serveAndCompare(world, sha256)
})

interface Measured {
  readonly seconds: number
  /** The most that any one of the command's processes held. */
  readonly rssMiB: number
  readonly said: Readonly<Record<string, unknown>>
}

async function measured(
  world: World,
  args: readonly string[],
  env: Record<string, string> = {},
): Promise<Measured> {
  const sinceMs = performance.now()
  const { child, exit } = startTower([...args, '--json'], {
    cwd: world.folder,
    env: { ...world.env, ...env },
  })
  const texts = Promise.all([text(child.stdout), text(child.stderr)])
  using rss = watchRss(child.pid!)
  const code = await exit
  const [stdout, stderr] = await texts
  expect(code, stdout + stderr).toBe(0)
  return { seconds: secondsSince(sinceMs), rssMiB: rss.mostMiB(), said: JSON.parse(stdout) }
}

async function serveAndCompare(world: World, sha256: string): Promise<void> {
  await using node = await world.serve()
  const response = await node.get(`data/${DATASET}/film.mkv`)
  const hash = createHash('sha256')
  for await (const piece of response.body!) hash.update(piece)
  expect(hash.digest('hex')).toBe(sha256)
}

const secondsSince = (sinceMs: number) => Math.round((performance.now() - sinceMs) / 100) / 10

/** Peaks (VmHWM) of a process and its children, looked at until disposed. */
function watchRss(pid: number): Disposable & { mostMiB: () => number } {
  let mostKib = 0
  const look = async (of: number): Promise<void> => {
    const status = await readFile(`/proc/${of}/status`, 'utf8').catch(() => '')
    mostKib = Math.max(mostKib, Number(/^VmHWM:\s+(\d+) kB$/m.exec(status)?.[1] ?? 0))
    const children = await readFile(`/proc/${of}/task/${of}/children`, 'utf8').catch(() => '')
    await Promise.all(children.split(' ').filter(Boolean).map(Number).map(look))
  }
  const timer = setInterval(() => void look(pid), LOOK_MS)
  return { mostMiB: () => Math.round(mostKib / 1024), [Symbol.dispose]: () => clearInterval(timer) }
}

/** The same bytes every time, as they were or as they became. @returns their SHA-256. */
async function writeItem(path: string, changed: boolean): Promise<string> {
  await using file = await open(path, 'wx')
  const hash = createHash('sha256')
  const zeros = Buffer.alloc(MIB)
  const cipher = createCipheriv('aes-128-ctr', Buffer.alloc(16, 7), Buffer.alloc(16))
  const others = createCipheriv('aes-128-ctr', Buffer.alloc(16, 9), Buffer.alloc(16))
  const noiseMib = Math.floor(ITEM_MIB * (1 - HOLE_SHARE))
  let at = 0
  const put = async (bytes: Buffer, isHole = false) => {
    hash.update(bytes)
    if (!isHole) await file.write(bytes, 0, bytes.length, at)
    at += bytes.length
  }
  for (let mib = 0; mib < ITEM_MIB; mib++) {
    if (mib >= noiseMib) {
      await put(zeros, true)
      continue
    }
    const bytes = cipher.update(zeros)
    const isEdited = Math.floor((mib * EDITS) / noiseMib) !== Math.floor(((mib + 1) * EDITS) / noiseMib)
    if (changed && isEdited) others.update(Buffer.alloc(EDIT_BYTES)).copy(bytes, (mib * 7919) % (MIB - 2048))
    await put(bytes)
    if (changed && mib === Math.floor(noiseMib / 3)) await put(others.update(Buffer.alloc(INSERTED_BYTES)))
  }
  await file.truncate(at)
  return hash.digest('hex')
}
