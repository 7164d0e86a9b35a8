/**
 * The planner of one dataset's fill: which bytes of which files, in which order, and why.
 *
 * Pure. Content comes in bundles: a pack's full frames, and a delta's parts, which need older bytes
 * that are here or that older deltas' parts rebuild. A bundle is fetched whole and counted once,
 * however many extents come out of it (`choose-bundles.ts` says which are taken). What is planned is exact: sizes and places are signed, the rest of the wire is measured (`cost`). An extent that
 * no bundle has ends up in `unobtainable`; it is never silently dropped.
 */
import type { Cid } from '../manifests/cid.ts'
import type { ChunkRule } from '../manifests/extent.ts'
import { sha256Of } from '../manifests/digest.ts'
import { chooseBundles, type Load } from './choose-bundles.ts'
import { bytesOf, cut, joined, without } from './spans.ts'
import { wholeWireOf, wireOf, type RequestCost, type Span } from './upstream.ts'

export interface Want {
  readonly cid: Cid
  /** Bytes of content. */
  readonly sizeBytes: number
  readonly rule: ChunkRule
  /** P0 to P3; −1 is the catalog, without which nothing else can be named. */
  readonly priority: -1 | 0 | 1 | 2 | 3
  /** Larger comes first within a class: expected requests per byte, in steps. */
  readonly step: number
  /** Smaller comes first among equals; the place in the catalog. */
  readonly order: number
  /** For people: the item, and what wants it. */
  readonly why: string
}

/** One compressed run of a file, from which some extents come. */
export interface Bundle {
  /** Its number in the file. */
  readonly index: number
  /** Empty when its bytes came with the directory. */
  readonly span: Span
  /** Extents that must be here to make use of it. */
  readonly bases: readonly Cid[]
}

export interface Source {
  readonly kind: 'frame' | 'delta'
  readonly path: string
  readonly fileBytes: number
  /** Undefined when the file does not have the extent, or needs what this node never had. */
  bundleOf(cid: Cid): Bundle | undefined
  /**
   * Those of `cids` that the bundle has, not yet verified.
   * @param stored the bytes of the bundle's span.
   * @throws EdgeError `PACK_INVALID`, `DELTA_INVALID`, `DELTA_BASE_ABSENT`
   */
  extentsOf(
    index: number,
    stored: Uint8Array,
    cids: readonly Cid[],
    readBase: ReadBase,
  ): AsyncIterable<BundledExtent>
}

export interface BundledExtent {
  readonly cid: Cid
  readonly bytes: Uint8Array
}

/** Verified bytes of an extent that is here. */
export type ReadBase = (cid: Cid, offset: number, length: number) => Promise<Uint8Array>

export interface PlanInput {
  readonly dataset: string
  readonly revision: number
  readonly wants: readonly Want[]
  readonly sources: readonly Source[]
  /** Deltas between older releases, the newest first: bases that are not here may come of them. */
  readonly helpers?: readonly Source[]
  holds(cid: Cid): boolean
  /** What of a file arrived earlier and was kept. */
  staged(path: string): readonly Span[]
  readonly cost: RequestCost
  /** False: whatever is asked of a file, all of it comes, and once is enough. True when absent. */
  readonly ranges?: boolean
  /** About so much of one file per batch: seconds of work. */
  readonly batchBytes: number
  /** At most so much per request. */
  readonly requestBytes: number
}

/** One bundle, and what is wanted of it. */
export interface Step {
  readonly source: Source
  readonly index: number
  readonly span: Span
  /** Its own bytes, and those of which some of its bases are made. */
  readonly loads?: ReadonlySet<Load>
  readonly wants: readonly Want[]
}

export interface FileRequests {
  readonly path: string
  readonly fileBytes: number
  readonly requests: readonly Span[]
}

export interface Batch {
  /** Names the work, not the attempt: the same steps have the same id. */
  readonly id: string
  readonly dataset: string
  readonly revision: number
  readonly priority: Want['priority']
  /** The highest among its extents. */
  readonly step: number
  readonly path: string
  readonly fileBytes: number
  readonly steps: readonly Step[]
  /** The range requests; sorted, disjoint, without what is staged. */
  readonly requests: readonly Span[]
  /** What must have come of helpers; whichever batch is first fetches it, and has it in its `wire`. */
  readonly helpers?: readonly FileRequests[]
  readonly wire: { readonly down: number; readonly up: number }
  /** Bytes of content that will be here afterwards. */
  readonly contentBytes: number
  readonly reason: 'catalog' | 'frame' | 'delta'
}

