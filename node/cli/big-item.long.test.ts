/** An item of 3 GiB through the real commands: no process may need memory in proportion to it. */
import { createCipheriv, createHash } from 'node:crypto'
import { mkdir, open } from 'node:fs/promises'
import { availableParallelism } from 'node:os'
import { join } from 'node:path'
import { expect, it } from 'vitest'
import { openStaticOrigin } from '../static-origin.ts'
import { type Cost, measured, secondsSince, watchRss } from './test-measured.ts'
import { openWorld, type World } from './test-world.ts'

const GIB = 1024 ** 3
const MIB = 1024 ** 2
const ITEM_BYTES = 3 * GIB
/** Of these the item ends in text, which compresses; the rest does not. */
const TEXT_BYTES = 32 * MIB
/** 200 MB. */
const RSS_MIB_MAX = 190
const DATASET = 'education/film'

it('an item of 3 GiB is published, filled and served in 200 MB', { timeout: 3_600_000 }, async () => {
  await using world = await openWorld('education')
  await mkdir(join(world.folder, 'items'))
  const sha256 = await writeItem(join(world.folder, 'items', 'film.mkv'))
  const place = ['--keys', world.keys, '--to', world.repository]
  const { cost: publish } = await measured(world, [
    'publish',
    join(world.folder, 'items'),
    '--dataset',
    DATASET,
    ...place,
  ])
  await using origin = await openStaticOrigin(world.repository)
  const { cost: fill } = await measured(world, ['fill', '--once'], { TOWER_UPSTREAM: origin.url })
  const serve = await serveAndCompare(world, sha256)
  const figures = { cores: availableParallelism(), node: process.version, publish, fill, serve }
  console.log(JSON.stringify(figures))
  for (const { rssMiB } of [publish, fill, serve])
    expect(rssMiB, JSON.stringify(figures)).toBeLessThan(RSS_MIB_MAX)
})

async function serveAndCompare(world: World, sha256: string): Promise<Cost> {
  await using node = await world.serve()
  using rss = watchRss(node.pid)
  const sinceMs = performance.now()
  const response = await node.get(`data/${DATASET}/film.mkv`)
  expect(response.headers.get('content-length')).toBe(String(ITEM_BYTES))
  const hash = createHash('sha256')
  for await (const piece of response.body!) hash.update(piece)
  expect(hash.digest('hex')).toBe(sha256)
  const seconds = secondsSince(sinceMs)
  const end = await node.get(`data/${DATASET}/film.mkv`, { headers: { range: 'bytes=-10' } })
  expect([end.status, (await end.arrayBuffer()).byteLength]).toEqual([206, 10])
  return { seconds, rssMiB: rss.mostMiB() }
}

/** The same bytes every time. @returns their SHA-256. */
async function writeItem(path: string): Promise<string> {
  await using file = await open(path, 'wx')
  const hash = createHash('sha256')
  const cipher = createCipheriv('aes-256-ctr', Buffer.alloc(32, 7), Buffer.alloc(16))
  for (let from = 0; from < ITEM_BYTES; from += MIB) {
    const isText = from >= ITEM_BYTES - TEXT_BYTES
    const noise = cipher.update(Buffer.alloc(isText ? MIB / 2 : MIB))
    const bytes = isText ? Buffer.from(noise.toString('hex')) : noise
    hash.update(bytes)
    await file.write(bytes)
  }
  return hash.digest('hex')
}
