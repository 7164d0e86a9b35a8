/**
 * A tower's world in virtual time, as in the data's README: contact windows with a rate each, and a
 * catalog that holds what the trace asks for, decoys that nobody asks for, and publication dates.
 * Everything follows from the seed.
 */
import type { Trace } from '../trace.ts'

export type Links = 'nightly' | 'harsh'

export interface ContactWindow {
  readonly fromSeconds: number
  readonly toSeconds: number
  readonly bytesPerSecond: number
}

export interface Catalog {
  /** Items 0 to `wanted` - 1 are the trace's, the rest are decoys. */
  readonly wanted: number
  readonly sizeBytes: Float64Array
  readonly publishedSeconds: Float64Array
  /** Class weights for the weighted runs. */
  readonly weight: Float64Array
}

const HOUR = 3600
export const DAY = 24 * HOUR
const CLASSES = [
  { share: 0.1, weight: 16 },
  { share: 0.7, weight: 4 },
  { share: 1, weight: 1 },
]

/** Uniform in [0, 1): mulberry32. */
export function randomOf(seed: number): () => number {
  let state = seed | 0
  return () => {
    state = (state + 0x6d2b79f5) | 0
    let x = Math.imul(state ^ (state >>> 15), 1 | state)
    x = (x + Math.imul(x ^ (x >>> 7), 61 | x)) ^ x
    return ((x ^ (x >>> 14)) >>> 0) / 0x1_0000_0000
  }
}

/**
 * 01:00–05:00 every night and three windows of 20 minutes between 06:00 and 22:00, at 2 to
 * 20 Mbit/s each; harsh: nights only, half of them lost. In order, disjoint.
 */
export function contactWindows(trace: Trace, links: Links, random: () => number): ContactWindow[] {
  const first = trace.seconds[0]!
  const last = trace.seconds.at(-1)!
  const windows: ContactWindow[] = []
  const add = (fromSeconds: number, seconds: number) => {
    const bytesPerSecond = ((2 + 18 * random()) * 1e6) / 8
    windows.push({ fromSeconds, toSeconds: fromSeconds + seconds, bytesPerSecond })
  }
  for (let day = Math.floor(first / DAY) * DAY; day <= last; day += DAY) {
    if (links === 'nightly' || random() < 0.5) add(day + HOUR, 4 * HOUR)
    if (links === 'harsh') continue
    const starts = [random(), random(), random()].sort((a, b) => a - b)
    for (const [n, start] of starts.entries()) {
      // 16 hours less three windows, so that they never overlap
      add(day + 6 * HOUR + start * 15 * HOUR + n * (HOUR / 3), HOUR / 3)
    }
  }
  return windows.filter(({ fromSeconds, toSeconds }) => first < toSeconds && fromSeconds <= last)
}

/** Decoys and publication delay by kind of trace: an assumption, so results without it stand beside. */
export function catalogOf(trace: Trace, random: () => number): Catalog {
  const education = trace.name.startsWith('edu')
  const decoysPerItem = education ? 5 : 2
  const delaySeconds = (education ? 2 : 5) * DAY
  const wanted = trace.objects
  const items = wanted * (1 + decoysPerItem)
  const sizeBytes = new Float64Array(items)
  const publishedSeconds = new Float64Array(items).fill(NaN)
  for (const [n, key] of trace.key.entries()) {
    sizeBytes[key] = trace.size[n]!
    if (Number.isNaN(publishedSeconds[key])) {
      publishedSeconds[key] = trace.seconds[n]! + delaySeconds * Math.log(1 - random())
    }
  }
  for (let item = wanted; item < items; item++) {
    sizeBytes[item] = sizeBytes[Math.floor(random() * wanted)]!
    publishedSeconds[item] = publishedSeconds[Math.floor(random() * wanted)]!
  }
  const weight = Float64Array.from({ length: items }, () => {
    const at = random()
    return CLASSES.find(({ share }) => at < share)!.weight
  })
  return { wanted, sizeBytes, publishedSeconds, weight }
}

/**
 * What other towers' people ask for: each request of ours happens at each neighbour with chance one
 * half, some time earlier or later (Laplace, a day). Our own assumption; off unless asked for.
 */
export function neighbourRequests(
  trace: Trace,
  catalog: Catalog,
  neighbours: number,
  random: () => number,
): { readonly seconds: number; readonly item: number }[] {
  const requests: { seconds: number; item: number }[] = []
  for (const [n, item] of trace.key.entries()) {
    for (let neighbour = 0; neighbour < neighbours; neighbour++) {
      if (random() < 0.5) continue
      const side = random() < 0.5 ? -1 : 1
      const seconds = trace.seconds[n]! - side * DAY * Math.log(1 - random())
      if (seconds >= catalog.publishedSeconds[item]!) requests.push({ seconds, item })
    }
  }
  return requests.sort((a, b) => a.seconds - b.seconds)
}
