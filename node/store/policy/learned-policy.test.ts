import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { LearnedPolicy } from './learned-policy.ts'
import type { Decision, Exemption, Place } from './policy.ts'

/** What a store would hold if it did what the policy says, and nothing else. */
class Shelf {
  readonly sizes = new Map<number, number>()
  readonly places = new Map<number, Place>()
  readonly exempt = new Map<number, Set<Exemption>>()

  follow(key: number, size: number, { outcome, place, evict, demote, promote }: Decision): void {
    expect(outcome === 'hit').toBe(this.places.has(key) && outcome !== 'reject')
    for (const gone of evict) {
      expect(this.exempt.get(gone)?.size ?? 0).toBe(0)
      expect(gone).not.toBe(key)
      expect(this.places.delete(gone)).toBe(true)
      this.sizes.delete(gone)
    }
    for (const moved of demote) {
      expect(this.places.get(moved)).toBe('hot')
      this.places.set(moved, 'warm')
    }
    if (outcome === 'reject') return
    if (outcome === 'hit') {
      expect(promote).toBe(this.places.get(key) === 'warm' && place === 'hot')
    }
    this.places.set(key, place!)
    this.sizes.set(key, size)
  }

  get usedBytes(): number {
    return [...this.sizes.values()].reduce((sum, size) => sum + size, 0)
  }

  get hotBytes(): number {
    const hot = [...this.places].filter(([, place]) => place === 'hot')
    return hot.reduce((sum, [key]) => sum + this.sizes.get(key)!, 0)
  }
}

const sizeOf = (key: number) => 1 + ((key * 7919) % 97)
const someKey = fc.nat(60)
const someReason = fc.constantFrom<Exemption>('pinned', 'mustHave', 'inFill')
const someStep = fc.oneof(
  { weight: 8, arbitrary: fc.tuple(fc.constant('request' as const), someKey, fc.boolean()) },
  fc.tuple(fc.constant('admit' as const), someKey, fc.double({ min: 0.01, max: 500, noNaN: true })),
  fc.tuple(fc.constant('exempt' as const), someKey, someReason),
  fc.tuple(fc.constant('release' as const), someKey, someReason),
  fc.tuple(fc.constant('remove' as const), someKey, fc.constant(0)),
  fc.tuple(fc.constant('resize' as const), fc.integer({ min: 100, max: 900 }), fc.nat(300)),
)
type Step = typeof someStep extends fc.Arbitrary<infer T> ? T : never

function run(policy: LearnedPolicy, shelf: Shelf, [what, key, extra]: Step, second: number): void {
  const size = sizeOf(key)
  if (what === 'request') {
    const decision = policy.request(key, size, second, extra)
    if (!extra) expect(decision.outcome).not.toBe('admit')
    shelf.follow(key, size, decision)
  } else if (what === 'admit') {
    shelf.follow(key, size, policy.admit(key, size, extra))
  } else if (what === 'exempt') {
    const decision = policy.exempt(key, size, extra)
    shelf.follow(key, size, decision)
    if (decision.outcome === 'reject') return
    shelf.exempt.set(key, (shelf.exempt.get(key) ?? new Set()).add(extra))
  } else if (what === 'release') {
    policy.release(key, extra)
    shelf.exempt.get(key)?.delete(extra)
  } else if (what === 'remove') {
    policy.remove(key)
    shelf.exempt.delete(key)
    shelf.places.delete(key)
    shelf.sizes.delete(key)
  } else {
    const { evict, demote } = policy.resize(key, extra)
    shelf.follow(-1, 0, { outcome: 'reject', place: null, evict, demote, promote: false })
  }
}

