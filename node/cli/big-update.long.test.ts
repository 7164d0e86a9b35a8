/**
 * An item of 20 GB of which a hundred places change and to which 5 MiB are added in the middle: what
 * publishing and filling take in memory, and the update on the wire. `BIG_UPDATE_GIB` for another size.
 */
import { createCipheriv, createHash } from 'node:crypto'
import { mkdir, open, rm } from 'node:fs/promises'
import { availableParallelism } from 'node:os'
import { join } from 'node:path'
import { expect, it } from 'vitest'
import { openStaticOrigin } from '../static-origin.ts'
import { measured } from './test-measured.ts'
import { openWorld, type World } from './test-world.ts'

const MIB = 1024 ** 2
const ITEM_MIB = Number(process.env['BIG_UPDATE_GIB'] ?? 20_000 / 1024) * 1024
/** So much of it, at the end, is a hole: disks are small. */
const HOLE_SHARE = ITEM_MIB > 4096 ? 0.6 : 0
const EDITS = 100
const EDIT_BYTES = 1024
const INSERTED_BYTES = 5 * MIB
const RSS_MIB_MAX = 400
const DATASET = 'education/film'

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
  const planned = JSON.parse(plan.said) as { wireBytes: number; spent: { down: number; up: number } }
  const filledAgain = JSON.parse(update.said) as { wireBytes: number }
  const wireBytes = filledAgain.wireBytes + planned.spent.down + planned.spent.up
  const costs = {
    first: first.cost,
    filled: filled.cost,
    second: second.cost,
    plan: plan.cost,
    update: update.cost,
  }
  const machine = { cores: availableParallelism(), node: process.version }
  const figures = { itemBytes: ITEM_MIB * MIB, ...machine, wireBytes, ...costs }
  console.log(JSON.stringify(figures))
  expect(planned.wireBytes).toBe(filledAgain.wireBytes)
  expect(wireBytes).toBeLessThan(INSERTED_BYTES + 2 * MIB)
  for (const { rssMiB } of Object.values(costs)) expect(rssMiB).toBeLessThan(RSS_MIB_MAX)
  await serveAndCompare(world, sha256)
})

async function serveAndCompare(world: World, sha256: string): Promise<void> {
  await using node = await world.serve()
  const response = await node.get(`data/${DATASET}/film.mkv`)
  const hash = createHash('sha256')
  for await (const piece of response.body!) hash.update(piece)
  expect(hash.digest('hex')).toBe(sha256)
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
