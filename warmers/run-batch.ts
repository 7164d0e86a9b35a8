/**
 * Runs one batch of a plan: fetches what is not staged, rebuilds extents, hands them to the store,
 * which verifies each (I1). Running it again is free: what the store has is skipped, what is staged
 * is not fetched again (I8, I9). Decides nothing but what to do when somebody lied.
 */
import { EdgeError, isEdgeError } from '../manifests/errors.ts'
import type { Abortable } from '../manifests/extent.ts'
import type { ContentStore } from '../node/store/store.ts'
import { fetchSpans, type FetchTools } from './fetch-spans.ts'
import { spansOf, type Batch, type Step, type Want } from './plan-fill.ts'
import { joined, without } from './spans.ts'

export type BatchStore = Pick<ContentStore, 'has' | 'admitExtent' | 'readRange'>

export interface BatchTools extends FetchTools {
  readonly store: BatchStore
  /** Content bytes stored and wire bytes received, as they come. */
  readonly onProgress?: (progress: { readonly contentBytes: number; readonly wireBytes: number }) => void
}

export interface BatchResult {
  readonly contentBytes: number
  /** What its patch did not yield: full frames are needed for these. */
  readonly fallbacks: readonly { readonly want: Want; readonly why: string }[]
}

/**
 * @throws EdgeError `UPSTREAM_…` when no upstream gave the right bytes, `STORE_…` when the store
 * did not take them. What was stored stays stored.
 */
export async function runBatch(batch: Batch, tools: BatchTools, options: Abortable): Promise<BatchResult> {
  const outcome = { contentBytes: 0, fallbacks: [] as { want: Want; why: string }[] }
  const open = () => batch.steps.flatMap(step => stillWanted(step, tools.store, outcome.fallbacks))
  let upstreams = tools.upstreams
  const hadBefore = tools.staged.spans(batch.path)
  let distrusted = hadBefore.length > 0

  for (let steps = open(); steps.length > 0; steps = open()) {
    await fetchFor(batch, steps, { ...tools, upstreams }, options)
    const wrong = await applySteps(steps, batch, tools, outcome, options)
    if (wrong.length === 0) break
    await tools.staged.drop(batch.path, joined(wrong.flatMap(({ step }) => spansOf(step))))
    // bytes kept from before a power cut may be wrong without anybody's fault: ask once more
    if (distrusted) distrusted = false
    else upstreams = upstreams.slice(1)
    if (upstreams.length === 0) {
      const { step, error } = wrong[0]!
      throw new EdgeError('UPSTREAM_LIED', `${batch.path}: ${step.wants[0]!.why}: ${error.message}`, { cause: error })
    }
  }
  await tools.staged.drop(batch.path, joined([...batch.requests, ...batch.steps.flatMap(spansOf)]))
  return outcome
}

async function fetchFor(batch: Batch, steps: readonly Step[], tools: BatchTools, options: Abortable): Promise<void> {
  const needed = without(joined(steps.flatMap(spansOf)), tools.staged.spans(batch.path))
  if (needed.length === 0) return
  // the planned requests, as far as they are still of use; after a lie, just what is lacking
  const planned = batch.requests.filter(request => without([request], needed).length === 0 || touches(request, needed))
  const requests = without(needed, joined(planned)).length === 0 ? planned : needed
  const purpose = { dataset: batch.dataset, reason: batch.reason }
  const onBytes = (wireBytes: number) => tools.onProgress?.({ contentBytes: 0, wireBytes })
  await fetchSpans(tools, { path: batch.path, fileBytes: batch.fileBytes, requests, purpose, onBytes }, options)
}

function touches(request: { offset: number; length: number }, needed: readonly { offset: number; length: number }[]): boolean {
  return needed.some(({ offset, length }) => offset < request.offset + request.length && request.offset < offset + length)
}

/** @returns the frames whose bytes were not what they should be. */
async function applySteps(
  steps: readonly Step[],
  batch: Batch,
  tools: BatchTools,
  outcome: { contentBytes: number; fallbacks: { want: Want; why: string }[] },
  options: Abortable,
): Promise<{ step: Step; error: EdgeError }[]> {
  const wrong: { step: Step; error: EdgeError }[] = []
  for (const group of inGroups(steps)) {
    options.signal.throwIfAborted()
    await Promise.all(
      group.map(async step => {
        try {
          await applyStep(step, batch, tools, options)
          const contentBytes = step.wants.reduce((sum, want) => sum + want.sizeBytes, 0)
          outcome.contentBytes += contentBytes
          tools.onProgress?.({ contentBytes, wireBytes: 0 })
        } catch (error) {
          if (!isEdgeError(error, 'PACK_INVALID', 'DELTA_INVALID', 'DELTA_BASE_ABSENT', 'CHUNK_CORRUPT', 'CHUNK_ABSENT')) throw error
          if (step.kind === 'delta') outcome.fallbacks.push({ want: step.wants[0], why: error.message })
          else wrong.push({ step, error })
        }
      }),
    )
  }
  return wrong
}

async function applyStep(step: Step, batch: Batch, { staged, store }: BatchTools, options: Abortable): Promise<void> {
  if (step.kind === 'delta') {
    const [want] = step.wants
    const bytes = await step.delta.rebuild(
      want.cid,
      (offset, length) => staged.read(batch.path, { offset, length }),
      (cid, offset, length) => store.readRange(cid, offset, length, options),
    )
    return await store.admitExtent(want.cid, bytes, want.rule, 'fill')
  }
  const stored = await staged.read(batch.path, step.span)
  const extents = await step.pack.extentsOf(step.frame, stored, step.wants.map(({ cid }) => cid))
  await Promise.all(
    step.wants.map(async ({ cid, rule }) => {
      const bytes = extents.get(cid)
      if (!bytes) throw new EdgeError('PACK_INVALID', `${batch.path}: frame ${step.frame} does not have ${cid}`)
      await store.admitExtent(cid, bytes, rule, 'fill')
    }),
  )
}

function stillWanted(step: Step, store: BatchStore, fallbacks: readonly { want: Want }[]): Step[] {
  const wants = step.wants.filter(({ cid }) => !store.has(cid) && !fallbacks.some(({ want }) => want.cid === cid))
  if (wants.length === 0) return []
  return [step.kind === 'delta' ? step : { ...step, wants }]
}

/** A few steps at a time: tiny ones share a sync of the disk, big ones stay within memory. */
function* inGroups(steps: readonly Step[]): Generator<readonly Step[]> {
  const GROUP_BYTES = 8 * 1024 * 1024
  let group: Step[] = []
  let bytes = 0
  for (const step of steps) {
    group.push(step)
    bytes += step.wants.reduce((sum, want) => sum + want.sizeBytes, 0)
    if (bytes < GROUP_BYTES) continue
    yield group
    group = []
    bytes = 0
  }
  if (group.length > 0) yield group
}
