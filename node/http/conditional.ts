/**
 * Preconditions (RFC 9110 §13), in the precedence of §13.2.2. Pure: validators in, verdict out.
 *
 * Our entity tags are strong and come from the content's digest, so two equal tags are equal bytes
 * whatever revision they were taken from.
 */

export interface Validators {
  /** With its quotes. */
  readonly etag: string
  /**
   * Tags that begin so are of encodings of the very same content: whoever names one holds it, whichever
   * encoding would be chosen now.
   */
  readonly etagOfEncodings?: string | undefined
  /** Whole seconds. */
  readonly lastModifiedMs: number
}

export interface Preconditions {
  readonly ifMatch?: string | undefined
  readonly ifNoneMatch?: string | undefined
  readonly ifModifiedSince?: string | undefined
  readonly ifUnmodifiedSince?: string | undefined
}

export type Verdict = 'proceed' | 'not-modified' | 'failed'

/** For GET and HEAD, where a false `If-None-Match` or `If-Modified-Since` means 304. */
export function evaluate(conditions: Preconditions, validators: Validators): Verdict {
  const { ifMatch, ifNoneMatch, ifModifiedSince, ifUnmodifiedSince } = conditions
  if (ifMatch !== undefined) {
    if (matchedTag(ifMatch, validators, 'strong') === undefined) return 'failed'
  } else if (ifUnmodifiedSince !== undefined) {
    const date = parseHttpDate(ifUnmodifiedSince)
    if (date !== undefined && validators.lastModifiedMs > date) return 'failed'
  }

  if (ifNoneMatch !== undefined) {
    if (matchedTag(ifNoneMatch, validators, 'weak') !== undefined) return 'not-modified'
  } else if (ifModifiedSince !== undefined) {
    const date = parseHttpDate(ifModifiedSince)
    if (date !== undefined && validators.lastModifiedMs <= date) return 'not-modified'
  }
  return 'proceed'
}

/**
 * Whether `If-Range` lets the range through (§13.1.5): the same strong tag, or exactly our date
 * where it is old enough to be a strong validator (§8.8.2.2: at least a minute before now).
 */
export function rangeStillValid(ifRange: string, validators: Validators, nowMs: number): boolean {
  const text = ifRange.trim()
  if (text.startsWith('"')) return text === validators.etag
  if (text.startsWith('W/')) return false
  return parseHttpDate(text) === validators.lastModifiedMs && nowMs - validators.lastModifiedMs >= 60_000
}

/**
 * The tag of ours that the field names; the item's own for `*`.
 * @param field `*` or a list of entity tags; what is not a tag is skipped.
 */
export function matchedTag(
  field: string,
  { etag, etagOfEncodings }: Validators,
  comparison: 'strong' | 'weak',
): string | undefined {
  if (field === etag || field.trim() === '*') return etag
  for (const [, weak, tag = ''] of field.matchAll(/(W\/)?("[\x21\x23-\x7e\x80-\xff]*")/g)) {
    if (comparison === 'strong' && weak !== undefined) continue
    if (tag === etag || (etagOfEncodings !== undefined && tag.startsWith(etagOfEncodings))) return tag
  }
  return undefined
}

const HTTP_DATE =
  /^(?:(?:Mon|Tue|Wed|Thu|Fri|Sat|Sun), \d{2} [A-Z][a-z]{2} \d{4} \d{2}:\d{2}:\d{2} GMT|(?:Mon|Tues|Wednes|Thurs|Fri|Satur|Sun)day, \d{2}-[A-Z][a-z]{2}-\d{2} \d{2}:\d{2}:\d{2} GMT|(?:Mon|Tue|Wed|Thu|Fri|Sat|Sun) [A-Z][a-z]{2} [ \d]\d \d{2}:\d{2}:\d{2} \d{4})$/

/** The three forms of §5.6.7; anything else is undefined, and its precondition is ignored. */
export function parseHttpDate(text: string): number | undefined {
  const trimmed = text.trim()
  if (!HTTP_DATE.test(trimmed)) return undefined
  const date = Date.parse(trimmed.endsWith('GMT') ? trimmed : `${trimmed} GMT`)
  return Number.isNaN(date) ? undefined : date
}
