/** Arithmetic of byte spans: sorted, disjoint lists of them are what a file has or lacks. */
import type { Span } from './upstream.ts'

/** The same bytes as few sorted spans; gaps of at most `bridgeBytes` are closed. */
export function joined(spans: readonly Span[], bridgeBytes = 0): Span[] {
  const sorted = spans.filter(span => span.length > 0).sort((a, b) => a.offset - b.offset)
  const result: { offset: number; length: number }[] = []
  for (const { offset, length } of sorted) {
    const last = result.at(-1)
    if (last && offset <= last.offset + last.length + bridgeBytes) {
      last.length = Math.max(last.length, offset + length - last.offset)
    } else result.push({ offset, length })
  }
  return result
}

/** What of `spans` is not in `held`; both sorted and disjoint. */
export function without(spans: readonly Span[], held: readonly Span[]): Span[] {
  const left: Span[] = []
  let at = 0
  for (const { offset, length } of spans) {
    let from = offset
    const end = offset + length
    while (at < held.length && held[at]!.offset + held[at]!.length <= from) at++
    for (let i = at; i < held.length && held[i]!.offset < end; i++) {
      const here = held[i]!
      if (here.offset > from) left.push({ offset: from, length: here.offset - from })
      from = Math.max(from, here.offset + here.length)
    }
    if (from < end) left.push({ offset: from, length: end - from })
  }
  return left
}

export function bytesOf(spans: readonly Span[]): number {
  return spans.reduce((sum, span) => sum + span.length, 0)
}

/** In pieces of at most `bytesMax`. */
export function cut({ offset, length }: Span, bytesMax: number): Span[] {
  if (length <= bytesMax) return [{ offset, length }]
  const parts: Span[] = []
  for (let at = 0; at < length; at += bytesMax)
    parts.push({ offset: offset + at, length: Math.min(bytesMax, length - at) })
  return parts
}
