/**
 * 10,000 of 100,000 small items changed, through the real commands: the plan is there in two seconds,
 * the fill brings more than 5,000 items a minute, and no process needs more than 300 MB. Seconds are
 * of CPU where a busy machine would say nothing.
 */
import { mkdir, readFile, writeFile } from 'node:fs/promises'
import { availableParallelism } from 'node:os'
import { join } from 'node:path'
import { expect, it } from 'vitest'
import { openStaticOrigin } from '../static-origin.ts'
import { measured, watchRss } from './test-measured.ts'
import { openWorld } from './test-world.ts'

const ITEMS = 100_000
const CHANGED = 10_000
const DATASET = 'education/many'
const FOLDERS = 500
const RSS_MIB_MAX = 300
/** Ticks of /proc per second. */
const TICKS = 100

it('10,000 of 100,000 items changed: planned in 2 s, filled in 2 minutes', {
  timeout: 3_600_000,
}, async () => {
  await using world = await openWorld('education')
  const items = join(world.folder, 'items')
  await writeItems(items, 1)
  await world.publish(items, DATASET)
  await using origin = await openStaticOrigin(world.repository)
  const env = { TOWER_UPSTREAM: origin.url }
  const { cost: first } = await measured(world, ['fill', '--once'], env)
  await writeItems(items, 2)
  await world.publish(items, DATASET)

  const plans = []
  {
    await using node = await world.serve({ ...env, TOWER_LINKS: NEVER })
    using rss = watchRss(node.pid)
    // while the first one is made, the new catalog is indexed, too
    for (let round = 0; round < 3; round++) {
      const [sinceMs, sinceCpu] = [performance.now(), await cpuSecondsOf(node.pid)]
      await world.ask(['plan'], env)
      const seconds = (performance.now() - sinceMs) / 1000
      plans.push({ seconds, cpuSeconds: (await cpuSecondsOf(node.pid)) - sinceCpu })
    }
    plans.push({ rssMiB: rss.mostMiB() })
  }
  const { cost: update } = await measured(world, ['fill', '--once'], env)
  const figures = { cores: availableParallelism(), node: process.version, first, plans, update }
  console.log(JSON.stringify(figures))
  const least = Math.min(...plans.map(({ cpuSeconds = Infinity }) => cpuSeconds))
  expect(least, JSON.stringify(figures)).toBeLessThan(2)
  for (const { rssMiB } of [first, update, plans.at(-1)!])
    expect(rssMiB, JSON.stringify(figures)).toBeLessThan(RSS_MIB_MAX)
  expect(CHANGED / (update.seconds / 60)).toBeGreaterThan(5000)
  expect(ITEMS / (first.seconds / 60)).toBeGreaterThan(5000)
})

/** A link whose window is over for long: the node fills only when told to. */
const NEVER = JSON.stringify([
  { name: 'none', windows: [{ days: ['mon'], start: '00:00', minutes: 1, timeZone: 'UTC' }] },
])

async function writeItems(folder: string, revision: number): Promise<void> {
  for (let at = 0; at < FOLDERS; at++) await mkdir(join(folder, `folder ${at}`), { recursive: true })
  for (let n = 0; n < ITEMS; n++) {
    const isChanged = n % (ITEMS / CHANGED) === 3
    if (revision > 1 && !isChanged) continue
    const lines = Array.from(
      { length: 12 },
      (_, line) => `line ${line} ${(n * 2_654_435_761 + line * 40_503) % 1_000_003}`,
    )
    if (revision > 1) lines.push(`changed: ${(n * 7919) % 10_007}`)
    await writeFile(join(folder, `folder ${n % FOLDERS}`, `item ${n}.txt`), lines.join('\n'))
  }
}

async function cpuSecondsOf(pid: number): Promise<number> {
  const stat = await readFile(`/proc/${pid}/stat`, 'utf8')
  const [user, system] = stat
    .slice(stat.lastIndexOf(')') + 2)
    .split(' ')
    .slice(11, 13)
    .map(Number)
  return (user! + system!) / TICKS
}
