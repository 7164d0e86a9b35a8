/**
 * One fill, from asking what is new to serving it: refresh → plan → run → activate, told as events.
 *
 * It may be stopped anywhere, by its signal within a second or by a kill: what was stored stays,
 * what arrived in part is kept, and the next fill needs only what is missing (I8, I9).
 */
import type { Cid } from '../manifests/cid.ts'
import { EdgeError, isEdgeError, type EdgeErrorCode } from '../manifests/errors.ts'
import type { Abortable } from '../manifests/extent.ts'
import type { ContentStore } from '../node/store/store.ts'
import { BatchBoard, BOARD, type BatchEnd, type BoardOptions } from './batch-board.ts'
import { Channel } from './channel.ts'
import type { FillQueue } from './fill-queue.ts'
import { planPrepared, prepareDataset, type Prepared, type PrepareTools } from './prepare-dataset.ts'
import { planReport, type PlanReport } from './plan-report.ts'
import type { Batch, FillPlan } from './plan-fill.ts'
import { refresh, type Refreshed, type RefreshTools } from './refresh.ts'
import { runBatch } from './run-batch.ts'
import { nameOf } from './sources.ts'

export interface FillTools extends PrepareTools, RefreshTools {
  readonly store: PrepareTools['store'] & Pick<ContentStore, 'reserve'>
  readonly queue: FillQueue
}

export interface FillRequest extends FillTools, Abortable {
  /** All that are subscribed to when absent. */
  readonly datasets?: readonly string[]
  /** Batches at a time. */
  readonly concurrency?: number
  /** The contact window's name; any text. */
  readonly window?: string
  /** Without asking upstreams for newer metadata first. */
  readonly skipRefresh?: boolean
  readonly board?: BoardOptions
}

export interface FillProgress {
  readonly contentBytes: number
  readonly contentBytesTotal: number
  /** Of bodies; headers come on top. */
  readonly wireBytes: number
  readonly wireBytesTotal: number
  readonly bytesPerSecond: number
  readonly etaSeconds: number | null
}

export type FillEvent =
  | ({ readonly type: 'refreshed' } & Refreshed)
  | ({ readonly type: 'planned' } & PlanReport)
  | ({ readonly type: 'progress' } & FillProgress)
  | { readonly type: 'fallback'; readonly dataset: string; readonly item: string; readonly message: string }
  | {
      readonly type: 'retry' | 'failed'
      readonly dataset: string
      readonly code: EdgeErrorCode | 'INTERNAL'
      readonly message: string
    }
  | { readonly type: 'activated'; readonly dataset: string; readonly revision: number }
  | {
      readonly type: 'done'
      /** Nothing failed: all that is wanted is here. */
      readonly complete: boolean
      readonly contentBytes: number
      /** Everything that crossed the wire in this fill, requests and headers included. */
      readonly wire: { readonly down: number; readonly up: number; readonly requests: number }
      readonly fallbacks: number
      readonly seconds: number
    }

const CONCURRENCY = 4
const PROGRESS_MS = 250

/**
 * @throws EdgeError `TRUST_…`, `UPSTREAM_…` when the refresh fails and nothing is known to be
 * wanted, `STORE_FULL` (I7: with the shortfall, before anything is fetched); the signal's reason.
 */
export async function* fillOnce(request: FillRequest): AsyncGenerator<FillEvent> {
  const since = performance.now()
  const wireBefore = wireOfAll(request)
  const { refreshed, prepared, plans, failures } = yield* planAll(request)
  yield { type: 'planned', ...planReport(plans, refreshed?.idle, wireSince(request, wireBefore)) }

  const events = new Channel<FillEvent>()
  const left = new AbortController()
  const signal = AbortSignal.any([request.signal, left.signal])
  const run = new FillRun({ ...request, signal }, prepared, event => events.push(event))
  const finished = run.all(plans).finally(() => events.end())
  finished.catch(() => undefined)
  try {
    yield* events
  } finally {
    left.abort() // whoever stops listening stops the fill
  }
  const { complete, contentBytes, fallbacks } = await finished
  yield {
    type: 'done',
    complete: complete && failures === 0,
    contentBytes,
    wire: wireSince(request, wireBefore),
    fallbacks,
    seconds: (performance.now() - since) / 1000,
  }
}

