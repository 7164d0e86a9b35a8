/**
 * What of the asked-for ranges is not here, and whether it can be had.
 */
import type { ByteRange } from '../../manifests/extent.ts'
import type { ChunkSlice, OpenItem } from '../library.ts'

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
 * Has the first byte that `ranges` miss fetched, if a link may be used for it; else its chunk from
 * wherever it can be had. Several ranges are fetched whole.
 * @throws EdgeError as `recover`.
 */
export async function fetchFirstMissing(
  item: OpenItem,
  ranges: readonly ByteRange[],
  signal: AbortSignal,
): Promise<void> {
  const [only, ...more] = ranges
  if (more.length > 0) await bringAll(item, ranges, signal)
  else if (only && (await isBrought(item, firstMissing(item, only), signal))) return
  const range = ranges.find(each => item.residency(each).state !== 'present')
  if (!range) return
  const first = firstMissing(item, range)
  for (const slice of item.slices({ first, last: first })) await item.recover(slice, { signal })
}

/**
 * What `range` is sent from while some of it is still coming: slices of what is here, and promises
 * of what is not, each of bytes that came ahead of their extent or of none, when that is here to be read.
 */
export function* comingSteps(
  item: OpenItem,
  { first, last }: ByteRange,
): Generator<ChunkSlice | Promise<Buffer | undefined>> {
  const left = new AbortController()
  try {
    for (let at = first; at <= last; ) {
      if (item.bringFrom && item.residency({ first: at, last: at }).state !== 'present') {
        let early: Buffer | undefined
        const room = last + 1 - at
        // what cannot be brought may still be recovered: that is found out when it is read
        const coming = item.bringFrom(at, left).catch(() => undefined)
        yield coming.then(bytes => (early = bytes?.subarray(0, room)))
        if (early) {
          at += early.length
          continue
        }
      }
      const from = at
      try {
        for (const slice of extentSlices(item, { first: at, last })) {
          yield slice
          at += slice.to - slice.from
        }
      } catch (error) {
        if (at === from) throw error // else the next extent is not here yet
      }
    }
  } finally {
    left.abort(new Error('nobody waits for it any more'))
  }
}

/** Up to the end of the first extent. */
function* extentSlices(item: OpenItem, range: ByteRange): Generator<ChunkSlice> {
  let extent: ChunkSlice['extent'] | undefined
  for (const slice of item.slices(range)) {
    extent ??= slice.extent
    if (slice.extent !== extent) return
    yield slice
  }
}

function firstMissing(item: OpenItem, range: ByteRange): number {
  let { first: from, last: to } = range
  while (from < to) {
    const middle = from + Math.floor((to - from) / 2)
    if (item.residency({ first: range.first, last: middle }).state === 'present') from = middle + 1
    else to = middle
  }
  return from
}

/** @returns whether it came; what cannot be brought may still be recovered. */
async function isBrought(item: OpenItem, at: number, gone: AbortSignal): Promise<boolean> {
  if (!item.bringFrom) return false
  try {
    await item.bringFrom(at, { signal: AbortSignal.any([gone, AbortSignal.timeout(BRING_MS)]) })
    return true
  } catch {
    gone.throwIfAborted()
    return false
  }
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
