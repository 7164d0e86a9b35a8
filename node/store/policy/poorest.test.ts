import fc from 'fast-check'
import { expect, it } from 'vitest'
import { Poorest } from './poorest.ts'

it('knows the lowest values of those that it was told of, and of no other', () => {
  const told = fc.uniqueArray(fc.tuple(fc.nat(1000), fc.double({ min: -100, max: 100, noNaN: true })), {
    selector: ([slot]) => slot,
    maxLength: 40,
  })
  fc.assert(
    fc.property(told, fc.integer({ min: 1, max: 20 }), (entries, slotsMax) => {
      const values = new Map(entries)
      const poorest = new Poorest(slotsMax)
      for (const [slot, value] of entries) poorest.remember(slot, value)
      const taken: number[] = []
      for (let slot: number; (slot = poorest.lowest(one => values.get(one)!)) >= 0; poorest.forget(slot)) {
        taken.push(poorest.lowestValue)
      }
      const lowest = [...values.values()].sort((a, b) => a - b).slice(0, slotsMax)
      expect(taken).toEqual(lowest)
      expect(poorest.lowestValue).toBe(Infinity)
    }),
  )
})

it('believes no value from long ago', () => {
  const poorest = new Poorest(4)
  poorest.remember(1, -9)
  poorest.remember(2, -8)
  poorest.remember(3, -7)
  const now = new Map([
    [1, -1],
    [3, -7],
  ])
  expect(poorest.lowest(slot => now.get(slot) ?? NaN)).toBe(3)
  expect(poorest.lowestValue).toBe(-7)
})
