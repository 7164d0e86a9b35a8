import { describe, expect, it } from 'vitest'
import { evaluate, parseHttpDate, rangeStillValid } from './conditional.ts'

const MODIFIED = 'Thu, 02 Jan 2025 03:04:05 GMT'
const BEFORE = 'Thu, 02 Jan 2025 03:04:04 GMT'
const AFTER = 'Thu, 02 Jan 2025 03:04:06 GMT'
const validators = { etag: '"sha256-ab"', lastModifiedMs: Date.parse(MODIFIED) }

describe('preconditions, RFC 9110 section 13', () => {
  it.each([
    [{}, 'proceed'],
    // If-Match compares strongly
    [{ ifMatch: '"sha256-ab"' }, 'proceed'],
    [{ ifMatch: '"x", "sha256-ab"' }, 'proceed'],
    [{ ifMatch: '*' }, 'proceed'],
    [{ ifMatch: '"x"' }, 'failed'],
    [{ ifMatch: 'W/"sha256-ab"' }, 'failed'],
    // If-None-Match compares weakly
    [{ ifNoneMatch: '"sha256-ab"' }, 'not-modified'],
    [{ ifNoneMatch: 'W/"sha256-ab"' }, 'not-modified'],
    [{ ifNoneMatch: '"a,b", W/"sha256-ab"' }, 'not-modified'],
    [{ ifNoneMatch: '*' }, 'not-modified'],
    [{ ifNoneMatch: '"x"' }, 'proceed'],
    [{ ifNoneMatch: '"sha256-a", "ab"' }, 'proceed'],
    // dates
    [{ ifModifiedSince: MODIFIED }, 'not-modified'],
    [{ ifModifiedSince: AFTER }, 'not-modified'],
    [{ ifModifiedSince: BEFORE }, 'proceed'],
    [{ ifModifiedSince: 'yesterday' }, 'proceed'],
    [{ ifModifiedSince: '2030-01-01' }, 'proceed'],
    [{ ifUnmodifiedSince: MODIFIED }, 'proceed'],
    [{ ifUnmodifiedSince: BEFORE }, 'failed'],
    [{ ifUnmodifiedSince: 'nonsense' }, 'proceed'],
    // precedence, §13.2.2
    [{ ifMatch: '"sha256-ab"', ifUnmodifiedSince: BEFORE }, 'proceed'],
    [{ ifMatch: '"x"', ifNoneMatch: '"sha256-ab"' }, 'failed'],
    [{ ifMatch: '"sha256-ab"', ifNoneMatch: '"sha256-ab"' }, 'not-modified'],
    [{ ifNoneMatch: '"x"', ifModifiedSince: MODIFIED }, 'proceed'],
    [{ ifNoneMatch: '"sha256-ab"', ifModifiedSince: BEFORE }, 'not-modified'],
    [{ ifUnmodifiedSince: BEFORE, ifNoneMatch: '"sha256-ab"' }, 'failed'],
  ] as const)('%j: %s', (conditions, verdict) => {
    expect(evaluate(conditions, validators)).toBe(verdict)
  })
})

describe('If-Range, RFC 9110 section 13.1.5', () => {
  const later = validators.lastModifiedMs + 60_000
  it.each([
    ['"sha256-ab"', later, true],
    ['W/"sha256-ab"', later, false],
    ['"x"', later, false],
    [MODIFIED, later, true],
    [MODIFIED, later - 1, false], // too young to be a strong validator
    [AFTER, later, false], // exactly ours, or not at all
    ['nonsense', later, false],
  ] as const)('%s', (field, now, valid) => {
    expect(rangeStillValid(field, validators, now)).toBe(valid)
  })
})

it.each(['Sun, 06 Nov 1994 08:49:37 GMT', 'Sunday, 06-Nov-94 08:49:37 GMT', 'Sun Nov  6 08:49:37 1994'])(
  'reads the date %s',
  text => {
    expect(parseHttpDate(text)).toBe(784111777000)
  },
)
