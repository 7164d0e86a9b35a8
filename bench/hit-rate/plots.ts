/**
 * The two plots of a trace on a link that is always up: hit ratio over capacity, and over time at one
 * capacity; ours, the policies that we compare with, what an offline cache could reach, and real NGINX
 * and Varnish. These take minutes to an hour for each capacity, so what was measured stands beside the
 * plots, and only what is missing there is measured, and only on request.
 */
import { mkdir, readFile, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import type { Trace } from '../trace.ts'
import { POLICIES, replay } from './always.ts'
import { offlineLimits } from './offline.ts'
import { svgOf, type Line } from './plot.ts'
import { runRival, type RivalName } from './real-rivals.ts'
import { rounded } from './tally.ts'

const CAPACITIES = [0.01, 0.02, 0.05, 0.1, 0.25, 0.5]
const SHOWN = ['learned', 'lru', 's3-fifo', 'w-tinylfu', 'gdsf']
const RIVALS: readonly RivalName[] = ['nginx', 'varnish']
/** Lines keep their order, and with it their colours, whatever was measured. */
const ORDER = ['Towerlight', ...SHOWN.slice(1), ...RIVALS, 'offline']
const SLICES = 40

interface Run {
  readonly objectHit: number
  /** The hit ratio of each part of the trace, in order. */
  readonly slices: readonly number[]
}

/** By rival and capacity. */
type Measured = { [name in RivalName]?: { [share: string]: Run } }

export async function writePlots(
  trace: Trace,
  capacity: number,
  folder: string,
  withRivals: boolean,
): Promise<void> {
  const shares = [...new Set([...CAPACITIES, capacity])].sort((a, b) => a - b)
  const bytesOf = (share: number) => Math.floor(trace.footprintBytes * share)
  await mkdir(folder, { recursive: true })
  const measuredPath = join(folder, `rivals-${trace.name}.json`)
  const rivals: Measured = await readFile(measuredPath, 'utf8').then(JSON.parse, () => ({}))
  for (const share of withRivals ? [capacity, ...shares] : []) {
    for (const name of RIVALS) {
      if (rivals[name]?.[share]) continue
      const hits: boolean[] = []
      const result = await runRival(name, trace, bytesOf(share), undefined, hit => hits.push(hit))
      if (!result) continue
      ;(rivals[name] ??= {})[share] = { objectHit: result.objectHit, slices: slicesOf(hits) }
      await writeFile(measuredPath, `${JSON.stringify(rivals)}\n`)
    }
  }
  const over: Record<string, [number, number][]> = {}
  const inTime: Line[] = []
  const note = (name: string, share: number, { objectHit, slices }: Run) => {
    ;(over[name] ??= []).push([share, objectHit])
    if (share !== capacity) return
    inTime.push({ name, points: slices.map((hit, n) => [(n + 1) / SLICES, hit] as const) })
  }
  for (const share of shares) {
    for (const name of SHOWN) {
      const hits: boolean[] = []
      const policy = POLICIES[name]!({ capacityBytes: bytesOf(share), alpha: 1, seed: 1 })
      const { objectHit } = replay(trace, policy, hit => hits.push(hit))
      note(name === 'learned' ? 'Towerlight' : name, share, { objectHit, slices: slicesOf(hits) })
    }
    for (const name of RIVALS) {
      const run = rivals[name]?.[share]
      if (run) note(name, share, run)
    }
    ;(over['offline'] ??= []).push([share, offlineLimits(trace, bytesOf(share)).feasible.objectHit])
  }
  const lines = inOrder(
    Object.entries(over).map(([name, points]) => ({ name, points, isDashed: name === 'offline' })),
  )
  const marks = over['offline']!.map(([share]) => [share, `${Math.round(share * 100)} %`] as const)
  const overCapacity = {
    title: `${trace.name}: hits of requests`,
    xTitle: 'capacity, share of the footprint',
    lines,
    marks,
    isLog: true,
  }
  await writeFile(join(folder, `hit-${trace.name}-capacity.svg`), svgOf(overCapacity))
  const overTime = {
    title: `${trace.name} at ${Math.round(capacity * 100)} %: hits of requests`,
    xTitle: 'requests so far',
    lines: inOrder(inTime),
    marks: [0.25, 0.5, 0.75, 1].map(part => [part, String(Math.round(part * trace.key.length))] as const),
  }
  await writeFile(join(folder, `hit-${trace.name}-time.svg`), svgOf(overTime))
}

function inOrder(lines: readonly Line[]): readonly Line[] {
  return lines.toSorted((a, b) => ORDER.indexOf(a.name) - ORDER.indexOf(b.name))
}

function slicesOf(hits: readonly boolean[]): number[] {
  const each = hits.length / SLICES
  return Array.from({ length: SLICES }, (_, n) => {
    const some = hits.slice(Math.floor(n * each), Math.floor((n + 1) * each))
    return rounded(some.filter(Boolean).length / Math.max(1, some.length))
  })
}
