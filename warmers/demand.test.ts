import { join } from 'node:path'
import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { demandStep, openDemand } from './demand.ts'
import { temporaryFolder } from './testing.ts'

const WEEK = 7 * 86_400_000

describe('demand', () => {
  it('is a count that halves every week', () => {
    let now = 0
    using demand = openDemand(':memory:', () => now)
    for (let i = 0; i < 8; i++) demand.asked('a/b', 'x')
    now = 2 * WEEK
    expect(demand.scoreOf('a/b', 'x')).toBeCloseTo(2)
    demand.asked('a/b', 'x')
    expect(demand.scoreOf('a/b', 'x')).toBeCloseTo(3)
    expect(demand.scoreOf('a/b', 'y')).toBe(0)
  })

  it('is kept over a restart, and what has faded is forgotten', async () => {
    await using folder = await temporaryFolder()
    const path = join(folder.path, 'demand.db')
    let now = 0
    {
      using demand = openDemand(path, () => now)
      for (let i = 0; i < 4; i++) demand.asked('a/b', 'often')
      demand.asked('a/b', 'once')
    }
    now = 6 * WEEK
    {
      using demand = openDemand(path, () => now)
      expect(demand.scoreOf('a/b', 'often')).toBeCloseTo(4 / 64)
    }
    now = 0
    using demand = openDemand(path, () => now)
    expect(demand.scoreOf('a/b', 'often')).toBeGreaterThan(0)
    expect(demand.scoreOf('a/b', 'once')).toBe(0)
  })

  it('ranks by requests, and small things before big ones', () => {
    const some = fc.tuple(fc.double({ min: 0.1, max: 1e4, noNaN: true }), fc.integer({ min: 0, max: 2 ** 32 }))
    fc.assert(
      fc.property(some, fc.integer({ min: 1, max: 1000 }), ([score, size], more) => {
        expect(demandStep(score * more, size)).toBeGreaterThanOrEqual(demandStep(score, size))
        expect(demandStep(score, size * more)).toBeLessThanOrEqual(demandStep(score, size))
        expect(demandStep(score, size)).toBeGreaterThan(demandStep(0, size))
      }),
    )
  })
})
