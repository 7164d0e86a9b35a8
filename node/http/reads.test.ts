import { describe, expect, it } from 'vitest'
import { Reads } from './reads.ts'

const HOUR = 3600_000
const book = { dataset: 'education/book', priority: 1 } as const
const clinic = { dataset: 'health/clinic', priority: 0 } as const

describe('reads', () => {
  it('are counted by outcome, dataset and class, in requests and bytes', () => {
    const reads = new Reads(() => 0)
    reads.count(book, 'hot', 100)
    reads.count(book, 'absent', 300)
    reads.count(clinic, 'memory', 10)
    const report = reads.report()
    expect(report).toMatchObject({ requests: 3, objectHit: 0.6667, byteHit: 0.2683 })
    expect(report.byDataset).toEqual([
      { name: 'education/book', requests: 2, objectHit: 0.5, byteHit: 0.25 },
      { name: 'health/clinic', requests: 1, objectHit: 1, byteHit: 1 },
    ])
    expect(report.byClass.map(({ name }) => name)).toEqual(['P1', 'P0'])
    expect(report.byOutcome).toContainEqual({ outcome: 'absent', requests: 1, bytes: 300 })
  })

  it('of more datasets than there may be series are counted together', () => {
    const reads = new Reads(() => 0)
    for (let n = 0; n < 1000; n++) reads.count({ dataset: `some/set-${n}`, priority: 2 }, 'warm', 1)
    expect(reads.report().byDataset.length).toBeLessThanOrEqual(201)
    expect(reads.report().requests).toBe(1000)
  })
})

describe('drift', () => {
  const afterWeeks = (recentHitOf: (n: number) => boolean, requests: number) => {
    let now = 0
    const reads = new Reads(() => now)
    for (let n = 0; n < 20_000; n++, now += HOUR / 20) reads.count(book, n % 10 === 0 ? 'absent' : 'hot', 1)
    for (let n = 0; n < requests; n++, now += HOUR / 200)
      reads.count(book, recentHitOf(n) ? 'hot' : 'absent', 1)
    return reads.drift
  }

  it('is told when the hit rate of the last hours is well below that of the last weeks', () => {
    const drift = afterWeeks(n => n % 2 === 0, 1500)
    expect(drift.alert).toBe(true)
    expect(drift.baseline).toBeGreaterThan(drift.recent + 0.1)
  })

  it('is not when it stays as it was, gets better, or too few have asked', () => {
    expect(afterWeeks(n => n % 10 !== 3, 1500).alert).toBe(false)
    expect(afterWeeks(() => true, 1500).alert).toBe(false)
    expect(new Reads(() => 0).drift).toEqual({ recent: 1, baseline: 1, alert: false })
    const few = new Reads(() => 0)
    for (let n = 0; n < 50; n++) few.count(book, 'absent', 1)
    expect(few.drift.alert).toBe(false)
  })
})
