/**
 * What neighbours' people ask for (DESIGN section 6): towers that opt in (`TOWER_SHARE_DEMAND`) tell how
 * often each item was asked for in each past hour, and nothing else: no addresses, no times within the
 * hour, nobody's order of requests. A tower asks its peers before it plans, and counts what they say as
 * a part of its own demand.
 *
 * `GET /demand/v1?after=HOUR` → `{"until":HOUR,"items":[["education/book","page.html",12],…]}`; hours are
 * since 1970, `until` is where to go on. What a neighbour says is only ever counts for a forecast: a
 * liar wastes some bytes of a window, no more than its weight allows.
 */
import type { IncomingMessage, ServerResponse } from 'node:http'
import { isDatasetName } from '../manifests/dataset-name.ts'
import type { Abortable } from '../manifests/extent.ts'
import type { Demand } from './demand.ts'

const HOUR_MS = 3_600_000
const HOURS_KEPT = 14 * 24
const ITEMS_PER_HOUR_MAX = 5000
/** In one answer: most asked first. */
const ITEMS_TOLD_MAX = 5000
const PATH_BYTES_MAX = 4096
/** Of one item in one answer: more is not believed. */
const TIMES_MAX = 10_000
const ANSWER_BYTES_MAX = 2 * 1024 * 1024
const ANSWER_MS = 5000

export const DEMAND_PATH = '/demand/v1'

/** Own requests by hour, to be told. In memory: a restart forgets what was not told yet. */
export class SharedDemand {
  readonly prefix = DEMAND_PATH
  readonly #now: () => number
  readonly #hours = new Map<number, Map<string, number>>()

  constructor(now: () => number) {
    this.#now = now
  }

  asked(dataset: string, path: string): void {
    const hour = hourOf(this.#now())
    let items = this.#hours.get(hour)
    if (!items) {
      this.#hours.set(hour, (items = new Map()))
      for (const old of this.#hours.keys()) if (old <= hour - HOURS_KEPT) this.#hours.delete(old)
    }
    const item = `${dataset}\n${path}`
    if (items.has(item) || items.size < ITEMS_PER_HOUR_MAX) items.set(item, (items.get(item) ?? 0) + 1)
  }

  /** Of the whole hours after `after`; the one that runs is not told. */
  report(after: number): {
    readonly until: number
    readonly items: readonly (readonly [string, string, number])[]
  } {
    const until = hourOf(this.#now()) - 1
    const sums = new Map<string, number>()
    for (const [hour, items] of this.#hours) {
      if (hour <= after || hour > until) continue
      for (const [item, times] of items) sums.set(item, (sums.get(item) ?? 0) + times)
    }
    const most = [...sums].sort(([, a], [, b]) => b - a).slice(0, ITEMS_TOLD_MAX)
    return { until, items: most.map(([item, times]) => [...splitAtLine(item), times] as const) }
  }

  /** Answers a neighbour. */
  handle(req: IncomingMessage, res: ServerResponse): void {
    const after = Number(new URL(req.url ?? '/', 'http://tower').searchParams.get('after') ?? 0)
    const body = JSON.stringify(this.report(Number.isFinite(after) ? after : 0))
    res.writeHead(200, { 'content-type': 'application/json', 'cache-control': 'no-store' })
    res.end(req.method === 'HEAD' ? '' : body)
  }
}

/** What neighbours told, asked for again when an hour has passed. */
export class NearbyDemand {
  readonly #peers: readonly string[]
  readonly #demand: Pick<Demand, 'askedNearby'>
  readonly #now: () => number
  /** Per peer: the last hour that it told of, and when it was asked. */
  readonly #told = new Map<string, { until: number; askedHour: number }>()

  constructor(peers: readonly string[], demand: Pick<Demand, 'askedNearby'>, now: () => number) {
    this.#peers = peers
    this.#demand = demand
    this.#now = now
  }

  /** A peer that does not answer, or does not share, is asked again in an hour. Never throws for it. */
  async learn({ signal }: Abortable): Promise<void> {
    const hour = hourOf(this.#now())
    await Promise.all(
      this.#peers.map(async peer => {
        const told = this.#told.get(peer) ?? { until: hour - HOURS_KEPT, askedHour: -1 }
        if (told.askedHour === hour) return
        this.#told.set(peer, { ...told, askedHour: hour })
        const report = await askPeer(peer, told.until, signal).catch(() => undefined)
        if (!report) return
        for (const [dataset, path, times] of report.items) this.#demand.askedNearby(dataset, path, times)
        this.#told.set(peer, { until: Math.min(report.until, hour), askedHour: hour })
      }),
    )
    signal.throwIfAborted()
  }
}

async function askPeer(peer: string, after: number, signal: AbortSignal) {
  const url = new URL(`${DEMAND_PATH}?after=${after}`, peer)
  const response = await fetch(url, {
    signal: AbortSignal.any([signal, AbortSignal.timeout(ANSWER_MS)]),
    redirect: 'error',
  })
  if (!response.ok || !response.body) throw new Error(`${url.href} answers ${response.status}`)
  const parts: Uint8Array[] = []
  let bytes = 0
  for await (const part of response.body) {
    bytes += part.length
    if (bytes > ANSWER_BYTES_MAX) throw new Error(`${url.href} never ends`)
    parts.push(part)
  }
  return parseReport(Buffer.concat(parts).toString('utf8'))
}

/** Untrusted: whatever is not of the form is left out. @returns undefined when nothing is. */
export function parseReport(text: string): ReturnType<SharedDemand['report']> | undefined {
  const { until, items } = JSON.parse(text) as { until?: unknown; items?: unknown }
  if (!Number.isSafeInteger(until) || !Array.isArray(items)) return undefined
  const known = items.slice(0, ITEMS_TOLD_MAX).flatMap((item: unknown) => {
    if (!Array.isArray(item)) return []
    const [dataset, path, times] = item as unknown[]
    if (typeof dataset !== 'string' || !isDatasetName(dataset)) return []
    if (typeof path !== 'string' || path === '' || path.includes('\n') || path.length > PATH_BYTES_MAX)
      return []
    if (typeof times !== 'number' || !(times > 0)) return []
    return [[dataset, path, Math.min(times, TIMES_MAX)] as const]
  })
  return { until: until as number, items: known }
}

function hourOf(ms: number): number {
  return Math.floor(ms / HOUR_MS)
}

function splitAtLine(item: string): [string, string] {
  const at = item.indexOf('\n')
  return [item.slice(0, at), item.slice(at + 1)]
}
