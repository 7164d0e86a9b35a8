import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { parseDatasetName } from './dataset-name.ts'
import { comparePaths, parseItemPath } from './item-path.ts'
import { mediaTypeOf } from './media-type.ts'

describe('item paths', () => {
  it.each([
    'a',
    'a/b.c',
    'with space',
    'é',
    'e\u0301',
    '日本/語',
    '...',
    '.hidden',
    'a'.repeat(255),
    '%2e%2e',
    'a:b?c#d',
  ])('takes %j as it is', path => {
    expect(parseItemPath(path)).toBe(path)
  })

  it.each([
    '',
    '/',
    '/a',
    'a/',
    'a//b',
    '.',
    '..',
    'a/../b',
    './a',
    'a\\b',
    'a\0b',
    'a\nb',
    '\u007f',
    '\ud800',
    'é'.repeat(128),
    'a/'.repeat(2100) + 'a',
  ])('refuses %j', path => {
    expect(() => parseItemPath(path)).toThrow(expect.objectContaining({ code: 'PATH_INVALID' }))
  })

  it('orders as the bytes of UTF-8 do', () => {
    const text = fc.string({
      unit: fc.constantFrom('a', 'b', '/', 'é', '\uffee', '😀', '\u{10ffff}', '\ud7ff', '\ue000'),
    })
    fc.assert(
      fc.property(text, text, (left, right) => {
        expect(Math.sign(comparePaths(left, right))).toBe(
          Buffer.compare(Buffer.from(left), Buffer.from(right)),
        )
      }),
    )
  })
})

describe('dataset names', () => {
  it.each(['education/physics-book', 'h/1', 'a_b.c/d-e'])('takes %j', name => {
    expect(parseDatasetName(name)).toBe(name)
  })

  it.each(['a', 'a/b/c', 'A/b', '/b', 'a/', '../b', 'a/.b', 'a/*', 'a b/c', `a/${'b'.repeat(65)}`, 'a/b\n'])(
    'refuses %j',
    name => {
      expect(() => parseDatasetName(name)).toThrow(expect.objectContaining({ code: 'REQUEST_INVALID' }))
    },
  )
})

describe('media types', () => {
  it('goes by the last extension, in any case', () => {
    expect(mediaTypeOf('a/b.HTML')).toBe('text/html; charset=utf-8')
    expect(mediaTypeOf('a.tar.gz')).toBe('application/gzip')
    expect(mediaTypeOf('a.csv/readme')).toBe('application/octet-stream')
    expect(mediaTypeOf('.css')).toBe('application/octet-stream')
    expect(mediaTypeOf('a.constructor')).toBe('application/octet-stream')
  })
})
