/**
 * The two plots of a trace on a link that is always up: hit ratio over capacity, and over time at one
 * capacity; ours, the policies that we compare with, what an offline cache could reach, and on request
 * real NGINX and Varnish.
 */
import { mkdir, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import type { Trace } from '../trace.ts'
import { POLICIES, replay } from './always.ts'
import { offlineLimits } from './offline.ts'
import { svgOf, type Line } from './plot.ts'
import { runRival, type RivalName } from './real-rivals.ts'

const CAPACITIES = [0.01, 0.02, 0.05, 0.1, 0.25, 0.5]
const SHOWN = ['learned', 'lru', 's3-fifo', 'w-tinylfu', 'gdsf']
const RIVALS: readonly RivalName[] = ['nginx', 'varnish']
const SLICES = 40

interface Run {
  readonly objectHit: number
  readonly hits: readonly boolean[]
}

export async function writePlots(
  trace: Trace,
  capacity: number,
  folder: string,
  withRivals: boolean,
): Promise<void> {
  const over: Record<string, [number, number][]> = {}
  const inTime: Line[] = []
  const bytesOf = (share: number) => Math.floor(trace.footprintBytes * share)
  const note = (name: string, share: number, { objectHit, hits }: Run) => {
    ;(over[name] ??= []).push([share, objectHit])
    if (share === capacity) inTime.push({ name, points: slicesOf(hits) })
  }
  for (const share of [...new Set([...CAPACITIES, capacity])].sort((a, b) => a - b)) {
    for (const name of SHOWN) {
      const hits: boolean[] = []
      const policy = POLICIES[name]!({ capacityBytes: bytesOf(share), alpha: 1, seed: 1 })
      const { objectHit } = replay(trace, policy, hit => hits.push(hit))
      note(name === 'learned' ? 'Towerlight' : name, share, { objectHit, hits })
    }
    for (const name of withRivals ? RIVALS : []) {
      const hits: boolean[] = []
      const result = await runRival(name, trace, bytesOf(share), undefined, hit => hits.push(hit))
      if (result) note(name, share, { objectHit: result.objectHit, hits })
    }
    ;(over['offline'] ??= []).push([share, offlineLimits(trace, bytesOf(share)).feasible.objectHit])
  }
  await mkdir(folder, { recursive: true })
  const lines = Object.entries(over).map(([name, points]) => ({ name, points, isDashed: name === 'offline' }))
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
    lines: inTime,
    marks: [0.25, 0.5, 0.75, 1].map(part => [part, String(Math.round(part * trace.key.length))] as const),
  }
  await writeFile(join(folder, `hit-${trace.name}-time.svg`), svgOf(overTime))
}

function slicesOf(hits: readonly boolean[]): [number, number][] {
  const each = hits.length / SLICES
  return Array.from({ length: SLICES }, (_, n) => {
    const some = hits.slice(Math.floor(n * each), Math.floor((n + 1) * each))
    return [(n + 1) / SLICES, some.filter(Boolean).length / Math.max(1, some.length)]
  })
}
