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

/**
 * Has the first missing byte's chunk brought here, wherever `ranges` miss one.
 * @throws EdgeError as `recover`.
 */
export async function fetchFirstMissing(
  item: OpenItem,
  ranges: readonly ByteRange[],
  signal: AbortSignal,
): Promise<void> {
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
