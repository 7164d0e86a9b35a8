import fc from 'fast-check'
import { expect, it } from 'vitest'
import type { Trace } from '../trace.ts'
import { POLICIES } from './always.ts'
import { offlineLimits } from './offline.ts'

const someTrace = fc.array(fc.nat(7), { minLength: 2, maxLength: 14 }).map((keys): Trace => {
  const sizes = keys.map(key => 1 + ((key * 5) % 4))
  return {
    name: 'small',
    seconds: Float64Array.from(keys.keys()),
    key: Uint32Array.from(keys),
    size: Float64Array.from(sizes),
    objects: new Set(keys).size,
    footprintBytes: 0,
  }
})

/** The most hits any cache can have: every subset kept after every request. */
function bestOf(trace: Trace, capacity: number): number {
  let states = new Map<string, number>([['', 0]])
  for (const key of trace.key) {
    const next = new Map<string, number>()
    for (const [state, hits] of states) {
      const kept = state === '' ? [] : state.split(' ').map(Number)
      const now = hits + (kept.includes(key) ? 1 : 0)
      for (const subset of subsetsOf([...new Set([...kept, key])])) {
        const bytes = subset.reduce((sum, one) => sum + 1 + ((one * 5) % 4), 0)
        if (bytes > capacity) continue
        const name = subset.toSorted((a, b) => a - b).join(' ')
        next.set(name, Math.max(next.get(name) ?? 0, now))
      }
    }
    states = next
  }
  return Math.max(...states.values())
}

function subsetsOf(items: readonly number[]): number[][] {
  return items.reduce<number[][]>((all, item) => [...all, ...all.map(one => [...one, item])], [[]])
}

it('encloses the best that any cache can do', () => {
  fc.assert(
    fc.property(someTrace, fc.integer({ min: 2, max: 8 }), (trace, capacity) => {
      const best = bestOf(trace, capacity) / trace.key.length
      const { bound, feasible } = offlineLimits(trace, capacity)
      expect(feasible.objectHit).toBeLessThanOrEqual(best + 1e-4)
      expect(bound.objectHit).toBeGreaterThanOrEqual(best - 1e-4)
    }),
    { numRuns: 60 },
  )
})

it('no policy keeps more than its capacity, or hits what it evicted', () => {
  fc.assert(
    fc.property(
      fc.array(fc.nat(40), { maxLength: 300 }),
      fc.integer({ min: 20, max: 90 }),
      (keys, capacityBytes) => {
        const sizeOf = (key: number) => 1 + ((key * 7) % 19)
        for (const make of Object.values(POLICIES)) {
          const policy = make({ capacityBytes, alpha: 1, seed: 1 })
          const kept = new Map<number, number>()
          for (const [n, key] of keys.entries()) {
            const { outcome, evict } = policy.request(key, sizeOf(key), n)
            expect(outcome === 'hit').toBe(kept.has(key))
            for (const gone of evict) kept.delete(gone)
            if (outcome === 'admit') kept.set(key, sizeOf(key))
            const bytes = [...kept.values()].reduce((sum, size) => sum + size, 0)
            expect(policy.usedBytes).toBe(bytes)
            expect(bytes).toBeLessThanOrEqual(capacityBytes)
          }
        }
      },
    ),
    { numRuns: 100 },
  )
})
