import fc from 'fast-check'
import { expect, it } from 'vitest'
import { type Cid, rawCidOf } from '../manifests/cid.ts'
import { sha256Of } from '../manifests/digest.ts'
import { type KnownPin, planPins, retryDelayMs, shortfallBytes } from './plan-pins.ts'

const roots = Array.from({ length: 8 }, (_, n) => rawCidOf(sha256Of(`${n}`)))
const someRoots = fc.uniqueArray(fc.constantFrom(...roots))
const someKnown = someRoots.chain(keys =>
  fc
    .array(
      fc.record({
        status: fc.constantFrom('queued', 'pinning', 'pinned', 'failed', 'unexpectedly-unpinned'),
        attempts: fc.nat(9),
        retryAtMs: fc.constantFrom(0, 500, 2000),
      }),
      { minLength: keys.length, maxLength: keys.length },
    )
    .map(rest => new Map(keys.map((root, n) => [root, { root, ...rest[n] } as KnownPin]))),
)

it('every wish is kept, pinned or waiting, and only what we pinned is let go', () => {
  fc.assert(
    fc.property(someRoots, someRoots, someKnown, (wanted, observed, known) => {
      const wishes = wanted.map(root => ({ root, sizeBytes: 10, why: 'test' }))
      const plan = planPins(wishes, new Set(observed), known, 1000)
      const all = [...plan.pin, ...plan.kept].map(({ root }) => root).concat(plan.waiting)
      expect(all.toSorted()).toEqual(wanted.toSorted())
      for (const root of plan.unpin) {
        expect(known.has(root)).toBe(true)
        expect(wanted).not.toContain(root)
      }
      for (const root of plan.lost) expect(known.get(root)?.status).toBe('pinned')
      for (const root of plan.waiting) expect(known.get(root)?.retryAtMs).toBe(2000)
    }),
  )
})

it('nothing is left to do once the target keeps what is wished and nothing else', () => {
  const wishes = roots.map(root => ({ root, sizeBytes: 1, why: 'test' }))
  const known = new Map<Cid, KnownPin>(
    roots.map(root => [root, { root, status: 'pinned', attempts: 0, retryAtMs: 0 }]),
  )
  expect(planPins(wishes, new Set(roots), known, 0)).toMatchObject({
    pin: [],
    unpin: [],
    lost: [],
    waiting: [],
  })
})

it('backs off to a quarter of a minute and no further', () => {
  expect([1, 2, 3, 6, 50].map(retryDelayMs)).toEqual([1000, 2000, 4000, 15_000, 15_000])
})

it('tells the shortfall in bytes', () => {
  const wishes = roots.map(root => ({ root, sizeBytes: 10, why: 'test' }))
  expect(shortfallBytes(wishes, 70)).toBe(10)
  expect(shortfallBytes(wishes, 80)).toBe(0)
  expect(shortfallBytes(wishes, undefined)).toBe(0)
})