describe('the learned policy', () => {
  it('keeps exact accounts, its capacities, and whatever is exempt, whatever happens', () => {
    fc.assert(
      fc.property(fc.array(someStep, { maxLength: 400 }), fc.constantFrom(0, 0.5, 1), (steps, alpha) => {
        const policy = new LearnedPolicy({ capacityBytes: 500, hotBytesMax: 120, alpha })
        const shelf = new Shelf()
        let capacity = 500
        let hotMax = 120
        for (const [second, step] of steps.entries()) {
          run(policy, shelf, step, second)
          if (step[0] === 'resize') [capacity, hotMax] = [step[1], step[2]]

          const usage = policy.usage()
          const exempt = [...shelf.exempt].filter(([, reasons]) => reasons.size > 0)
          const exemptBytes = exempt.reduce((sum, [key]) => sum + sizeOf(key), 0)
          expect(usage.usedBytes).toBe(shelf.usedBytes)
          expect(usage.hotBytes).toBe(shelf.hotBytes)
          expect(usage.residents).toBe(shelf.places.size)
          expect(usage.exemptBytes).toBe(exemptBytes)
          expect(usage.usedBytes).toBeLessThanOrEqual(Math.max(capacity, exemptBytes))
          expect(usage.hotBytes).toBeLessThanOrEqual(hotMax)
          for (const [key, place] of shelf.places) expect(policy.placeOf(key)).toBe(place)
          for (const [key] of exempt) expect(policy.placeOf(key)).not.toBeNull()
        }
      }),
      { numRuns: 200 },
    )
  })

  it('decides the same again with the same seed', () => {
    const decide = () => {
      const policy = new LearnedPolicy({ capacityBytes: 700, hotBytesMax: 100, seed: 3 })
      return zipf(5000).map((key, n) => policy.request(key, sizeOf(key), n))
    }
    expect(decide()).toEqual(decide())
  })

  it('comes near the best fixed choice on a steady trace, well ahead of LRU', () => {
    const capacityBytes = 400
    const policy = new LearnedPolicy({ capacityBytes })
    const trace = zipf(20_000)
    const learned = trace.filter((key, n) => policy.request(key, sizeOf(key), n).outcome === 'hit')
    const { best, lru } = reference(trace, capacityBytes)
    expect(learned.length / best).toBeGreaterThan(0.9)
    expect(learned.length / lru).toBeGreaterThan(1.15)
  })

  it('does not evict what was warmed before it is asked for, however many others are', () => {
    const policy = new LearnedPolicy({ capacityBytes: 100 })
    for (let n = 0; n < 2000; n++) policy.request(n % 50, 10, n * 10)
    const { outcome } = policy.admit(1000, 10, 500)
    expect(outcome).toBe('admit')
    for (let n = 0; n < 2000; n++) policy.request(100 + (n % 500), 10, 20_000 + n * 10)
    expect(policy.placeOf(1000)).not.toBeNull()
  })

  it('does not take a warmed extent that is worth less than what would leave', () => {
    const policy = new LearnedPolicy({ capacityBytes: 100 })
    for (let n = 0; n < 2000; n++) policy.request(n % 10, 10, n * 10)
    expect(policy.admit(1000, 10, 1).outcome).toBe('reject')
    expect(policy.usage().residents).toBe(10)
  })

  it('refuses an exemption that cannot fit, and evicts nothing for it', () => {
    const policy = new LearnedPolicy({ capacityBytes: 100 })
    policy.exempt(1, 60, 'pinned')
    policy.request(2, 30, 0)
    expect(policy.exempt(3, 50, 'pinned')).toMatchObject({ outcome: 'reject', evict: [] })
    expect(policy.placeOf(2)).not.toBeNull()
  })
})

