/** What a fill may spend: a prefix of the plan, so that what arrives is what was promised first. */
import type { Batch } from './plan-fill.ts'

export interface FillLimits {
  /** Down and up, headers included. */
  readonly wireBytesMax?: number
  /** The last class that may be warmed; −1 for none, 3 for all. */
  readonly priorityMax?: -1 | 0 | 1 | 2 | 3
}

/** @param batches in the order in which they should run. */
export function withinLimits(
  batches: readonly Batch[],
  { wireBytesMax = Infinity, priorityMax = 3 }: FillLimits,
): { taken: Batch[]; deferred: Batch[] } {
  let wire = 0
  let first = 0
  for (; first < batches.length; first++) {
    const batch = batches[first]!
    wire += batch.wire.down + batch.wire.up
    if (wire > wireBytesMax || batch.priority > priorityMax) break
  }
  return { taken: batches.slice(0, first), deferred: batches.slice(first) }
}
