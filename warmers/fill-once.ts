/**
 * One fill, from asking what is new to serving it: refresh → plan → run → activate, told as events.
 *
 * It may be stopped anywhere, by its signal within a second or by a kill: what was stored stays,
 * what arrived in part is kept, and the next fill needs only what is missing (I8, I9).
 */
import { isDatasetName } from '../manifests/dataset-name.ts'
import { isEdgeError } from '../manifests/errors.ts'
import type { Abortable } from '../manifests/extent.ts'
import type { ContentStore } from '../node/store/store.ts'
import type { BoardOptions } from './batch-board.ts'
import { Channel } from './channel.ts'
import type { FillLimits } from './fill-limits.ts'
import type { FillProgress } from './fill-meter.ts'
import type { FillQueue } from './fill-queue.ts'
import { FillRun, failureOf, servedBy, type Failure, type RunEnd } from './fill-run.ts'
import { bringFromPeers } from './peers.ts'
import { mergedBatches, type FillPlan, type Want } from './plan-fill.ts'
import { planReport, type PlanReport, type WireBytes } from './plan-report.ts'
import { planKeeping, type Keeps } from './keep-plan.ts'
import { keptBy, planPrepared, prepareDataset, type Prepared, type PrepareTools } from './prepare-dataset.ts'
import { allFilesOf } from './repository-files.ts'
import { askForRanges, remembered, type RangeMemory } from './range-memory.ts'
import { scheduleFill, type Schedule, type ScheduleInput } from './schedule.ts'
import { refresh, type Refreshed, type RefreshTools } from './refresh.ts'
import type { Upstream } from './upstream.ts'

export type { FillProgress } from './fill-meter.ts'

export interface FillTools extends PrepareTools, RefreshTools {
  readonly store: PrepareTools['store'] & Pick<ContentStore, 'reserve' | 'expect'>
  readonly queue: FillQueue
  /** Of earlier processes; without it each finds out anew. */
  readonly rangeMemory?: RangeMemory
}

export interface FillRequest extends FillTools, Abortable {
  /** All that are subscribed to when absent. */
  readonly datasets?: readonly string[]
  /** Batches at a time. */
  readonly concurrency?: number
  /** The contact window's name; any text. */
  readonly window?: string
  readonly limits?: FillLimits
  /** Without asking upstreams for newer metadata first. */
  readonly skipRefresh?: boolean
  readonly board?: BoardOptions
  /** Neighbours, who are asked before the link is used. */
  readonly peers?: readonly Upstream[]
  /** The windows to come: to say when things will be here. */
  readonly outlook?: Outlook
  /** Told the schedule of each plan; needs `outlook`. */
  readonly onSchedule?: (schedule: Schedule) => void
}

export type Outlook = Pick<ScheduleInput, 'links' | 'rateOf' | 'bytesLeftIn'> & { readonly horizonMs: number }

export type FillEvent =
  | ({ readonly type: 'refreshed' } & Refreshed)
  | ({ readonly type: 'planned' } & PlanReport)
  | ({ readonly type: 'progress' } & FillProgress)
  | { readonly type: 'fallback'; readonly dataset: string; readonly item: string; readonly message: string }
  | ({ readonly type: 'retry' | 'failed' } & Failure)
  | { readonly type: 'activated'; readonly dataset: string; readonly revision: number }
  | ({
      readonly type: 'done'
      /** Everything that crossed the wire in this fill, requests and headers included. */
      readonly wire: WireBytes
      readonly seconds: number
    } & RunEnd)

export interface PlanNews {
  readonly refreshed?: Refreshed
  /** Which window brings what; with `outlook`. `etaMs` is left out of JSON. */
  readonly schedule?: Schedule
}

const READ_AHEAD_BYTES = 32 * 1024
const PREPARED_AT_ONCE = 4

