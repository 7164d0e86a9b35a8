/** Five hundred damages to a store of a gigabyte, healed from S3, Kubo and another node. */
import { expect, it, vi } from 'vitest'
import { extentsUnder } from '../dag-walk.ts'
import type { RunningNode } from '../main.ts'
import { bytesOf } from '../store/testing.ts'
import { DAMAGES, damageAndRead } from './test-pin-damage.ts'
import type { ExplainReport } from './owner-methods.ts'
import {
  DATASET,
  fill,
  itemsToKeep,
  openPinWorld,
  readAll,
  signal,
  untilPinned,
  upstreamOf,
} from './test-pins.ts'

/** What was healed is in the metrics, and in what `tower explain` says of the item. */
async function mustTell(node: RunningNode, files: ReadonlyMap<string, Buffer>): Promise<void> {
  const { heals } = node.owner.store.usage()
  const metrics = await (await fetch(new URL('metrics', node.url))).text()
  for (const { cause, source } of heals)
    expect(metrics).toContain(`tower_heals{cause="${cause}",source="${source}"} `)
  expect(heals.length).toBeGreaterThan(0)
  const { subject, why } = node.owner.store.events(1000).find(({ what }) => what === 'healed')!
  const { library, store } = node.owner
  for (const path of files.keys()) {
    const { root, sizeBytes } = library.open(DATASET, path)
    if (!extentsUnder(store, root, sizeBytes).extents.some(({ cid }) => cid === subject)) continue
    const item = `${DATASET}/${path}`
    const [report] = (await Array.fromAsync(node.control('explain', { item }, { signal }))) as ExplainReport[]
    expect(report!.events.map(event => `${event.what} ${event.why}`)).toContain(`healed ${why}`)
    return
  }
}

const ROUNDS = 500
const LARGE = 110
const LARGE_BYTES = 9_500_000
const HEAL_MS = 4000
const LATER = { timeout: 15_000, interval: 200 }

it('500 random damages cost not one wrong byte', async () => {
  const files = itemsToKeep()
  for (let n = 0; n < LARGE; n++) files.set(`films/${n}.mp4`, bytesOf(`film ${n}`, LARGE_BYTES))
  await using world = await openPinWorld(files)
  const s3 = { s3Url: world.minio.url }
  const kubo = { ipfsApi: [world.kubo.url] }
  const pins = new Set(files.values().map(bytes => bytes.toString('latin1'))).size + 1
  await using whole = await world.start(await world.folder(), { ...s3, ...kubo, ...upstreamOf(world) })
  await fill(whole)
  whole.owner.pins!.wake()
  await untilPinned(whole, pins, 20 * 60_000)

  const folder = await world.folder()
  {
    await using filling = await world.start(folder, upstreamOf(world))
    await fill(filling)
  }
  const healed = new Map<string, number>()
  let slowest = 0
  const late: string[] = []
  // each source is asked first in a third of the rounds
  for (const [at, sources] of [s3, kubo, { peers: [whole.url] }].entries()) {
    await using node = await world.start(folder, { memoryBytesMax: 0, ...sources })
    for (let round = at; round < ROUNDS; round += 3) {
      const damage = DAMAGES[Math.floor(round / 3) % DAMAGES.length]!
      const { wrong, refused, slowestMs } = await damageAndRead(node, files, damage, `long ${round}`)
      expect({ round, damage, wrong }).toEqual({ round, damage, wrong: [] })
      if (refused.length > 0) late.push(...refused)
      else expect(slowestMs).toBeLessThan(HEAL_MS)
      // what was not healed in time was refused, and is right a little later
      const again = new Map(
        refused.map(text => text.replace(/: \d+$/, '')).map(path => [path, files.get(path)!]),
      )
      await vi.waitFor(
        async () => expect(await readAll(node, again)).toEqual({ wrong: [], refused: [] }),
        LATER,
      )
      slowest = Math.max(slowest, slowestMs)
    }
    for (const [source, heals] of Object.entries(node.owner.store.usage().healedBy)) healed.set(source, heals)
    await mustTell(node, files)
    console.log(JSON.stringify({ sources, heals: node.owner.store.usage().heals, late, slowest }))
  }
  expect([...healed.keys()].filter(name => name !== 'here').length).toBeGreaterThanOrEqual(3)
  expect(late.length).toBeLessThanOrEqual(ROUNDS / 100)
})
