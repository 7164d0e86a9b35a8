import { expect, it } from 'vitest'
import { agoText, countText, dateText, percentOf, sizeText } from './words.ts'

it.each([
  [0, '0 bytes'],
  [999, '999 bytes'],
  [1_000, '1.0 kB'],
  [9_949, '9.9 kB'],
  [10_000, '10 kB'],
  [999_499, '999 kB'],
  [999_500, '1.0 MB'],
  [3_221_225_472, '3.2 GB'],
])('%d is %s', (bytes, text) => {
  expect(sizeText(bytes)).toBe(text)
})

it.each([
  [0, 'just now'],
  [59, 'just now'],
  [60, '1 minute ago'],
  [7_300, '2 hours ago'],
  [86_400 * 3, '3 days ago'],
  [-500, 'just now'], // a clock that is behind
])('%d seconds are %s', (seconds, text) => {
  expect(agoText(1_750_000_000_000 - seconds * 1000, 1_750_000_000_000)).toBe(text)
})

it('counts, dates and shares read well', () => {
  expect([countText(1, 'item'), countText(0, 'item')]).toEqual(['1 item', '0 items'])
  expect([dateText('2025-01-02T23:59:59Z'), dateText('nonsense')]).toEqual(['2 January 2025', 'unknown date'])
  expect(agoText(Number.NaN, 0)).toBe('at an unknown time')
  expect([percentOf(1, 1_000_000), percentOf(0, 5), percentOf(5, 5), percentOf(0, 0)]).toEqual([
    1, 0, 100, 100,
  ])
})