interface Planned {
  readonly schedule: Schedule | undefined
  readonly refreshed: Refreshed | undefined
  readonly prepared: readonly Prepared[]
  readonly plans: readonly FillPlan[]
  readonly keeps: Keeps | undefined
  /** What could not be asked or planned. */
  readonly failures: number
}

/**
 * @throws EdgeError `TRUST_…`, `UPSTREAM_…` when the refresh fails and nothing is known to be
 * wanted, `STORE_FULL` (I7: with the shortfall, before anything is fetched); the signal's reason.
 */
export async function* fillOnce(wish: FillRequest): AsyncGenerator<FillEvent> {
  const request = { ...wish, upstreams: remembered(wish.upstreams, wish.rangeMemory) }
  const since = performance.now()
  const spent = wireMeter(request)
  const served = servedBy(request.releases)
  const { refreshed, prepared, plans, failures, keeps } = yield* planAll({
    readAheadBytes: READ_AHEAD_BYTES,
    ...request,
  })
  yield { type: 'planned', ...planReport(plans, refreshed?.idle, spent(), request.upstreams[0]?.cost) }

  const events = new Channel<FillEvent>()
  const left = new AbortController()
  const signal = AbortSignal.any([request.signal, left.signal])
  const wireSpent = () => spent().down + spent().up
  const run = new FillRun(
    { ...request, keeps, signal },
    prepared,
    served,
    event => events.push(event),
    wireSpent,
  )
  const finished = run.all(plans).finally(() => events.end())
  finished.catch(() => undefined)
  try {
    yield* events
  } finally {
    left.abort() // whoever stops listening stops the fill
  }
  const end = await finished
  const complete = end.complete && failures === 0
  await forgetUseless(request, prepared, complete && request.datasets === undefined)
  yield { type: 'done', ...end, complete, wire: spent(), seconds: (performance.now() - since) / 1000 }
}

/** What a fill would do now, without the big part of it: metadata, directories and catalogs are fetched. */
export async function planOnce(wish: Omit<FillRequest, 'queue'>): Promise<PlanReport & PlanNews> {
  const request = { ...wish, upstreams: remembered(wish.upstreams, wish.rangeMemory) }
  const spent = wireMeter(request)
  const steps = planAll(request)
  for (;;) {
    const { done, value } = await steps.next()
    if (!done) continue
    const { plans, refreshed, schedule } = value
    return {
      ...planReport(plans, refreshed?.idle, spent(), request.upstreams[0]?.cost),
      ...(refreshed && { refreshed }),
      ...(schedule && { schedule }),
    }
  }
}

async function* planAll(request: Omit<FillRequest, 'queue'>): AsyncGenerator<FillEvent, Planned> {
  const options = { signal: request.signal }
  let refreshed: Refreshed | undefined
  let failures = 0
  if (!request.skipRefresh) {
    try {
      refreshed = await refresh(request, options)
      // a carrier need not have every dataset
      failures += refreshed.problems.filter(
        ({ what, code }) => isDatasetName(what) && code !== 'NOT_FOUND',
      ).length
      yield { type: 'refreshed', ...refreshed }
    } catch (error) {
      // what was accepted before can be completed without news
      request.signal.throwIfAborted()
      const isHopeless = request.upstreams.length === 0 || request.releases.releases().length === 0
      if (!isEdgeError(error) || !error.retryable || isHopeless) throw error
      failures++
      yield { type: 'failed', ...failureOf('', error) }
    }
  }
  const { prepared, failed } = await prepareAll(request)
  failures += failed.length
  for (const failure of failed) yield { type: 'failed', ...failure }
  const keeps = await planKeeping(request)
  for (const [n, one] of prepared.entries()) {
    const wants = one.wants.filter(keptBy(one.dataset, { keeps }))
    prepared[n] = await withoutPeers({ ...one, wants }, request, options)
  }
  if (prepared.some(({ wants }) => wants.length > 0))
    await askForRanges(request.upstreams[0], request.rangeMemory, options)
  const plans = prepared.map(one => planPrepared(one, request))
  const schedule = scheduleOf(plans, refreshed, request)
  if (schedule) request.onSchedule?.(schedule)
  return { refreshed, failures, prepared, plans, schedule, keeps }
}

