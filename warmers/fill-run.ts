/**
 * The part of a fill that moves content: runs a plan's batches to their end, plans again for what
 * patches did not yield, and makes releases current as they become whole.
 */
import type { Cid } from '../manifests/cid.ts'
import { EdgeError, isEdgeError, type EdgeErrorCode } from '../manifests/errors.ts'
import type { Reservation } from '../node/store/reservations.ts'
import { BatchBoard, BOARD, type BatchEnd } from './batch-board.ts'
import type { FillEvent, FillRequest } from './fill-once.ts'
import { withinLimits } from './fill-limits.ts'
import { FillMeter } from './fill-meter.ts'
import { mergedBatches, type Batch, type FillPlan } from './plan-fill.ts'
import { planPrepared, prepareDataset, type Prepared } from './prepare-dataset.ts'
import type { Releases } from './releases.ts'
import { runBatch } from './run-batch.ts'
import { nameOf } from './sources.ts'

export interface RunEnd {
  /** Nothing failed and nothing was put off. */
  readonly complete: boolean
  readonly contentBytes: number
  readonly fallbacks: number
  /** Batches that the limits left for another time. */
  readonly deferred?: number
}

const CONCURRENCY = 4
const PROGRESS_MS = 250

export class FillRun {
  readonly #request: FillRequest
  readonly #prepared: Map<string, Prepared>
  readonly #served: Map<string, number>
  readonly #tell: (event: FillEvent) => void
  readonly #wireSpent: () => number
  readonly #meter = new FillMeter()
  readonly #withoutDelta = new Set<Cid>()
  #openByDataset = new Map<string, number>()
  #fallbacks = 0
  #deferred = 0
  #failed = false

  /**
   * @param served what was served before the fill, by dataset.
   * @param wireSpent bytes on the wire of this fill so far: what a cap is compared with.
   */
  constructor(
    request: FillRequest,
    prepared: readonly Prepared[],
    served: ReadonlyMap<string, number>,
    tell: (event: FillEvent) => void,
    wireSpent: () => number,
  ) {
    this.#request = request
    this.#served = new Map(served)
    this.#prepared = new Map(prepared.map(one => [one.dataset, one]))
    this.#tell = tell
    this.#wireSpent = wireSpent
  }

