/**
 * The planner of one dataset's fill: which bytes of which files, in which order, and why.
 *
 * Pure. For every extent that is wanted it takes the cheaper of its patch (when the bases are
 * here) and its full frame, counting a frame once however many extents come out of it. What is
 * planned is exact: file sizes and places are signed, the rest of the wire is measured (`cost`).
 * An extent that no source has ends up in `unobtainable`; it is never silently dropped.
 */
import type { Cid } from '../manifests/cid.ts'
import type { ChunkRule } from '../manifests/extent.ts'
import { sha256Of } from '../manifests/digest.ts'
import { bytesOf, joined, without } from './spans.ts'
import { wireOf, type RequestCost, type Span } from './upstream.ts'

export interface Want {
  readonly cid: Cid
  /** Bytes of content. */
  readonly sizeBytes: number
  readonly rule: ChunkRule
  /** P0 to P3; −1 is the catalog, without which nothing else can be named. */
  readonly priority: -1 | 0 | 1 | 2 | 3
  /** Smaller comes first among equals; the place in the catalog. */
  readonly order: number
  /** For people: the item, and what wants it. */
  readonly why: string
}

export interface PackSource {
  readonly path: string
  readonly fileBytes: number
  frameOf(cid: Cid): { readonly index: number; readonly span: Span } | undefined
  /**
   * Those of `cids` that the frame has, not yet verified.
   * @throws EdgeError `PACK_INVALID`
   */
  extentsOf(frame: number, stored: Uint8Array, cids: readonly Cid[]): Promise<ReadonlyMap<Cid, Uint8Array>>
}

export interface DeltaSource {
  readonly path: string
  readonly fileBytes: number
  /** What rebuilds the extent: the places of its patches, in order, and the extents they need. */
  recipeOf(cid: Cid): { readonly spans: readonly Span[]; readonly bases: readonly Cid[] } | undefined
  /** The extent, not yet verified. @throws EdgeError `DELTA_INVALID`, `DELTA_BASE_ABSENT` */
  rebuild(cid: Cid, readPatch: ReadPatch, readBase: ReadBase): Promise<Uint8Array>
}

/** Bytes of the delta's file. */
export type ReadPatch = (offset: number, length: number) => Promise<Uint8Array>
/** Verified bytes of an extent that is here. */
export type ReadBase = (cid: Cid, offset: number, length: number) => Promise<Uint8Array>

export interface PlanInput {
  readonly dataset: string
  readonly revision: number
  readonly wants: readonly Want[]
  readonly packs: readonly PackSource[]
  readonly deltas: readonly DeltaSource[]
  holds(cid: Cid): boolean
  /** What of a file arrived earlier and was kept. */
  staged(path: string): readonly Span[]
  readonly cost: RequestCost
  /** About so much of one file per batch: seconds of work. */
  readonly batchBytes: number
  /** At most so much per request. */
  readonly requestBytes: number
}

export type Step =
  | { readonly kind: 'frame'; readonly pack: PackSource; readonly frame: number; readonly span: Span; readonly wants: readonly Want[] }
  | { readonly kind: 'delta'; readonly delta: DeltaSource; readonly spans: readonly Span[]; readonly wants: readonly [Want] }