/** Some at a time: a far link's round trips would add up. In the order of the datasets. */
async function prepareAll(
  request: Omit<FillRequest, 'queue'>,
): Promise<{ prepared: Prepared[]; failed: readonly Failure[] }> {
  const { releases, signal } = request
  const names = releases.releases().map(({ dataset }) => dataset)
  const wanted = names.filter(dataset => request.datasets?.includes(dataset) ?? request.wants(dataset))
  const outcomes: (Prepared | Failure | undefined)[] = []
  const left = wanted.entries()
  const prepareNext = async () => {
    for (const [at, dataset] of left) {
      try {
        outcomes[at] = await prepareDataset(dataset, request, { signal })
      } catch (error) {
        signal.throwIfAborted()
        if (!isEdgeError(error)) throw error
        outcomes[at] = failureOf(dataset, error)
      }
    }
  }
  await Promise.all(Array.from({ length: PREPARED_AT_ONCE }, prepareNext))
  return {
    prepared: outcomes.flatMap(outcome => (outcome && 'sources' in outcome ? [outcome] : [])),
    failed: outcomes.flatMap(outcome => (outcome && 'code' in outcome ? [outcome] : [])),
  }
}

/** What neighbours have costs the link nothing: it comes first, and is not in the plan. */
async function withoutPeers(
  prepared: Prepared,
  { peers = [], store, limits }: Omit<FillRequest, 'queue'>,
  options: Abortable,
): Promise<Prepared> {
  if (peers.length === 0) return prepared
  const isAllowed = ({ priority }: Want) => priority <= (limits?.priorityMax ?? 3)
  const allowed = prepared.wants.filter(isAllowed)
  const left = await bringFromPeers(prepared.dataset, allowed, { peers, store }, options)
  return { ...prepared, wants: [...left, ...prepared.wants.filter(want => !isAllowed(want))] }
}

function scheduleOf(
  plans: readonly FillPlan[],
  refreshed: Refreshed | undefined,
  { outlook, now }: Omit<FillRequest, 'queue'>,
): Schedule | undefined {
  if (!outlook) return undefined
  const { down, up } = refreshed?.idle ?? { down: 0, up: 0 }
  const nowMs = now()
  return scheduleFill({
    ...outlook,
    batches: mergedBatches(plans),
    refreshBytes: down + up,
    nowMs,
    untilMs: nowMs + outlook.horizonMs,
  })
}

/** What was kept of files that no release needs any more; of all files, when nothing is missing. */
async function forgetUseless(
  { releases, staged, cache }: FillRequest,
  prepared: readonly Prepared[],
  isComplete: boolean,
): Promise<void> {
  const files = allFilesOf(releases.releases())
  const chains = isComplete ? [] : prepared
  const ofChains = chains.flatMap(({ helpers }) => helpers.map(({ path }) => path))
  await staged.retain(new Set(isComplete ? [] : [...files.map(({ path }) => path), ...ofChains]))
  const directories = files.map(({ directory }) => directory.sha256)
  await cache.retain(new Set([...directories, ...chains.flatMap(({ kept }) => kept)]))
}

/** What the upstreams' wires carried since now. */
export function wireMeter({ upstreams }: Pick<FillRequest, 'upstreams'>): () => WireBytes {
  const total = () => {
    const sum = { down: 0, up: 0, requests: 0 }
    for (const { wire } of upstreams) {
      sum.down += wire.bytesDown
      sum.up += wire.bytesUp
      sum.requests += wire.requests
    }
    return sum
  }
  const before = total()
  return () => {
    const now = total()
    return { down: now.down - before.down, up: now.up - before.up, requests: now.requests - before.requests }
  }
}