export interface FillPlan {
  readonly dataset: string
  readonly revision: number
  /** In the order in which they should run. */
  readonly batches: readonly Batch[]
  readonly wire: { readonly down: number; readonly up: number; readonly requests: number }
  readonly contentBytes: number
  readonly unobtainable: readonly Want[]
}

export const BATCH_BYTES = 2 * 1024 * 1024
/**
 * What one connection may lose to a kill or a cut is at most one request (I9). It costs 0.1 % in
 * headers; where a round trip is long, longer requests keep the link full.
 */
export const REQUEST_BYTES = 256 * 1024
/** Patches are tiny and may stand for much: what a batch writes is bounded, too. */
const CONTENT_BYTES_MAX = 32 * 1024 * 1024
const STEPS_MAX = 500

/** All datasets' batches by urgency; the order within a dataset stays. */
export function mergedBatches(plans: readonly FillPlan[]): Batch[] {
  return plans.flatMap(({ batches }) => batches).sort(byUrgency)
}

/** The order in which batches should run: classes, then value. */
function byUrgency(a: Pick<Batch, 'priority' | 'step'>, b: Pick<Batch, 'priority' | 'step'>): number {
  return a.priority - b.priority || (a.step === b.step ? 0 : b.step - a.step)
}

export function planFill(input: PlanInput): FillPlan {
  const wants = [...new Map(input.wants.map(want => [want.cid, want])).values()]
  const { taken, unobtainable } = chooseBundles(input, wants)
  const bill = new Bill(input)
  const helpers = new HelperRequests(input, taken, bill)
  const batches = batchesOf(input, taken).map(batch =>
    helpers.addTo({ ...batch, wire: bill.priceOf(batch, batch.requests) }),
  )
  const sum = (of: (batch: Batch) => number) => batches.reduce((total, batch) => total + of(batch), 0)
  return {
    dataset: input.dataset,
    revision: input.revision,
    batches,
    wire: {
      down: sum(batch => batch.wire.down),
      up: sum(batch => batch.wire.up),
      requests: bill.requests,
    },
    contentBytes: sum(batch => batch.contentBytes),
    unobtainable,
  }
}

/** What is asked for, and its price: each request once, or each file once where it comes whole. */
class Bill {
  requests = 0
  readonly #input: PlanInput
  readonly #asked = new Set<Span | string>()

  constructor(input: PlanInput) {
    this.#input = input
  }

  /** Of those among `requests` that were not asked for before. */
  priceOf(
    { path, fileBytes }: Pick<FileRequests, 'path' | 'fileBytes'>,
    requests: readonly Span[],
  ): Batch['wire'] {
    const { cost, ranges = true, staged } = this.#input
    const wire = { down: 0, up: 0 }
    for (const request of requests) {
      const asked = ranges ? request : path
      if (this.#asked.has(asked)) continue
      this.#asked.add(asked)
      this.requests++
      const [lacking] = ranges ? [request] : without([{ offset: 0, length: fileBytes }], staged(path))
      const priceOf = ranges
        ? wireOf(cost, path, request, fileBytes)
        : wholeWireOf(cost, path, lacking!.offset, fileBytes)
      wire.down += priceOf.down
      wire.up += priceOf.up
    }
    return wire
  }
}

/**
 * The requests for what helpers have: some of it is bases for several batches, or wanted itself, too.
 * Each is made once, and paid for by the first batch in the plan that needs it.
 */
class HelperRequests {
  readonly #files: readonly FileRequests[]
  readonly #bill: Bill