  /** @throws EdgeError `STORE_FULL` (I7: before anything is fetched); the signal's reason. */
  async all(plans: readonly FillPlan[]): Promise<RunEnd> {
    for (const { dataset, unobtainable } of plans) {
      const [first] = unobtainable
      if (!first) continue
      const message = `no pack or delta has ${unobtainable.length} extents, ${first.cid} of ${first.why} among them`
      this.#fail({ dataset, code: 'PACK_INVALID', message })
    }
    // a first release is served from its catalog on, item by item as they come
    for (const { dataset } of plans) await this.#activate(dataset)

    for (let batches = mergedBatches(plans); batches.length > 0; ) {
      const { taken, deferred } = withinLimits(batches, this.#limits())
      this.#deferred += deferred.length
      this.#meter.plan(taken)
      const lacking = await this.#drain(taken)
      for (const { cid } of lacking) this.#withoutDelta.add(cid)
      batches =
        lacking.length > 0 ? await this.#planAgain(new Set(lacking.map(({ dataset }) => dataset))) : []
    }
    const { contentBytes } = this.#meter
    return {
      complete: !this.#failed && this.#deferred === 0,
      contentBytes,
      fallbacks: this.#fallbacks,
      deferred: this.#deferred,
    }
  }

  #limits() {
    const { wireBytesMax = Infinity, priorityMax = 3 } = this.#request.limits ?? {}
    return { priorityMax, wireBytesMax: wireBytesMax - this.#wireSpent() }
  }

  /** @returns what came by no patch, and needs frames. */
  async #drain(planned: readonly Batch[]): Promise<{ dataset: string; cid: Cid }[]> {
    const { signal, queue, concurrency = CONCURRENCY, window = '' } = this.#request
    const { batches, reservation } = await this.#reserve(planned)
    using _held = reservation
    const lacking: { dataset: string; cid: Cid }[] = []
    const activations: Promise<void>[] = []
    this.#openByDataset = countBy(batches)
    const tools = {
      ...this.#request,
      onProgress: (progress: { contentBytes: number; wireBytes: number }) => {
        this.#meter.add(progress)
        reservation.use(progress.contentBytes)
      },
    }
    const ended = (end: BatchEnd) => {
      lacking.push(...this.#account(end))
      const open = (this.#openByDataset.get(end.batch.dataset) ?? 0) - (end.again ? 0 : 1)
      this.#openByDataset.set(end.batch.dataset, open)
      if (open === 0 && !end.again) activations.push(this.#activate(end.batch.dataset))
    }
    const board = new BatchBoard(
      batches,
      (batch, options, via) =>
        runBatch(batch, via ? { ...tools, upstreams: via(tools.upstreams) } : tools, options),
      ended,
      this.#request.board ?? BOARD,
    )
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

  /** Room for all of it, or else without the last classes (I7). */
  async #reserve(
    planned: readonly Batch[],
  ): Promise<{ batches: readonly Batch[]; reservation: Reservation }> {
    for (let batches = planned; ; ) {
      try {
        const reservation = await this.#request.store.reserve(
          batches.reduce((sum, batch) => sum + batch.contentBytes, 0),
          'fill',
        )
        return { batches, reservation }
      } catch (error) {
        if (!isEdgeError(error, 'STORE_FULL')) throw error
        const last = batches.reduce((lowest, { priority }) => Math.max(lowest, priority), -1)
        const fewer = batches.filter(({ priority }) => priority < last)
        if (fewer.length === 0) throw error
        for (const dataset of new Set(
          batches.filter(({ priority }) => priority === last).map(batch => batch.dataset),
        )) {
          this.#fail({ dataset, code: 'STORE_FULL', message: `P${last} is left out: ${error.message}` })
        }
        batches = fewer
      }
    }
  }

  #account({ batch: { dataset }, result, error, again }: BatchEnd): { dataset: string; cid: Cid }[] {
    if (error !== undefined) {
      const failure = failureOf(dataset, error)
      if (again) this.#tell({ type: 'retry', ...failure })
      else this.#fail(failure)
    }
    const fallbacks = result?.fallbacks ?? []
    this.#fallbacks += fallbacks.length
    return fallbacks.map(({ want, why }) => {
      this.#tell({ type: 'fallback', dataset, item: want.why, message: why })
      return { dataset, cid: want.cid }
    })
  }

  async #planAgain(datasets: ReadonlySet<string>): Promise<Batch[]> {
    const plans: FillPlan[] = []
    for (const dataset of datasets) {
      const again = await prepareDataset(
        dataset,
        this.#request,
        { signal: this.#request.signal },
        this.#withoutDelta,
      )
      const plan = planPrepared(again ?? this.#prepared.get(dataset)!, this.#request, this.#withoutDelta)
      if (plan.unobtainable.length > 0) {
        this.#fail({
          dataset,
          code: 'DELTA_INVALID',
          message: `${plan.unobtainable.length} extents have neither patch nor frame`,
        })
      }
      plans.push(plan)
    }
    return mergedBatches(plans)
  }

  /** The library may have switched by itself: what counts is that it serves another release than before. */
  async #activate(dataset: string): Promise<void> {
    const { releases } = this.#request
    await releases.activateIfWhole(dataset)
    const revision = servedBy(releases).get(dataset)
    if (revision === undefined || revision === this.#served.get(dataset)) return
    this.#served.set(dataset, revision)
    this.#tell({ type: 'activated', dataset, revision })
  }

  #fail(failure: Failure): void {
    this.#failed = true
    this.#tell({ type: 'failed', ...failure })
  }
}

/** The revision that is served, by dataset. */
export function servedBy(releases: Releases): Map<string, number> {
  return new Map(
    releases
      .releases()
      .flatMap(({ dataset, current }) => (current ? [[dataset, current.revision] as const] : [])),
  )
}

export interface Failure {
  readonly dataset: string
  readonly code: EdgeErrorCode | 'INTERNAL'
  readonly message: string
}

export function failureOf(dataset: string, error: unknown): Failure {
  const code = error instanceof EdgeError ? error.code : 'INTERNAL'
  return { dataset, code, message: error instanceof Error ? error.message : String(error) }
}

function countBy(batches: readonly Batch[]): Map<string, number> {
  const counts = new Map<string, number>()
  for (const { dataset } of batches) counts.set(dataset, (counts.get(dataset) ?? 0) + 1)
  return counts
}
