import { describe, expect, it } from 'vitest'
import { findForbiddenText, isText } from './tracked-text.ts'

const findingsIn = (text: string) => findForbiddenText([{ path: 'x.ts', text }])

describe('text that must not be tracked', () => {
  it.each([
    `const data = '/home/ada/data'`,
    `cd /work/checkout`,
    `open('/tmp/towerlight-test')`,
    `"resolved": "https://registry.npmjs.org/zod"`,
    `<<<<<<< HEAD`,
    `-----BEGIN PRIVATE KEY-----\nMC4CAQAwBQYDK2VwBCIEIBHXpPnM\n`,
  ])('finds %s', text => {
    expect(findingsIn(text)).toHaveLength(1)
  })

  it('names the line', () => {
    expect(findingsIn(`first\nconst x = '/root/x'`)).toEqual(['x.ts:2: a path of one machine'])
  })

  it.each([
    `join(tmpdir(), 'x')`,
    `'/data/education/book'`,
    `https://example.org/work/in-progress`,
    `/var/lib/tower`,
  ])('lets pass: %s', text => {
    expect(findingsIn(text)).toEqual([])
  })

  it('reads text and scripts without a suffix, and skips pictures', () => {
    expect(['a/b.ts', '.ci/run', 'README.md', 'node/cli/tower'].every(isText)).toBe(true)
    expect(['a.png', 'clip.wav'].some(isText)).toBe(false)
  })
})
