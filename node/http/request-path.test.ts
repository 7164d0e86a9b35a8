import { describe, expect, it } from 'vitest'
import { encodePath, parseDataPath, parseItemTarget } from './request-path.ts'

describe('parseItemTarget', () => {
  it('decodes each segment once', () => {
    expect(parseItemTarget('/data/edu/physics/a%20b/%C3%A9t%C3%A9.txt?download')).toEqual({
      kind: 'path',
      dataset: 'edu/physics',
      path: 'a b/été.txt',
      query: 'download',
    })
    expect(parseItemTarget('/data/edu/physics/100%2525')).toMatchObject({ path: '100%25' })
  })

  it.each([
    '/data/',
    '/data/edu',
    '/data/edu/',
    '/data/edu/physics',
    '/data/edu/physics/',
    '/data/edu/physics/dir/',
    '/data/?x=/y',
  ])('%s is a listing', url => {
    expect(parseItemTarget(url)).toBeUndefined()
  })

  it('takes a digest', () => {
    expect(parseItemTarget(`/sha256/${'a'.repeat(64)}`)).toMatchObject({
      kind: 'digest',
      sha256: 'a'.repeat(64),
    })
  })

  const tricks = [
    '..',
    '.',
    '%2e%2e',
    '%2E.',
    '..%2f..',
    '%2fetc',
    'a%5cb',
    'a\\b',
    '%00',
    'a%0ab',
    '%',
    '%zz',
    '%c0%ae',
    '%ff',
    '',
    'a%7fb',
    '%2e',
    '..%5c',
    'a'.repeat(256),
    '%ed%a0%80',
  ]
  const places = (trick: string): string[] => [
    `/data/edu/physics/${trick}/x`,
    `/data/edu/physics/x/${trick}/y`,
    `/data/${trick}/physics/x`,
    `/data/edu/${trick}/x`,
    `/data/edu/physics/dir/${trick}/`,
  ]
  it.each([
    ...tricks.flatMap(places),
    '/data//',
    '/data/edu//x',
    '/data/edu/physics//',
    '/data/EDU/physics/x',
    '/data/.hidden/physics/x',
    '/sha256/',
    '/sha256/abc',
    `/sha256/${'A'.repeat(64)}`,
    `/sha256/${'a'.repeat(64)}/`,
    `/sha256/../${'a'.repeat(64)}`,
    `/data/edu/physics/${'x/'.repeat(3_000)}y`,
  ])('refuses %s', url => {
    expect(() => parseItemTarget(url)).toThrow(expect.objectContaining({ code: 'PATH_INVALID' }))
  })
})

it('tells scopes, datasets and folders apart', () => {
  expect(parseDataPath('/data/')).toMatchObject({ scope: '', dataset: undefined, folder: true })
  expect(parseDataPath('/data/edu/')).toMatchObject({ scope: 'edu', dataset: undefined })
  expect(parseDataPath('/data/edu/physics/a/b/')).toMatchObject({
    dataset: 'edu/physics',
    path: 'a/b',
    folder: true,
  })
})

it('escapes a path so that it comes back', () => {
  const path = 'a b/ü?#%/c'
  expect(parseItemTarget(`/data/edu/physics/${encodePath(path)}`)).toMatchObject({ path })
})
