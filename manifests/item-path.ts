/**
 * An item's path inside its dataset, and the order of paths. Nothing is normalised; what could
 * mean another place (`..`, backslashes, control characters) is refused, never repaired.
 */
import { EdgeError } from './errors.ts'

const SEGMENT_BYTES_MAX = 255
const PATH_BYTES_MAX = 4096
const FORBIDDEN = /[\u0000-\u001f\u007f\\]/

/** @throws EdgeError `PATH_INVALID`, saying what is wrong. */
export function parseItemPath(text: string): string {
  const problem = problemOf(text)
  if (problem) throw new EdgeError('PATH_INVALID', `${problem}: ${JSON.stringify(text.slice(0, 300))}`)
  return text
}

export function isItemPath(text: unknown): text is string {
  return typeof text === 'string' && problemOf(text) === undefined
}

/** By UTF-8 bytes, which is by code point. For `sort`. */
export function comparePaths(left: string, right: string): number {
  const shorter = Math.min(left.length, right.length)
  for (let at = 0; at < shorter; at++) {
    const a = left.charCodeAt(at)
    const b = right.charCodeAt(at)
    if (a !== b) return isSurrogate(a) === isSurrogate(b) ? a - b : isSurrogate(a) ? 1 : -1
  }
  return left.length - right.length
}

function problemOf(path: string): string | undefined {
  if (path.length === 0) return 'an empty path'
  if (path.length > PATH_BYTES_MAX || Buffer.byteLength(path) > PATH_BYTES_MAX)
    return 'a path of more than 4096 bytes'
  if (FORBIDDEN.test(path)) return 'a control character or a backslash in a path'
  if (!path.isWellFormed()) return 'a path that is not Unicode'
  for (const segment of path.split('/')) {
    if (segment === '' || segment === '.' || segment === '..') return 'an empty, . or .. segment in a path'
    if (segment.length * 3 > SEGMENT_BYTES_MAX && Buffer.byteLength(segment) > SEGMENT_BYTES_MAX) {
      return 'a name of more than 255 bytes'
    }
  }
  return undefined
}

/** Surrogates encode code points above U+FFFF, so they come after every other unit. */
function isSurrogate(unit: number): boolean {
  return unit >= 0xd800 && unit <= 0xdfff
}
