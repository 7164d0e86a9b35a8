/** A plan for people and programs: how many bytes, of what, and why. */
import type { Batch, FillPlan } from './plan-fill.ts'
import type { RequestCost } from './upstream.ts'

export interface WireBytes {
  readonly down: number
  readonly up: number
  readonly requests: number
}

export interface DatasetPlan {
  readonly dataset: string
  readonly revision: number
  readonly extents: number
  /** Bytes of content that will be here afterwards and are not now. */
  readonly contentBytes: number
  readonly wire: WireBytes
  readonly byReason: Readonly<
    Record<
      Batch['reason'],
      { readonly extents: number; readonly contentBytes: number; readonly down: number }
    >
  >
  /** Extents that no source has. */
  readonly unobtainable: number
}

export interface PlanReport {
  readonly datasets: readonly DatasetPlan[]
  readonly contentBytes: number
  /** What filling will put on the wire from here on: content, connections, and asking what is new. */
  readonly wire: WireBytes
  /** Of `wire`: asking. */
  readonly refresh: WireBytes
  /** What planning itself put on the wire, and needs not be fetched again. */
  readonly spent: WireBytes
}

export function planReport(
  plans: readonly FillPlan[],
  idle: { down: number; up: number } | undefined,
  spent: WireBytes,
  cost?: RequestCost,
): PlanReport {
  const datasets = plans.map(datasetPlan)
  const content = datasets.reduce((sum, { wire }) => added(sum, wire), { down: 0, up: 0, requests: 0 })
  const refresh = { down: idle?.down ?? 0, up: idle?.up ?? 0, requests: idle ? 2 : 0 }
  return {
    datasets,
    contentBytes: datasets.reduce((sum, { contentBytes }) => sum + contentBytes, 0),
    wire: added(added(content, refresh), connectionsFor(content.requests, cost)),
    refresh,
    spent,
  }
}

/** Beside the first, which asking what is new has opened, and whose bytes count as asking. */
export function connectionsFor(requests: number, cost: RequestCost | undefined): WireBytes {
  const more = Math.max(0, Math.min(requests, cost?.connectionsMax ?? 1) - 1)
  const { connectDownBytes = 0, connectUpBytes = 0 } = cost ?? {}
  return { down: more * connectDownBytes, up: more * connectUpBytes, requests: 0 }
}

function datasetPlan({
  dataset,
  revision,
  batches,
  wire,
  contentBytes,
  unobtainable,
}: FillPlan): DatasetPlan {
  const none = () => ({ extents: 0, contentBytes: 0, down: 0 })
  const byReason = { catalog: none(), delta: none(), frame: none() }
  for (const batch of batches) {
    const sum = byReason[batch.reason]
    sum.extents += extentsOf(batch)
    sum.contentBytes += batch.contentBytes
    sum.down += batch.wire.down
  }
  const extents = batches.reduce((sum, batch) => sum + extentsOf(batch), 0)
  return { dataset, revision, extents, contentBytes, wire, byReason, unobtainable: unobtainable.length }
}

function extentsOf({ steps }: Batch): number {
  return steps.reduce((sum, { wants }) => sum + wants.length, 0)
}

export function added(a: WireBytes, b: WireBytes): WireBytes {
  return { down: a.down + b.down, up: a.up + b.up, requests: a.requests + b.requests }
}
