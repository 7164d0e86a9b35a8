import * as fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { RANGES_MAX, contentRange, planRanges } from './ranges.ts'

describe('planRanges', () => {
  it.each([
    ['bytes=0-0', [[0, 0]]],
    ['bytes=0-99', [[0, 99]]],
    ['bytes=0-100', [[0, 99]]],
    ['bytes=90-', [[90, 99]]],
    ['bytes=-10', [[90, 99]]],
    ['bytes=-1000', [[0, 99]]],
    ['Bytes = 5-6', [[5, 6]]],
    [
      'bytes=5-6, 20-29 ,, 90-',
      [
        [5, 6],
        [20, 29],
        [90, 99],
      ],
    ],
    [
      'bytes=20-29,5-6',
      [
        [20, 29],
        [5, 6],
      ],
    ],
    ['bytes=0-9,10-19', [[0, 19]]],
    [
      'bytes=50-60,0-9,55-70',
      [
        [0, 9],
        [50, 70],
      ],
    ],
    ['bytes=0-9,200-300', [[0, 9]]],
    ['bytes=0-9999999999999999', [[0, 99]]],
  ])('%s of 100 bytes', (field, expected) => {
    expect(planRanges(field, 100)).toEqual(expected.map(([first, last]) => ({ first, last })))
  })

  it.each([
    'bytes=',
    'bytes=-',
    'bytes=9-5',
    'bytes=a-b',
    'bytes=0-1,x',
    'items=0-1',
    'bytes 0-1',
    'bytes=1.5-2',
    'bytes=0-99999999999999999',
    '',
    'bytes=,',
  ])('%j is ignored', field => {
    expect(planRanges(field, 100)).toBe('whole')
  })

  it.each(['bytes=100-', 'bytes=100-200', 'bytes=-0', 'bytes=100-,200-'])(
    '%s is outside 100 bytes',
    field => {
      expect(planRanges(field, 100)).toBe('outside')
    },
  )

  it('has nothing to give of an empty item', () => {
    expect(planRanges('bytes=0-', 0)).toBe('outside')
    expect(planRanges('bytes=-5', 0)).toBe('outside')
  })

  it('ignores floods', () => {
    const flood = (count: number): string =>
      `bytes=${Array.from({ length: count }, (_, i) => `${i * 2}-${i * 2}`).join(',')}`
    expect(planRanges(flood(RANGES_MAX), 100)).toHaveLength(RANGES_MAX)
    expect(planRanges(flood(RANGES_MAX + 1), 100)).toBe('whole')
    expect(planRanges(`bytes=${'0-,'.repeat(100_000)}`, 100)).toBe('whole')
  })

  it('names each byte asked for exactly once, and no other', () => {
    const someRange = fc
      .tuple(fc.nat(60), fc.nat(60))
      .map(([a, b]) => [Math.min(a, b), Math.max(a, b)] as const)
    fc.assert(
      fc.property(
        fc.array(someRange, { minLength: 1, maxLength: RANGES_MAX }),
        fc.integer({ min: 1, max: 50 }),
        (asked, size) => {
          const plan = planRanges(`bytes=${asked.map(([a, b]) => `${a}-${b}`).join(',')}`, size)
          const wanted = new Set(
            asked.flatMap(([a, b]) =>
              Array.from({ length: b - a + 1 }, (_, i) => a + i).filter(at => at < size),
            ),
          )
          if (plan === 'outside') {
            expect(wanted.size).toBe(0)
            return
          }
          if (plan === 'whole') throw new Error('ignored')
          const named = plan.flatMap(({ first, last }) =>
            Array.from({ length: last - first + 1 }, (_, i) => first + i),
          )
          expect(named.length).toBe(wanted.size)
          expect(new Set(named)).toEqual(wanted)
        },
      ),
    )
  })
})

it('writes Content-Range as RFC 9110 has it', () => {
  expect(contentRange({ first: 0, last: 9 }, 100)).toBe('bytes 0-9/100')
})
