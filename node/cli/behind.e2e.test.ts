import { writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { describe, expect, it } from 'vitest'
import type { Cid } from '../../manifests/cid.ts'
import { temporaryFolder, type TestServer } from '../../warmers/testing.ts'
import { openOrigin, signal } from '../../warmers/test-world.ts'
import { openStore } from '../store/open-store.ts'
import { bytesOf } from '../store/testing.ts'
import { tower } from './testing.ts'

const MIB = 1024 * 1024
const DATASET = 'education/book'

function release(revision: number) {
  const lines = Array.from({ length: 30_000 }, (_, n) =>
    n % 5003 === revision * 500 ? `${n},changed in ${revision}\n` : `${n},${(n * 7919) % 1000},same\n`,
  )
  return {
    'table.csv': lines.join(''),
    'film.mp4': Buffer.concat([bytesOf('film', 700_000), bytesOf(`scene ${revision}`, 20_000)]),
    ...Object.fromEntries(
      Array.from({ length: 60 }, (_, n) => [
        `notes/${n}.txt`,
        `${bytesOf(`note ${n}`, 900).toString('base64')}${n % 4 === revision % 4 ? ` ${revision}` : ''}\n`,
      ]),
    ),
  }
}

/** What a plan promises and a fill takes: by itself and by the server's sockets. */
async function planAndFill(env: Record<string, string>, server: TestServer) {
  const planned = await tower(['plan', '--json'], { env })
  expect(planned).toMatchObject({ code: 0 })
  const plan = JSON.parse(planned.stdout)
  const settled = () => server.wire.down + server.wire.up
  await expect.poll(settled).toBeGreaterThan(0)
  const before = settled()
  const filled = await tower(['fill', '--once', '--json'], { env })
  expect(filled).toMatchObject({ code: 0 })
  const done = JSON.parse(filled.stdout)
  await expect.poll(() => settled() - before).toBe(done.wireBytes)
  return { plan, done }
}

/** The film, and half of the notes. */
async function evictHalf(folder: string): Promise<void> {
  const limits = { hotBytesMax: 512 * MIB, warmBytesMax: 512 * MIB, reserveBytes: MIB }
  await using store = await openStore({ folder, ...limits })
  const sizes = new Map<Cid, number>()
  let before = 0
  for await (const { last, bytes } of store.verify({ heal: false, signal })) {
    if (last) sizes.set(last.cid, bytes - before)
    before = bytes
  }
  const smallestFirst = [...sizes].sort(([, a], [, b]) => a - b).map(([cid]) => cid)
  const half = [...smallestFirst.slice(0, 30), smallestFirst.at(-1)!]
  expect(await store.remove(half, 'test')).toBeGreaterThan(700_000)
}

describe('tower plan', () => {
  it('says within 1 % what a fill takes: two and three releases behind, and with half of the dataset gone', async () => {
    await using origin = await openOrigin()
    await using server = await origin.serve()
    await using folder = await temporaryFolder()
    const envOf = (name: string) => ({
      TOWER_DATA: join(folder.path, name),
      TOWER_ROOT: join(folder.path, 'root.json'),
      TOWER_UPSTREAM: server.url.href,
    })
    await writeFile(join(folder.path, 'root.json'), origin.root)
    for (const [revision, name] of [
      [1, 'three behind'],
      [2, 'two behind'],
      [3, 'half gone'],
      [4, ''],
    ] as const) {
      await origin.publish(DATASET, release(revision))
      if (name === '') continue
      expect(await tower(['fill', '--once'], { env: envOf(name) })).toMatchObject({ code: 0 })
    }
    await evictHalf(envOf('half gone').TOWER_DATA)
    for (const name of ['three behind', 'two behind', 'half gone']) {
      const { plan, done } = await planAndFill(envOf(name), server)
      expect(done, name).toMatchObject({ complete: true, fallbacks: 0 })
      const { delta, frame } = plan.datasets[0].byReason
      if (name === 'half gone') expect(frame.extents).toBeGreaterThan(25)
      else expect(delta.contentBytes, name).toBe(plan.contentBytes)
      expect(Math.abs(plan.wireBytes - done.wireBytes), name).toBeLessThanOrEqual(0.01 * done.wireBytes)
    }
  })
})
