/**
 * Runs one batch of a plan: fetches what is not staged, rebuilds extents, hands them to the store,
 * which verifies each (I1). Running it again is free: what the store has is skipped, what is staged
 * is not fetched again (I8, I9). Decides nothing but what to do when somebody lied.
 */
import type { Cid } from '../manifests/cid.ts'
import { EdgeError, isEdgeError } from '../manifests/errors.ts'
import type { Abortable } from '../manifests/extent.ts'
import { ASKED_FOR, type ContentStore } from '../node/store/store.ts'
import { claimBundles } from './bundle-claims.ts'
import { leaseBuffer } from './buffer-pool.ts'
import { byHealth, reportUpstream } from './breaker.ts'
import { fetchSpans, type FetchTools } from './fetch-spans.ts'
import type { Batch, BundledExtent, Step, Want } from './plan-fill.ts'
import { joined, without } from './spans.ts'
import type { Span, Upstream } from './upstream.ts'

export type BatchStore = Pick<ContentStore, 'has' | 'admitExtent' | 'readRange'>

export interface BatchTools extends FetchTools {
  readonly store: BatchStore
  /** Somebody waits for it. */
  readonly urgent?: boolean
  /** Content bytes stored and wire bytes received, as they come. */
  readonly onProgress?: (progress: { readonly contentBytes: number; readonly wireBytes: number }) => void
}

const TOGETHER_BYTES = 4 * 1024 * 1024
const TOGETHER_MAX = 512

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
  using _mine = await claimBundles(
    tools.staged,
    batch.path,
    batch.steps.map(({ index }) => index),
    options,
  )
  const outcome = { contentBytes: 0, fallbacks: [] as { want: Want; why: string }[] }
  const open = () => batch.steps.flatMap(step => stillWanted(step, tools.store, outcome.fallbacks))
  let upstreams: readonly Upstream[] = byHealth(tools.upstreams)
  const hadBefore = tools.staged.spans(batch.path)
  let distrusted = hadBefore.length > 0

  for (let steps = open(); steps.length > 0; steps = open()) {
    await fetchHelpers(batch, { ...tools, upstreams }, options)
    await fetchFor(batch, steps, { ...tools, upstreams }, options)
    const wrong = await applySteps(steps, batch, tools, outcome, options)
    if (wrong.length === 0) break
    await tools.staged.discard(batch.path, joined(wrong.map(({ step }) => step.span)))
    // bytes kept from before a power cut may be wrong without anybody's fault: ask once more
    if (distrusted) distrusted = false
    else {
      if (upstreams[0]) reportUpstream(upstreams[0], 'lied')
      upstreams = upstreams.slice(1)
    }
    if (upstreams.length === 0) {
      const { step, error } = wrong[0]!
      throw new EdgeError('UPSTREAM_LIED', `${batch.path}: ${step.wants[0]!.why}: ${error.message}`, {
        cause: error,
      })
    }
  }
  // what helpers brought may be bases for others
  if (!batch.helpers?.some(({ path }) => path === batch.path))
    await tools.staged.drop(batch.path, joined([...batch.requests, ...batch.steps.map(({ span }) => span)]))
  return outcome
}

async function fetchFor(
  batch: Batch,
  steps: readonly Step[],
  tools: BatchTools,
  options: Abortable,
): Promise<void> {
  const needed = without(joined(steps.map(({ span }) => span)), tools.staged.spans(batch.path))
  if (needed.length === 0) return
  // the planned requests, as far as they are still of use; after a lie, just what is lacking
  const planned = batch.requests.filter(request => touches(request, needed))
  const requests = without(needed, joined(planned)).length === 0 ? planned : needed
  const purpose = { dataset: batch.dataset, reason: batch.reason }
  const onBytes = (wireBytes: number) => tools.onProgress?.({ contentBytes: 0, wireBytes })
  await fetchSpans(
    tools,
    {
      path: batch.path,
      fileBytes: batch.fileBytes,
      requests,
      purpose,
      onBytes,
      ...(tools.urgent ? { urgent: true } : {}),
    },
    options,
  )
}

/** Parts of older deltas, of which bases are made; several batches may need the same. */
async function fetchHelpers(batch: Batch, tools: BatchTools, options: Abortable): Promise<void> {
  const purpose = { dataset: batch.dataset, reason: batch.reason }
  for (const { path, fileBytes, requests } of batch.helpers ?? []) {
    using _mine = await claimBundles(
      tools.staged,
      `requests of ${path}`,
      requests.map(({ offset }) => offset),
      options,
    )
    const urgent = tools.urgent ? { urgent: true } : {}
    await fetchSpans(tools, { path, fileBytes, requests, purpose, ...urgent }, options)
  }
}

function touches(request: Span, needed: readonly Span[]): boolean {
  return needed.some(
    ({ offset, length }) => offset < request.offset + request.length && request.offset < offset + length,
  )
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
  for (const step of steps) {
    try {
      await applyStep(step, batch, tools, options, contentBytes => {
        outcome.contentBytes += contentBytes
        tools.onProgress?.({ contentBytes, wireBytes: 0 })
      })
    } catch (error) {
      options.signal.throwIfAborted()
      if (
        !isEdgeError(
          error,
          'PACK_INVALID',
          'DELTA_INVALID',
          'DELTA_BASE_ABSENT',
          'CHUNK_CORRUPT',
          'CHUNK_ABSENT',
        )
      )
        throw error
      if (step.source.kind === 'frame') wrong.push({ step, error })
      else {
        const left = step.wants.filter(({ cid }) => !tools.store.has(cid))
        outcome.fallbacks.push(...left.map(want => ({ want, why: error.message })))
      }
    }
  }
  return wrong
}

/** Tiny extents go into the store together, so that they share a sync of the disk; big ones alone. */
async function applyStep(
  { source, index, span, wants }: Step,
  { path }: Batch,
  { staged, store, urgent }: BatchTools,
  options: Abortable,
  stored: (contentBytes: number) => void,
): Promise<void> {
  const ruleOf = new Map(wants.map(({ cid, rule }) => [cid, rule]))
  const admit = async (extents: readonly BundledExtent[]) => {
    await Promise.all(
      extents.map(async ({ cid, bytes }) => {
        await store.admitExtent(cid, bytes, ruleOf.get(cid)!, urgent ? ASKED_FOR : 'fill')
        stored(bytes.length)
      }),
    )
  }
  let together: BundledExtent[] = []
  let bytes = 0
  const readBase = (cid: Cid, offset: number, length: number) => store.readRange(cid, offset, length, options)
  const contentBytes = wants.reduce((sum, { sizeBytes }) => sum + sizeBytes, 0)
  const isPlain = contentBytes <= span.length // then content is a view of what was staged
  using lease = await leaseBuffer(span.length, isPlain ? 0 : contentBytes)
  const bundle = await staged.read(path, span, lease.bytes)
  for await (const extent of source.extentsOf(
    index,
    bundle,
    wants.map(({ cid }) => cid),
    readBase,
  )) {
    options.signal.throwIfAborted()
    together.push(extent)
    bytes += extent.bytes.length
    if (bytes < TOGETHER_BYTES && together.length < TOGETHER_MAX) continue
    await admit(together)
    together = []
    bytes = 0
  }
  await admit(together)
}

function stillWanted(step: Step, store: BatchStore, fallbacks: readonly { want: Want }[]): Step[] {
  const failed = new Set(fallbacks.map(({ want }) => want.cid))
  const wants = step.wants.filter(({ cid }) => !store.has(cid) && !failed.has(cid))
  return wants.length > 0 ? [{ ...step, wants }] : []
}
