import { join } from 'node:path'
import { describe, expect, it } from 'vitest'
import { openDemand, stepOf } from './demand.ts'
import { temporaryFolder } from './testing.ts'

const WEEK = 7 * 86_400_000

describe('demand', () => {
  it('is a count that halves every week', () => {
    let now = 0
    using demand = openDemand(':memory:', () => now)
    for (let i = 0; i < 8; i++) demand.asked('a/b', 'x', 0)
    now = 2 * WEEK
    demand.asked('a/b', 'x', 0)
    expect(demand.requestsOf('a/b', 'x')).toMatchObject({ requests: 3 })
    expect(demand.requestsOf('a/b', 'y')).toBeUndefined()
  })

  it('is kept over a restart, and what has faded is forgotten', async () => {
    await using folder = await temporaryFolder()
    const path = join(folder.path, 'demand.db')
    let now = 0
    {
      using demand = openDemand(path, () => now)
      for (let i = 0; i < 400; i++) demand.asked('a/b', 'often', 0)
      demand.asked('a/b', 'once', 0)
    }
    now = 7 * WEEK
    {
      using demand = openDemand(path, () => now)
      expect(demand.requestsOf('a/b', 'often')).toMatchObject({ requests: 400 })
    }
    using demand = openDemand(path, () => now)
    expect(demand.requestsOf('a/b', 'often')).toBeDefined()
    expect(demand.requestsOf('a/b', 'once')).toBeUndefined()
  })

  it('makes what is asked for worth more, and big things less', () => {
    using demand = openDemand(':memory:', () => WEEK)
    for (let i = 0; i < 20; i++) demand.asked('a/b', 'often', 0)
    demand.asked('a/b', 'once', 0)
    const value = (path: string, sizeBytes = 1e6, priority: 0 | 3 = 0) =>
      stepOf(demand.valueOf({ dataset: 'a/b', path, sizeBytes, priority, publishedMs: 0 }))
    expect(value('often')).toBeGreaterThan(value('once'))
    expect(value('once')).toBeGreaterThan(value('never'))
    expect(value('often', 1e9)).toBeLessThan(value('often'))
    expect(value('often', 1e6, 3)).toBeLessThan(value('often'))
  })

  it('forgets the longest unasked when there are too many', () => {
    using demand = openDemand(':memory:', () => 0)
    for (let n = 0; n < 60_001; n++) demand.asked('a/b', String(n), 0)
    expect(demand.requestsOf('a/b', '0')).toBeUndefined()
    expect(demand.requestsOf('a/b', '60000')).toBeDefined()
  })
})
