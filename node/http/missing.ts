/**
 * What of the asked-for ranges is not here, and whether it can be had.
 */
import type { ByteRange } from '../../manifests/extent.ts'
import type { OpenItem } from '../library.ts'

/** Of all `ranges` together; the slower tier counts. */
export function residencyOf(item: OpenItem, ranges: readonly ByteRange[]): ReturnType<OpenItem['residency']> {
  if (ranges.length === 1) return item.residency(ranges[0]!)
  const all = ranges.map(range => item.residency(range))
  const states = new Set(all.map(({ state }) => state))
  const [only] = states
  const state = states.size === 1 && only ? only : 'partial'
  return { state, tier: all.some(({ tier }) => tier === 'warm') ? 'warm' : (all[0]?.tier ?? null) }
}

/** So long a client waits for what is fetched now, before it is told to come again. */
const BRING_MS = 20_000

/**
 * Has what `ranges` miss fetched, if a link may be used for it; else the first missing byte's chunk
 * from wherever it can be had.
 * @throws EdgeError as `recover`.
 */
export async function fetchFirstMissing(
  item: OpenItem,
  ranges: readonly ByteRange[],
  signal: AbortSignal,
): Promise<void> {
  await bringAll(item, ranges, signal)
  const range = ranges.find(each => item.residency(each).state !== 'present')
  if (!range) return
  let { first: from, last: to } = range
  while (from < to) {
    const middle = from + Math.floor((to - from) / 2)
    if (item.residency({ first: range.first, last: middle }).state === 'present') from = middle + 1
    else to = middle
  }
  for (const slice of item.slices({ first: from, last: from })) await item.recover(slice, { signal })
}

/** What cannot be brought may still be recovered: that is found out afterwards. */
async function bringAll(item: OpenItem, ranges: readonly ByteRange[], gone: AbortSignal): Promise<void> {
  const signal = AbortSignal.any([gone, AbortSignal.timeout(BRING_MS)])
  for (const range of ranges) {
    try {
      await item.bring?.(range, { signal })
    } catch {
      gone.throwIfAborted()
      return
    }
  }
}
