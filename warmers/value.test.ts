import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { asked, askedNearby, Forecast, planKeep, valueOf, type Asked } from './value.ts'

const DAY = 86_400

describe('counts of requests', () => {
  it('halve in a week, and add up', () => {
    const once = asked(undefined, 0)
    expect(asked(once, 7 * DAY).requests).toBeCloseTo(1.5)
    expect(askedNearby(undefined, 0, 10).requests).toBeCloseTo(1)
  })

  it('are the same in whatever order reports arrive, and survive a clock that goes back', () => {
    fc.assert(
      fc.property(fc.array(fc.nat(60 * DAY), { minLength: 1, maxLength: 20 }), times => {
        const count = (order: readonly number[]) =>
          order.reduce<Asked | undefined>((a, t) => asked(a, t), undefined)
        const [given, sorted] = [count(times)!, count(times.toSorted((a, b) => a - b))!]
        expect(given.lastSeconds).toBe(Math.max(...times))
        expect(given.requests).toBeCloseTo(sorted.requests, 6)
      }),
    )
  })
})

describe('the forecast', () => {
  it('before it has learned: more requests and more recent ones promise more', () => {
    const forecast = new Forecast()
    const rate = (requests: number, ageDays: number) =>
      forecast.requestsPerDay(
        { publishedSeconds: 0, asked: { requests, lastSeconds: (100 - ageDays) * DAY } },
        100 * DAY,
      )
    expect(rate(8, 1)).toBeGreaterThan(rate(2, 1))
    expect(rate(2, 1)).toBeGreaterThan(rate(2, 20))
  })

  it('learns the rates it is shown, also of what was never asked for', () => {
    const forecast = new Forecast()
    const fresh = { publishedSeconds: 0, asked: undefined }
    const old = { publishedSeconds: -30 * DAY, asked: undefined }
    for (let n = 0; n < 3000; n++) {
      forecast.exposed(fresh, DAY, 1)
      forecast.exposed(old, DAY, 10)
      if (n % 3 === 0) forecast.requested(fresh, DAY)
      if (n % 10 === 0) forecast.requested(old, DAY)
    }
    forecast.refit()
    expect(forecast.requestsPerDay(fresh, DAY)).toBeCloseTo(1 / 3, 1)
    expect(forecast.requestsPerDay(old, DAY)).toBeCloseTo(1 / 100, 2)
  })

  it('goes on after a restart, and refuses what is not its own', () => {
    const forecast = new Forecast()
    const item = { publishedSeconds: 0, asked: undefined }
    for (let n = 0; n < 500; n++) forecast.exposed(item, DAY, 1)
    for (let n = 0; n < 50; n++) forecast.requested(item, DAY)
    forecast.refit()
    const after = new Forecast()
    expect(after.load(forecast.save())).toBe(true)
    expect(after.requestsPerDay(item, DAY)).toBeCloseTo(forecast.requestsPerDay(item, DAY), 3)
    expect(after.load(new Float32Array(3))).toBe(false)
    expect(after.load(forecast.save().fill(NaN))).toBe(false)
  })
})

it('values a small item above a large one asked for as often, and classes far apart', () => {
  expect(valueOf(1, 1000, 1)).toBeGreaterThan(valueOf(1, 2000, 1))
  expect(valueOf(1, 1000, 16)).toBeGreaterThan(valueOf(8, 1000, 1))
})

describe('what to keep', () => {
  const someCandidates = fc
    .array(fc.tuple(fc.integer({ min: 1, max: 50 }), fc.double({ min: 0, max: 10, noNaN: true })), {
      maxLength: 40,
    })
    .map(list => list.map(([sizeBytes, value], key) => ({ key, sizeBytes, value })))

  it('fits, and is at least as good as plain greedy', () => {
    fc.assert(
      fc.property(someCandidates, fc.integer({ min: 1, max: 200 }), (candidates, capacity) => {
        const keep = planKeep(candidates, capacity)
        const chosen = candidates.filter(({ key }) => keep.has(key))
        const bytes = chosen.reduce((sum, { sizeBytes }) => sum + sizeBytes, 0)
        expect(bytes).toBeLessThanOrEqual(capacity)

        let room = capacity
        let greedy = 0
        for (const { sizeBytes, value } of candidates.toSorted((a, b) => b.value - a.value)) {
          if (sizeBytes > room) continue
          room -= sizeBytes
          greedy += sizeBytes * value
        }
        const worth = chosen.reduce((sum, { sizeBytes, value }) => sum + sizeBytes * value, 0)
        expect(worth).toBeGreaterThanOrEqual(greedy - 1e-9)
      }),
    )
  })

  it('gives up several small ones for a large one that is worth more than all of them', () => {
    const small = Array.from({ length: 5 }, (_, key) => ({ key, sizeBytes: 10, value: 1.1 }))
    const large = { key: 9, sizeBytes: 100, value: 1 }
    expect([...planKeep([...small, large], 100)]).toEqual([9])
  })
})