export interface Batch {
  /** Names the work, not the attempt: the same steps have the same id. */
  readonly id: string
  readonly dataset: string
  readonly revision: number
  readonly priority: Want['priority']
  readonly path: string
  readonly fileBytes: number
  readonly steps: readonly Step[]
  /** The range requests; sorted, disjoint, without what is staged. */
  readonly requests: readonly Span[]
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

export function planFill(input: PlanInput): FillPlan {
  const wants = [...new Map(input.wants.map(want => [want.cid, want])).values()]
  const plans = [planWith(input, wants, 'cheaper'), planWith(input, wants, 'frames')]
  return plans.reduce((best, plan) => (costOf(plan) < costOf(best) ? plan : best))
}

function costOf({ wire, unobtainable }: FillPlan): number {
  return unobtainable.length * 2 ** 40 + wire.down + wire.up
}

function planWith(input: PlanInput, wants: readonly Want[], prefer: 'cheaper' | 'frames'): FillPlan {
  const { steps, unobtainable } = chooseSteps(input, wants, prefer)
  const batches = batchesOf(input, steps)
  const sum = (of: (batch: Batch) => number) => batches.reduce((total, batch) => total + of(batch), 0)
  return {
    dataset: input.dataset,
    revision: input.revision,
    batches,
    wire: { down: sum(batch => batch.wire.down), up: sum(batch => batch.wire.up), requests: sum(batch => batch.requests.length) },
    contentBytes: sum(batch => batch.contentBytes),
    unobtainable,
  }
}

/** An extent lies in one frame; a frame is fetched whole, so its extents are decided together. */
function chooseSteps(input: PlanInput, wants: readonly Want[], prefer: 'cheaper' | 'frames'): { steps: Step[]; unobtainable: Want[] } {
  const steps: Step[] = []
  const unobtainable: Want[] = []
  const frames = new Map<string, { pack: PackSource; frame: number; span: Span; wants: Want[]; patches: (DeltaStep | undefined)[] }>()
  for (const want of wants) {
    const patch = cheapestPatch(input, want)
    const found = frameFor(input, want)
    if (found) {
      const key = `${found.pack.path} ${found.frame}`
      const group = frames.get(key) ?? { ...found, wants: [], patches: [] }
      group.wants.push(want)
      group.patches.push(patch)
      frames.set(key, group)
    } else if (patch) steps.push(patch)
    else unobtainable.push(want)
  }
  for (const { pack, frame, span, wants: inside, patches } of frames.values()) {
    const known = patches.filter(patch => patch !== undefined)
    const frameBytes = bytesOf(without([span], input.staged(pack.path)))
    const byPatch = known.length === inside.length && prefer === 'cheaper' && known.reduce((sum, patch) => sum + patchBytes(input, patch), 0) <= frameBytes
    if (byPatch) steps.push(...known)
    else steps.push({ kind: 'frame', pack, frame, span, wants: inside })
  }
  return { steps, unobtainable }
}

type DeltaStep = Extract<Step, { kind: 'delta' }>

function cheapestPatch(input: PlanInput, want: Want): DeltaStep | undefined {
  let best: DeltaStep | undefined
  for (const delta of input.deltas) {
    const recipe = delta.recipeOf(want.cid)
    if (!recipe || !recipe.bases.every(base => input.holds(base))) continue
    const step: DeltaStep = { kind: 'delta', delta, spans: recipe.spans, wants: [want] }
    if (!best || patchBytes(input, step) < patchBytes(input, best)) best = step
  }
  return best
}

function patchBytes(input: PlanInput, { delta, spans }: DeltaStep): number {
  return bytesOf(without(joined(spans), input.staged(delta.path)))
}

function frameFor(input: PlanInput, want: Want): { pack: PackSource; frame: number; span: Span } | undefined {
  let best: { pack: PackSource; frame: number; span: Span } | undefined
  for (const pack of input.packs) {
    const frame = pack.frameOf(want.cid)
    if (frame && (!best || frame.span.length < best.span.length)) best = { pack, frame: frame.index, span: frame.span }
  }
  return best
}

function batchesOf(input: PlanInput, steps: readonly Step[]): Batch[] {
  const groups = new Map<string, Step[]>()
  for (const step of steps) {
    const key = `${priorityOf([step])} ${fileOf(step).path}`
    const group = groups.get(key)
    if (group) group.push(step)
    else groups.set(key, [step])
  }
  const batches: Batch[] = []
  for (const group of groups.values()) {
    group.sort((a, b) => startOf(a) - startOf(b))
    let open: Step[] = []
    let size = { wire: 0, content: 0 }
    for (const step of group) {
      const more = { wire: size.wire + bytesOf(spansOf(step)), content: size.content + contentOf([step]) }
      const isFull = more.wire > input.batchBytes || more.content > CONTENT_BYTES_MAX || open.length >= STEPS_MAX
      if (open.length > 0 && isFull) {
        batches.push(batchOf(input, open))
        open = []
        size = { wire: bytesOf(spansOf(step)), content: contentOf([step]) }
      } else size = more
      open.push(step)
    }
    batches.push(batchOf(input, open))
  }
  const order = new Map(batches.map(batch => [batch, orderOf(batch.steps)]))
  return batches.sort((a, b) => a.priority - b.priority || order.get(a)! - order.get(b)!)
}

function batchOf(input: PlanInput, steps: readonly Step[]): Batch {
  const { path, fileBytes } = fileOf(steps[0]!)
  const { cost } = input
  const lacking = without(joined(steps.flatMap(spansOf)), input.staged(path))
  // fetching a gap may be cheaper than asking twice
  const requests = joined(lacking, cost.downBytes + cost.upBytes).flatMap(span => cut(span, input.requestBytes))
  const wire = requests
    .map(span => wireOf(cost, path, span, fileBytes))
    .reduce((sum, { down, up }) => ({ down: sum.down + down, up: sum.up + up }), { down: 0, up: 0 })
  const priority = priorityOf(steps)
  const { dataset, revision } = input
  return {
    id: sha256Of([path, ...steps.map(step => step.wants.map(({ cid }) => cid).join(' '))].join('\n')).slice(0, 32),
    dataset,
    revision,
    priority,
    path,
    fileBytes,
    steps,
    requests,
    wire,
    contentBytes: contentOf(steps),
    reason: priority === -1 ? 'catalog' : steps[0]!.kind,
  }
}

function cut({ offset, length }: Span, bytesMax: number): Span[] {
  const parts: Span[] = []
  for (let at = 0; at < length; at += bytesMax) parts.push({ offset: offset + at, length: Math.min(bytesMax, length - at) })
  return parts
}

function fileOf(step: Step): { path: string; fileBytes: number } {
  return step.kind === 'frame' ? step.pack : step.delta
}

export function spansOf(step: Step): readonly Span[] {
  return step.kind === 'frame' ? [step.span] : step.spans
}

function startOf(step: Step): number {
  return spansOf(step)[0]?.offset ?? 0
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

function orderOf(steps: readonly Step[]): number {
  let lowest = Infinity
  for (const { wants } of steps) for (const { order } of wants) lowest = Math.min(lowest, order)
  return lowest
}