describe('its snapshot', () => {
  it('restores residents, places, exemptions and demand: the same decisions follow', () => {
    const before = new LearnedPolicy({ capacityBytes: 700, hotBytesMax: 100, journal: true })
    for (const [n, key] of zipf(3000).entries()) before.request(key, sizeOf(key), n)
    before.exempt(7, sizeOf(7), 'pinned')

    const pieces = [...before.checkpoint(16)]
    const after = new LearnedPolicy({ capacityBytes: 700, hotBytesMax: 100 })
    expect(refusedBy(after, pieces)).toBe(0)
    const { memoryBytes: _, ...usage } = before.usage()
    expect(after.usage()).toMatchObject(usage)
    for (let key = 0; key < 200; key++) expect(after.placeOf(key)).toBe(before.placeOf(key))

    // Only sampling differs from here on, so hit ratios are nearly equal.
    const next = zipf(6000).slice(3000)
    const hits = (policy: LearnedPolicy) =>
      next.filter((key, n) => policy.request(key, sizeOf(key), n).outcome === 'hit').length
    expect(Math.abs(hits(before) - hits(after))).toBeLessThan(60)
  })

  it('is the same from a checkpoint and the changes since, as from one taken now', () => {
    const before = new LearnedPolicy({ capacityBytes: 700, hotBytesMax: 100, journal: true })
    const requests = zipf(4000)
    const pieces: Uint8Array[] = []
    for (const [n, key] of requests.entries()) {
      before.request(key, sizeOf(key), n)
      if (n === 1000) pieces.push(...before.checkpoint(64))
      if (n >= 1000 && n % 100 === 0) for (let p; (p = before.drainChanges(30)); ) pieces.push(p)
    }
    for (let p; (p = before.drainChanges(30)); ) pieces.push(p)

    const [a, b] = [pieces, [...before.checkpoint(1000)]].map(from => {
      const policy = new LearnedPolicy({ capacityBytes: 700, hotBytesMax: 100 })
      refusedBy(policy, from)
      return policy
    })
    expect(a!.usage()).toMatchObject({ ...b!.usage(), memoryBytes: expect.any(Number) })
    for (let key = 0; key < 200; key++) expect(a!.placeOf(key)).toBe(b!.placeOf(key))
  })

  it('refuses a damaged piece whole', () => {
    const before = new LearnedPolicy({ capacityBytes: 700 })
    for (const [n, key] of zipf(500).entries()) before.request(key, sizeOf(key), n)
    const [first, ...rest] = [...before.checkpoint(20)]
    fc.assert(
      fc.property(fc.nat(first!.length * 8 - 1), bit => {
        const damaged = first!.slice()
        damaged[bit >> 3]! ^= 1 << (bit & 7)
        const after = new LearnedPolicy({ capacityBytes: 700 })
        expect(refusedBy(after, [damaged, ...rest])).toBe(1)
      }),
    )
  })
})

/** Restores all of `pieces`. */
function refusedBy(policy: LearnedPolicy, pieces: readonly Uint8Array[]): number {
  const restoring = policy.restore(pieces)
  for (;;) {
    const { done, value } = restoring.next()
    if (done) return value
  }
}

/** Hits of LRU, and of the set with the most requests per byte if it were here from the start. */
function reference(trace: readonly number[], capacityBytes: number): { best: number; lru: number } {
  const requests = new Map<number, number>()
  for (const key of trace) requests.set(key, (requests.get(key) ?? 0) + 1)
  const byDensity = [...requests].sort(([a, m], [b, n]) => n / sizeOf(b) - m / sizeOf(a))
  let free = capacityBytes
  let best = 0
  for (const [key, count] of byDensity) {
    if (sizeOf(key) > free) continue
    free -= sizeOf(key)
    best += count
  }

  const kept = new Map<number, number>()
  let used = 0
  let lru = 0
  for (const key of trace) {
    if (kept.delete(key)) lru++
    else used += sizeOf(key)
    kept.set(key, sizeOf(key))
    for (const [oldest, size] of kept) {
      if (used <= capacityBytes) break
      kept.delete(oldest)
      used -= size
    }
  }
  return { best, lru }
}

/** Keys 0 to 199, popular ones first; always the same. */
function zipf(length: number): number[] {
  let random = 12345
  return Array.from({ length }, () => {
    random = (Math.imul(random, 1103515245) + 12345) >>> 0
    return Math.floor(200 ** (random / 0x1_0000_0000)) - 1
  })
}
