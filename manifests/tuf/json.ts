/**
 * Untrusted JSON to checked values, and values to the canonical form that signatures cover.
 *
 * Everything here is linear in its input and bounded: nesting beyond 32 levels, bytes that are not
 * UTF-8, and values of the wrong shape are refused with `TRUST_INVALID`. Fields that we do not know
 * stay in place, because signatures cover them (TUF 4.1).
 */
import { canonicalize } from '@tufjs/canonical-json'
import { EdgeError } from '../errors.ts'

export type JsonObject = { readonly [key: string]: unknown }

/** Canonicalising joins the text once per level, so depth has to be bounded to stay linear. */
const NESTING_MAX = 32
const decoder = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true })

/** @throws EdgeError `TRUST_INVALID` unless `bytes` are UTF-8 JSON of moderate depth. */
export function parseJson(bytes: Uint8Array, what: string): unknown {
  if (nestingOf(bytes) > NESTING_MAX) throw invalid(what, `nested deeper than ${NESTING_MAX} levels`)
  try {
    return JSON.parse(decoder.decode(bytes))
  } catch (cause) {
    throw new EdgeError('TRUST_INVALID', `${what}: not JSON in UTF-8`, { cause })
  }
}

/** OLPC canonical JSON: what every TUF client hashes and signs. */
export function canonicalBytes(value: unknown): Buffer {
  try {
    return Buffer.from(canonicalize(value), 'utf8')
  } catch (cause) {
    throw new EdgeError('TRUST_INVALID', 'has no canonical form (a fraction?)', { cause })
  }
}

export function invalid(what: string, why: string): EdgeError {
  return new EdgeError('TRUST_INVALID', `${what}: ${why}`)
}

export function asObject(value: unknown, what: string): JsonObject {
  if (typeof value !== 'object' || value === null || Array.isArray(value))
    throw invalid(what, 'not an object')
  return value as JsonObject
}

export function asArray(value: unknown, what: string): readonly unknown[] {
  if (!Array.isArray(value)) throw invalid(what, 'not a list')
  return value
}

export function asText(value: unknown, what: string): string {
  if (typeof value !== 'string') throw invalid(what, 'not a text')
  return value
}

/** A safe integer of at least `least`. */
export function asCount(value: unknown, least: number, what: string): number {
  if (!Number.isSafeInteger(value) || (value as number) < least)
    throw invalid(what, `not an integer ≥ ${least}`)
  return value as number
}

/** A list of texts without repetitions. */
export function asTextSet(value: unknown, what: string): ReadonlySet<string> {
  const texts = asArray(value, what).map(text => asText(text, what))
  const unique = new Set(texts)
  if (unique.size !== texts.length) throw invalid(what, 'lists something twice')
  return unique
}

/** TUF's one form of time, `YYYY-MM-DDTHH:MM:SSZ` (4.2.3), in milliseconds. */
export function asTimeMs(value: unknown, what: string): number {
  const text = asText(value, what)
  const ms = /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ$/.test(text) ? Date.parse(text) : Number.NaN
  if (Number.isNaN(ms)) throw invalid(what, 'not a time of the form YYYY-MM-DDTHH:MM:SSZ')
  return ms
}

export function timeText(ms: number): string {
  return `${new Date(ms).toISOString().slice(0, 19)}Z`
}

/**
 * A role name or target path as one URL path segment and one file name: percent-encoded, with what
 * `encodeURIComponent` leaves out, and never `.` or `..`.
 */
export function fileNameOf(text: string): string {
  const name = encodeURIComponent(text).replace(
    /[!'()*]/g,
    letter => `%${letter.charCodeAt(0).toString(16).toUpperCase()}`,
  )
  return /^\.{1,2}$/.test(name) ? name.replaceAll('.', '%2E') : name
}

/** How deep brackets nest outside of strings. */
function nestingOf(bytes: Uint8Array): number {
  let depth = 0
  let deepest = 0
  let inString = false
  for (let at = 0; at < bytes.length; at++) {
    const byte = bytes[at]
    if (inString) {
      if (byte === 0x5c) at++
      else if (byte === 0x22) inString = false
    } else if (byte === 0x22) inString = true
    else if (byte === 0x7b || byte === 0x5b) deepest = Math.max(deepest, ++depth)
    else if (byte === 0x7d || byte === 0x5d) depth--
  }
  return deepest
}