/** What a fill would do now, without the big part of it: metadata, directories and catalogs are fetched. */
export async function planOnce(request: Omit<FillRequest, 'queue'>): Promise<PlanReport & { readonly refreshed?: Refreshed }> {
  const wireBefore = wireOfAll(request)
  const steps = planAll(request)
  for (;;) {
    const { done, value } = await steps.next()
    if (!done) continue
    const report = planReport(value.plans, value.refreshed?.idle, wireSince(request, wireBefore))
    return { ...report, ...(value.refreshed ? { refreshed: value.refreshed } : {}) }
  }
}

async function* planAll(request: Omit<FillRequest, 'queue'>) {
  const options = { signal: request.signal }
  let refreshed: Refreshed | undefined
  let failures = 0
  if (!request.skipRefresh) {
    try {
      refreshed = await refresh(request, options)
      yield { type: 'refreshed', ...refreshed } as const
    } catch (error) {
      // what was accepted before can be completed without news
      request.signal.throwIfAborted()
      if (!isEdgeError(error) || !error.retryable || request.releases.releases().length === 0) throw error
      failures++
      yield failureOf('', error, 'failed')
    }
  }
  const prepared: Prepared[] = []
  for (const { dataset } of request.releases.releases()) {
    if (!(request.datasets?.includes(dataset) ?? request.wants(dataset))) continue
    try {
      const one = await prepareDataset(dataset, request, options)
      if (one) prepared.push(one)
    } catch (error) {
      request.signal.throwIfAborted()
      if (!isEdgeError(error)) throw error
      failures++
      yield failureOf(dataset, error, 'failed')
    }
  }
  return { refreshed, failures, prepared, plans: prepared.map(one => planPrepared(one, request)) }
}

/** The part of a fill that moves content. */
class FillRun {
  readonly #request: FillRequest
  readonly #prepared: Map<string, Prepared>
  readonly #tell: (event: FillEvent) => void
  readonly #meter = new Meter()
  #fallbacks = 0
  #failed = false
  #openByDataset = new Map<string, number>()

  constructor(request: FillRequest, prepared: readonly Prepared[], tell: (event: FillEvent) => void) {
    this.#request = request
    this.#prepared = new Map(prepared.map(one => [one.dataset, one]))
    this.#tell = tell
  }

