/**
 * `Range` requests (RFC 9110 §14): from the field's text to the ranges to send. Pure.
 *
 * A field that we cannot read, another unit, or more than `RANGES_MAX` ranges is ignored, as the RFC
 * allows: the answer is the whole item, never more work than that. Overlapping and adjacent ranges
 * are joined, so no byte is sent twice.
 */
import type { ByteRange } from '../../manifests/extent.ts'

export const RANGES_MAX = 16
/** Sixteen ranges of two 16-digit numbers fit twice. */
const FIELD_CHARACTERS_MAX = 1_200

/** `whole`: ignore the field; `outside`: 416; else 1 to `RANGES_MAX` ranges, clamped, without overlap. */
export type RangePlan = 'whole' | 'outside' | readonly ByteRange[]

export function planRanges(field: string, sizeBytes: number): RangePlan {
  const specs = parseSpecs(field)
  if (!specs) return 'whole'

  const ranges: ByteRange[] = []
  for (const { first, last } of specs) {
    if (first === undefined) {
      if (last > 0 && sizeBytes > 0)
        ranges.push({ first: Math.max(sizeBytes - last, 0), last: sizeBytes - 1 })
    } else if (first < sizeBytes) {
      ranges.push({ first, last: Math.min(last, sizeBytes - 1) })
    }
  }
  return ranges.length === 0 ? 'outside' : joined(ranges)
}

/** `first` undefined: a suffix of `last` bytes; `last` infinite: open. */
interface Spec {
  readonly first: number | undefined
  readonly last: number
}

function parseSpecs(field: string): Spec[] | undefined {
  if (field.length > FIELD_CHARACTERS_MAX) return undefined
  const unit = /^bytes[ \t]*=/i.exec(field)
  if (!unit) return undefined

  const specs: Spec[] = []
  for (const text of field.slice(unit[0].length).split(',')) {
    const trimmed = text.trim()
    if (trimmed === '') continue // RFC 9110 §5.6.1.2: empty list elements are skipped
    const match = /^(\d{0,16})-(\d{0,16})$/.exec(trimmed)
    if (!match || trimmed === '-') return undefined

    const [, from = '', to = ''] = match
    const spec =
      from === ''
        ? { first: undefined, last: Number(to) }
        : { first: Number(from), last: to === '' ? Number.POSITIVE_INFINITY : Number(to) }
    if (spec.first !== undefined && spec.last < spec.first) return undefined
    specs.push(spec)
    if (specs.length > RANGES_MAX) return undefined
  }
  return specs.length === 0 ? undefined : specs
}

/** In the order asked for where nothing overlaps or touches; else sorted and joined. */
function joined(ranges: ByteRange[]): ByteRange[] {
  if (ranges.length === 1) return ranges
  const sorted = ranges.toSorted((a, b) => a.first - b.first)
  const merged: { first: number; last: number }[] = []
  for (const { first, last } of sorted) {
    const before = merged.at(-1)
    if (before && first <= before.last + 1) before.last = Math.max(before.last, last)
    else merged.push({ first, last })
  }
  return merged.length === ranges.length ? ranges : merged
}

/** `bytes 0-99/200`. */
export function contentRange({ first, last }: ByteRange, sizeBytes: number): string {
  return `bytes ${first}-${last}/${sizeBytes}`
}
