import { expect, it } from 'vitest'
import { formatByteSize, parseByteSize } from './byte-size.ts'

it.each([
  ['0', 0],
  ['65536', 65_536],
  ['64KiB', 65_536],
  ['64 kib', 65_536],
  ['1.5k', 1_500],
  ['20 GB', 20e9],
  ['2TiB', 2 * 1024 ** 4],
  ['10b', 10],
])('%s is %d bytes', (text, bytes) => {
  expect(parseByteSize(text)).toBe(bytes)
})

it.each(['', '-1', '1ib', '1 XB', '1e9', 'ten', '9999999999999999999', '1.', '1,5k'])(
  '%j is no amount',
  text => {
    expect(parseByteSize(text)).toBeUndefined()
  },
)

it.each([
  [0, '0 B'],
  [999, '999 B'],
  [1000, '0.977 KiB'],
  [19_763, '19.3 KiB'],
  [1024 ** 2 - 1, '1.00 MiB'],
  [1.2 * 1024 ** 3, '1.20 GiB'],
  [5000 * 1024 ** 4, '5.00e+3 TiB'],
])('%d bytes are written %s', (bytes, text) => {
  expect(formatByteSize(bytes)).toBe(text)
})
