/**
 * What will arrive in which window: a plan laid out over the contact windows to come. Pure.
 *
 * At each moment the cheapest open link is used, at the rate it is known to give. Batches flow into
 * windows in their order; one that does not fit goes on in the next window, since what arrived is
 * kept. Each window begins with asking what is new.
 */
import type { LinkSettings } from './link-settings.ts'
import type { Batch } from './plan-fill.ts'
import { windowsFrom, type ContactWindow } from './windows.ts'

export interface ScheduleInput {
  /** In the order in which they will run. */
  readonly batches: readonly Batch[]
  readonly links: readonly LinkSettings[]
  /** Bytes per second, as measured of late or set; never 0. */
  rateOf(link: string): number
  /** What may still be spent in a window that is open already; down and up. */
  bytesLeftIn(window: ContactWindow): number
  /** Asking what is new costs so much at a window's beginning. */
  readonly refreshBytes: number
  readonly nowMs: number
  /** How far to look. */
  readonly untilMs: number
}

export interface ScheduledWindow {
  readonly link: string
  readonly window: string
  /** ISO 8601; of its use for this plan. */
  readonly start: string
  readonly end: string
  readonly wireBytes: number
  readonly contentBytes: number
  readonly datasets: readonly {
    readonly dataset: string
    readonly wireBytes: number
    readonly contentBytes: number
  }[]
}

export interface Schedule {
  readonly windows: readonly ScheduledWindow[]
  /** Does not fit into the windows until `untilMs`. */
  readonly later: { readonly wireBytes: number; readonly contentBytes: number }
  /** When the last of it is here; ISO 8601, null when not within sight. */
  readonly complete: string | null
  /** When the item will be here; undefined when it is not in the plan, Infinity when not within sight. */
  etaMs(dataset: string, path: string): number | undefined
}

interface Stretch {
  readonly window: ContactWindow
  readonly fromMs: number
  readonly toMs: number
}

export function scheduleFill(input: ScheduleInput): Schedule {
  const { batches, rateOf, refreshBytes } = input
  const windows: ScheduledWindow[] = []
  const eta = new Map<string, number>()
  const left = { at: 0, bytes: wireOf(batches[0]) }
  let lastMs = input.nowMs
  for (const stretch of stretchesOf(input)) {
    if (left.at >= batches.length) break
    const rate = rateOf(stretch.window.link)
    let nowMs = stretch.fromMs + (refreshBytes / rate) * 1000
    let capBytes =
      Math.min(input.bytesLeftIn(stretch.window), ((stretch.toMs - stretch.fromMs) / 1000) * rate) -
      refreshBytes
    const perDataset = new Map<string, { wireBytes: number; contentBytes: number }>()
    while (left.at < batches.length && capBytes >= 1) {
      const batch = batches[left.at]!
      const bytes = Math.min(left.bytes, capBytes)
      capBytes -= bytes
      left.bytes -= bytes
      nowMs += (bytes / rate) * 1000
      const sum = perDataset.get(batch.dataset) ?? { wireBytes: 0, contentBytes: 0 }
      perDataset.set(batch.dataset, sum)
      sum.wireBytes += bytes
      if (left.bytes > 0) break
      sum.contentBytes += batch.contentBytes
      for (const { wants } of batch.steps)
        for (const { why } of wants) eta.set(keyOf(batch.dataset, why), nowMs)
      left.at++
      left.bytes = wireOf(batches[left.at])
    }
    if (perDataset.size === 0) continue
    lastMs = nowMs
    windows.push(windowOf(stretch, nowMs, perDataset))
  }
  const rest = batches.slice(left.at)
  for (const batch of rest)
    for (const { wants } of batch.steps)
      for (const { why } of wants) eta.set(keyOf(batch.dataset, why), Infinity)
  return {
    windows,
    later: {
      wireBytes: Math.round(left.bytes + rest.slice(1).reduce((sum, batch) => sum + wireOf(batch), 0)),
      contentBytes: rest.reduce((sum, { contentBytes }) => sum + contentBytes, 0),
    },
    complete: rest.length === 0 ? new Date(lastMs).toISOString() : null,
    etaMs: (dataset, path) => eta.get(keyOf(dataset, path)),
  }
}

/** The times in which a link will be used: of several that are open, the cheapest. */
function stretchesOf({ links, nowMs, untilMs }: ScheduleInput): Stretch[] {
  const COUNT = 64
  const cost = new Map(links.map(({ name, costPerGiB }) => [name, costPerGiB]))
  const all = windowsFrom(links, nowMs, COUNT).filter(({ startMs }) => startMs < untilMs)
  const edges = [
    ...new Set(
      all
        .flatMap(({ startMs, endMs }) => [startMs, endMs])
        .map(edge => Math.min(Math.max(edge, nowMs), untilMs)),
    ),
  ].toSorted((a, b) => a - b)
  const stretches: { window: ContactWindow; fromMs: number; toMs: number }[] = []
  for (const [at, fromMs] of edges.entries()) {
    const toMs = edges[at + 1]
    if (toMs === undefined) break
    const open = all.filter(({ startMs, endMs }) => startMs <= fromMs && endMs >= toMs)
    const [best] = open.toSorted((a, b) => cost.get(a.link)! - cost.get(b.link)!)
    const last = stretches.at(-1)
    if (!best) continue
    if (last?.window === best && last.toMs === fromMs) last.toMs = toMs
    else stretches.push({ window: best, fromMs, toMs })
  }
  return stretches
}

function windowOf(
  { window, fromMs }: Stretch,
  endMs: number,
  perDataset: ReadonlyMap<string, { readonly wireBytes: number; readonly contentBytes: number }>,
): ScheduledWindow {
  const datasets = [...perDataset].map(([dataset, { wireBytes, contentBytes }]) => ({
    dataset,
    wireBytes: Math.round(wireBytes),
    contentBytes,
  }))
  return {
    link: window.link,
    window: window.id,
    start: new Date(fromMs).toISOString(),
    end: new Date(endMs).toISOString(),
    wireBytes: datasets.reduce((sum, { wireBytes }) => sum + wireBytes, 0),
    contentBytes: datasets.reduce((sum, { contentBytes }) => sum + contentBytes, 0),
    datasets,
  }
}

function wireOf(batch: Batch | undefined): number {
  return batch ? batch.wire.down + batch.wire.up : 0
}

function keyOf(dataset: string, path: string): string {
  return `${dataset}\n${path}`
}
