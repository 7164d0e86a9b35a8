/**
 * A process for tests to kill: fills a store with what everybody can make again from a number, and
 * says on stdout what is stored, one number a line, once it is acknowledged.
 *
 *     node node/store/testing-writer.ts FOLDER FIRST
 *
 * Every fifth extent is pinned beforehand, until the next writer comes; the tiers are small, so the
 * others are demoted and evicted all the time; some are asked for again and promoted, and some are
 * damaged and healed.
 */
import { writeSync } from 'node:fs'
import { admit, extentFor, MIB, openTestStore, UNHURRIED, type TestExtent } from './testing.ts'

export const CAPACITIES = { hotBytesMax: 12 * MIB, warmBytesMax: 12 * MIB }
export const isPinned = (number: number) => number % 5 === 0

export function extentNumbered(number: number): TestExtent {
  const sizes = [700, 20_000, 45_000, 90_000, 5_000, 400_000]
  return extentFor(`killed ${number}`, sizes[number % sizes.length]! + (number % 97))
}

async function write(folder: string, first: number): Promise<never> {
  const store = await openTestStore(folder, CAPACITIES)
  store.onHeal({ name: 'made again', fetchExtent: async cid => known.get(cid)?.bytes })
  const before = Array.from({ length: 200 }, (_, back) => first - back - 1).filter(isPinned)
  await store.release(
    before.map(number => extentNumbered(number).cid),
    'pinned',
  )
  const known = new Map<string, TestExtent>()
  for (let number = first; ; ) {
    const group: Promise<void>[] = []
    for (let at = 0; at < 4; at++, number++) {
      const mine = number
      const extent = extentNumbered(mine)
      known.set(extent.cid, extent)
      group.push(
        (async () => {
          if (isPinned(mine)) await store.hold([extent.cid], 'pinned')
          await admit(store, extent)
          if (mine % 7 === 0) {
            store.quarantine(extent.cid, 'a test says so')
            const [chunk] = extent.extent.chunks
            await store.healChunk(extent.cid, 0, chunk!, UNHURRIED)
          }
          // by now in the warm tier, if it is here: twice brings it back up
          const older = extentNumbered(Math.max(first, mine - 60))
          for (let time = 0; time < 2; time++) store.touch(older.cid, older.bytes.length)
          // after the heal: what is set aside when the end comes is not here, as it should be
          writeSync(1, `${mine}\n`)
        })(),
      )
    }
    await Promise.all(group)
    if (known.size > 64) known.clear()
  }
}

const [folder, first] = process.argv.slice(2)
if (process.argv[1]?.endsWith('testing-writer.ts') && folder) await write(folder, Number(first))
