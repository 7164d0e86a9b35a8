import { describe, expect, it } from 'vitest'
import { Rhythm } from './rhythm.ts'

const KIB = 1024

describe('connections on a long link', () => {
  it('begin with requests of different lengths, and go on with whole ones', () => {
    const rhythm = new Rhythm(4)
    rhythm.answered(610)
    const lengths = Array.from({ length: 8 }, () => {
      const bytes = rhythm.firstBytesOf(256 * KIB)
      rhythm.begin()
      return bytes / KIB
    })
    expect(lengths).toEqual([256, 64, 128, 192, 256, 256, 256, 256])
  })

  it('do so again after the link was idle', () => {
    const rhythm = new Rhythm(2)
    rhythm.answered(610)
    for (let round = 0; round < 2; round++) {
      expect(rhythm.firstBytesOf(256 * KIB)).toBe(256 * KIB)
      using _first = rhythm.begin()
      expect(rhythm.firstBytesOf(256 * KIB)).toBe(128 * KIB)
    }
  })

  it('cut nothing that is short, and nothing on a short link or one of unknown length', () => {
    const rhythm = new Rhythm(4)
    rhythm.begin()
    expect(rhythm.firstBytesOf(256 * KIB)).toBe(256 * KIB)
    rhythm.answered(20)
    rhythm.answered(900) // a busy moment
    expect(rhythm.firstBytesOf(256 * KIB)).toBe(256 * KIB)
    const long = new Rhythm(4)
    long.answered(610)
    long.begin()
    expect(long.firstBytesOf(100 * KIB)).toBe(100 * KIB)
  })
})