  async all(plans: readonly FillPlan[]): Promise<{ complete: boolean; contentBytes: number; fallbacks: number }> {
    for (const { dataset, unobtainable } of plans) {
      const [first] = unobtainable
      if (!first) continue
      this.#failed = true
      const message = `no pack or delta has ${unobtainable.length} extents, ${first.cid} of ${first.why} among them`
      this.#tell({ type: 'failed', dataset, code: 'PACK_INVALID', message })
    }
    for (const { dataset, batches } of plans) if (batches.length === 0) await this.#activate(dataset)

    let batches = merged(plans)
    const withoutDelta = new Set<Cid>()
    while (batches.length > 0) {
      this.#meter.plan(batches)
      const lacking = await this.#drain(batches)
      const isNew = lacking.filter(({ cid }) => !withoutDelta.has(cid))
      if (isNew.length === 0) break
      for (const { cid } of isNew) withoutDelta.add(cid)
      batches = await this.#replan(new Set(isNew.map(({ dataset }) => dataset)), withoutDelta)
    }
    return { complete: !this.#failed, contentBytes: this.#meter.contentBytes, fallbacks: this.#fallbacks }
  }

  /** @returns what came by no patch, and needs frames. */
  async #drain(batches: readonly Batch[]): Promise<{ dataset: string; cid: Cid }[]> {
    const { store, queue, signal, concurrency = CONCURRENCY, window = '' } = this.#request
    const lacking: { dataset: string; cid: Cid }[] = []
    const contentBytes = batches.reduce((sum, batch) => sum + batch.contentBytes, 0)
    using reservation = await store.reserve(contentBytes, 'fill')
    const tools = {
      ...this.#request,
      onProgress: (progress: { contentBytes: number; wireBytes: number }) => {
        this.#meter.add(progress)
        reservation.use(progress.contentBytes)
      },
    }
    this.#openByDataset = countBy(batches)
    const activations: Promise<void>[] = []
    const ended = (end: BatchEnd) => {
      const { dataset } = end.batch
      for (const { want, why } of end.result?.fallbacks ?? []) {
        lacking.push({ dataset, cid: want.cid })
        this.#fallbacks++
        this.#tell({ type: 'fallback', dataset, item: want.why, message: why })
      }
      if (end.error !== undefined) this.#tell(failureOf(dataset, end.error, end.again ? 'retry' : 'failed'))
      if (end.again) return
      if (end.error !== undefined) this.#failed = true
      const open = (this.#openByDataset.get(dataset) ?? 0) - 1
      this.#openByDataset.set(dataset, open)
      if (open === 0) activations.push(this.#activate(dataset))
    }
    const board = new BatchBoard(batches, (batch, options) => runBatch(batch, tools, options), ended, this.#request.board ?? BOARD)
    const timer = setInterval(() => this.#tell({ type: 'progress', ...this.#meter.progress() }), PROGRESS_MS)
    try {
      const name = nameOf([window, ...batches.map(({ id }) => id)])
      await queue.drain(board, { concurrency, window: name }, { signal })
    } finally {
      clearInterval(timer)
      this.#tell({ type: 'progress', ...this.#meter.progress() })
    }
    await Promise.all(activations)
    return lacking
  }

  async #replan(datasets: ReadonlySet<string>, withoutDelta: ReadonlySet<Cid>): Promise<Batch[]> {
    const plans: FillPlan[] = []
    for (const dataset of datasets) {
      const before = this.#prepared.get(dataset)!
      const again = await prepareDataset(dataset, this.#request, { signal: this.#request.signal }, withoutDelta)
      plans.push(planPrepared(again ?? before, this.#request, withoutDelta))
    }
    return merged(plans)
  }

  async #activate(dataset: string): Promise<void> {
    const { releases } = this.#request
    const next = releases.releases().find(known => known.dataset === dataset)?.next
    if (next && (await releases.activateIfWhole(dataset))) this.#tell({ type: 'activated', dataset, revision: next.revision })
  }
}

/** What came so far, and how fast of late. */
class Meter {
  contentBytes = 0
  #wireBytes = 0
  #contentTotal = 0
  #wireTotal = 0
  #samples: { at: number; wire: number; content: number }[] = []

  plan(batches: readonly Batch[]): void {
    this.#contentTotal = this.contentBytes + batches.reduce((sum, batch) => sum + batch.contentBytes, 0)
    this.#wireTotal = this.#wireBytes + batches.reduce((sum, { requests }) => sum + requests.reduce((all, span) => all + span.length, 0), 0)
  }

  add({ contentBytes, wireBytes }: { contentBytes: number; wireBytes: number }): void {
    this.contentBytes += contentBytes
    this.#wireBytes += wireBytes
  }

  progress(): FillProgress {
    const SAMPLES = 20
    const now = { at: performance.now(), wire: this.#wireBytes, content: this.contentBytes }
    this.#samples = [...this.#samples.slice(-SAMPLES + 1), now]
    const first = this.#samples[0]!
    const seconds = (now.at - first.at) / 1000
    const bytesPerSecond = seconds > 0 ? (now.wire - first.wire) / seconds : 0
    const left = this.#wireTotal - this.#wireBytes
    return {
      contentBytes: this.contentBytes,
      contentBytesTotal: this.#contentTotal,
      wireBytes: this.#wireBytes,
      wireBytesTotal: this.#wireTotal,
      bytesPerSecond: Math.round(bytesPerSecond),
      etaSeconds: left <= 0 ? 0 : bytesPerSecond > 0 ? Math.ceil(left / bytesPerSecond) : null,
    }
  }
}

/** All datasets' batches, lower priorities later; the order within a dataset stays. */
function merged(plans: readonly FillPlan[]): Batch[] {
  return plans.flatMap(({ batches }) => batches).sort((a, b) => a.priority - b.priority)
}

function countBy(batches: readonly Batch[]): Map<string, number> {
  const counts = new Map<string, number>()
  for (const { dataset } of batches) counts.set(dataset, (counts.get(dataset) ?? 0) + 1)
  return counts
}

function failureOf(dataset: string, error: unknown, type: 'retry' | 'failed'): Extract<FillEvent, { type: 'retry' | 'failed' }> {
  const code = isEdgeError(error) ? error.code : 'INTERNAL'
  return { type, dataset, code, message: error instanceof Error ? error.message : String(error) }
}

function wireOfAll({ upstreams }: { readonly upstreams: FillTools['upstreams'] }) {
  const sum = { down: 0, up: 0, requests: 0 }
  for (const { wire } of upstreams) {
    sum.down += wire.bytesDown
    sum.up += wire.bytesUp
    sum.requests += wire.requests
  }
  return sum
}

function wireSince(tools: { readonly upstreams: FillTools['upstreams'] }, before: ReturnType<typeof wireOfAll>) {
  const now = wireOfAll(tools)
  return { down: now.down - before.down, up: now.up - before.up, requests: now.requests - before.requests }
}

export type { EdgeError }