  constructor(input: PlanInput, steps: readonly Step[], bill: Bill) {
    const spans = spansBySource(steps)
    this.#bill = bill
    this.#files = (input.helpers ?? []).map(source => {
      const { path, fileBytes } = source
      return { path, fileBytes, requests: requestsFor(input, path, spans.get(source) ?? []) }
    })
  }

  addTo(batch: Batch): Batch {
    const spans = new Map(Array.from(spansBySource(batch.steps), ([{ path }, needed]) => [path, needed]))
    const wire = { ...batch.wire }
    const helpers = this.#files.flatMap(file => {
      const needed = joined(spans.get(file.path) ?? [])
      if (needed.length === 0) return []
      const own = file.requests.filter(request => bytesOf(without([request], needed)) < request.length)
      const { down, up } = this.#bill.priceOf(file, own)
      wire.down += down
      wire.up += up
      return [{ ...file, requests: own }]
    })
    return helpers.length > 0 ? { ...batch, helpers, wire } : batch
  }
}

/** What is lacking of `spans`. Fetching a gap may be cheaper than asking twice. */
function requestsFor(
  { staged, cost, requestBytes }: PlanInput,
  path: string,
  spans: readonly Span[],
): Span[] {
  const lacking = without(joined(spans), staged(path))
  return joined(lacking, cost.downBytes + cost.upBytes).flatMap(span => cut(span, requestBytes))
}

/** Everything that the steps take. */
function spansBySource(steps: readonly Step[]): Map<Source, Span[]> {
  const spans = new Map<Source, Span[]>()
  for (const { source, span } of new Set(steps.flatMap(({ loads = [] }) => [...loads]))) {
    const known = spans.get(source)
    if (known) known.push(span)
    else spans.set(source, [span])
  }
  return spans
}

function batchesOf(input: PlanInput, steps: readonly Step[]): Omit<Batch, 'wire'>[] {
  const groups = new Map<string, Step[]>()
  for (const step of steps) {
    const key = `${priorityOf([step])} ${valueStepOf([step])} ${step.source.path}`
    const group = groups.get(key)
    if (group) group.push(step)
    else groups.set(key, [step])
  }
  const batches: Omit<Batch, 'wire'>[] = []
  for (const group of groups.values()) {
    group.sort((a, b) => a.span.offset - b.span.offset)
    let open: Step[] = []
    let size = { wire: 0, content: 0 }
    for (const step of group) {
      const more = { wire: size.wire + step.span.length, content: size.content + contentOf([step]) }
      const isFull =
        more.wire > input.batchBytes || more.content > CONTENT_BYTES_MAX || open.length >= STEPS_MAX
      if (open.length > 0 && isFull) {
        batches.push(batchOf(input, open))
        open = []
        size = { wire: step.span.length, content: contentOf([step]) }
      } else size = more
      open.push(step)
    }
    batches.push(batchOf(input, open))
  }
  const order = new Map(batches.map(batch => [batch, orderOf(batch.steps)]))
  return batches.sort((a, b) => byUrgency(a, b) || order.get(a)! - order.get(b)!)
}

function batchOf(input: PlanInput, steps: readonly Step[]): Omit<Batch, 'wire'> {
  const { path, fileBytes, kind } = steps[0]!.source
  const { dataset, revision, helpers = [] } = input
  const own = helpers.includes(steps[0]!.source) ? [] : steps.map(({ span }) => span)
  const priority = priorityOf(steps)
  return {
    id: sha256Of([path, ...steps.map(step => step.wants.map(({ cid }) => cid).join(' '))].join('\n')).slice(
      0,
      32,
    ),
    dataset,
    revision,
    priority,
    step: valueStepOf(steps),
    path,
    fileBytes,
    steps,
    requests: requestsFor(input, path, own),
    contentBytes: contentOf(steps),
    reason: priority === -1 ? 'catalog' : kind,
  }
}

function contentOf(steps: readonly Step[]): number {
  let bytes = 0
  for (const { wants } of steps) for (const want of wants) bytes += want.sizeBytes
  return bytes
}

function priorityOf(steps: readonly Step[]): Want['priority'] {
  let lowest: Want['priority'] = 3
  for (const { wants } of steps) for (const { priority } of wants) if (priority < lowest) lowest = priority
  return lowest
}

function valueStepOf(steps: readonly Step[]): number {
  let highest = -Infinity
  for (const { wants } of steps) for (const { step } of wants) highest = Math.max(highest, step)
  return highest
}

function orderOf(steps: readonly Step[]): number {
  let lowest = Infinity
  for (const { wants } of steps) for (const { order } of wants) lowest = Math.min(lowest, order)
  return lowest
}
