import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { rawCidOf, type Cid } from '../manifests/cid.ts'
import { sha256Of } from '../manifests/digest.ts'
import { planFill, spansOf, type DeltaSource, type PackSource, type PlanInput, type Want } from './plan-fill.ts'
import { bytesOf, joined, without } from './spans.ts'
import { FREE, wireOf, type Span } from './upstream.ts'

const cidOf = (n: number): Cid => rawCidOf(sha256Of(`extent ${n}`))
const cost = { downBytes: 240, upBytes: 80, connectDownBytes: 0, connectUpBytes: 0 }

interface World {
  readonly extents: readonly { size: number; wanted: boolean; patch: number | null; based: boolean; priority: number }[]
  readonly perFrame: number
  readonly staged: readonly Span[]
  readonly batchBytes: number
}

const someSpans = fc.array(fc.record({ offset: fc.nat(5000), length: fc.nat(3000) }), { maxLength: 6 }).map(spans => joined(spans))
const someWorld: fc.Arbitrary<World> = fc.record({
  extents: fc.array(
    fc.record({
      size: fc.integer({ min: 1, max: 3000 }),
      wanted: fc.boolean(),
      patch: fc.option(fc.nat(800)),
      based: fc.boolean(),
      priority: fc.nat(3),
    }),
    { minLength: 1, maxLength: 25 },
  ),
  perFrame: fc.integer({ min: 1, max: 4 }),
  staged: someSpans,
  batchBytes: fc.integer({ min: 1, max: 20_000 }),
})

/** Extents in one pack, some per frame, stored at half their size; patches one after another. */
function worldOf({ extents, perFrame, staged, batchBytes }: World): PlanInput {
  const frames: Span[] = []
  for (let at = 0; at < extents.length; at += perFrame) {
    const raw = extents.slice(at, at + perFrame).reduce((sum, { size }) => sum + size, 0)
    const last = frames.at(-1)
    frames.push({ offset: last ? last.offset + last.length : 8, length: Math.ceil(raw / 2) })
  }
  const fileBytes = frames.at(-1)!.offset + frames.at(-1)!.length + 100
  const numberOf = new Map(extents.map((_, n) => [cidOf(n), n]))
  const pack: PackSource = {
    path: 'packs/a.pack',
    fileBytes,
    frameOf(cid) {
      const n = numberOf.get(cid)
      if (n === undefined) return undefined
      const index = Math.floor(n / perFrame)
      return { index, span: frames[index]! }
    },
    extentsOf: () => Promise.reject(new Error('not run here')),
  }
  let at = 50
  const patches = extents.map(({ patch }) => {
    const span = { offset: at, length: patch ?? 0 }
    at += span.length
    return span
  })
  const delta: DeltaSource = {
    path: 'deltas/a.delta',
    fileBytes: at,
    recipeOf(cid) {
      const n = numberOf.get(cid)
      if (n === undefined || extents[n]!.patch === null) return undefined
      return { spans: patches[n]!.length > 0 ? [patches[n]!] : [], bases: [cidOf(1000 + n)] }
    },
    rebuild: () => Promise.reject(new Error('not run here')),
  }
  const based = new Set(extents.flatMap(({ based }, n) => (based ? [cidOf(1000 + n)] : [])))
  const wants = extents.flatMap(({ wanted, size, priority }, n): Want[] =>
    wanted ? [{ cid: cidOf(n), sizeBytes: size, rule: 'fastcdc-v1', priority: priority as 0, order: n, why: `item ${n}` }] : [],
  )
  return {
    dataset: 'health/who',
    revision: 2,
    wants,
    packs: [pack],
    deltas: [delta],
    holds: cid => based.has(cid),
    staged: path => (path === pack.path ? staged : []),
    cost,
    batchBytes,
    requestBytes: 2500,
  }
}

describe('a plan', () => {
  it('brings every wanted extent exactly once', () => {
    fc.assert(
      fc.property(someWorld.map(worldOf), input => {
        const plan = planFill(input)
        const brought = plan.batches.flatMap(batch => batch.steps.flatMap(step => step.wants.map(({ cid }) => cid)))
        expect(brought.toSorted()).toEqual(input.wants.map(({ cid }) => cid).toSorted())
        expect(plan.unobtainable).toEqual([])
        expect(plan.contentBytes).toBe(input.wants.reduce((sum, { sizeBytes }) => sum + sizeBytes, 0))
      }),
    )
  })

  it('asks for all bytes that its steps need and has not, and for no byte twice', () => {
    fc.assert(
      fc.property(someWorld.map(worldOf), input => {
        for (const batch of planFill(input).batches) {
          const needed = without(joined(batch.steps.flatMap(spansOf)), input.staged(batch.path))
          expect(without(needed, batch.requests)).toEqual([])
          expect(bytesOf(joined(batch.requests))).toBe(bytesOf(batch.requests))
          expect(Math.max(0, ...batch.requests.map(({ length }) => length))).toBeLessThanOrEqual(input.requestBytes)
          const wire = batch.requests.map(span => wireOf(cost, batch.path, span, batch.fileBytes))
          expect(batch.wire.down).toBe(wire.reduce((sum, { down }) => sum + down, 0))
          expect(bytesOf(batch.requests) - bytesOf(needed)).toBeLessThanOrEqual(batch.requests.length === 0 ? 0 : 320 * batch.steps.length)
        }
      }),
    )
  })

  it('is no dearer than frames alone, nor than the best choice per frame', () => {
    fc.assert(
      fc.property(someWorld.map(worldOf), input => {
        const free = { ...input, cost: FREE, staged: () => [] }
        const { wire } = planFill(free)
        expect(wire.down).toBeLessThanOrEqual(planFill({ ...free, deltas: [] }).wire.down)
        expect(wire.down).toBe(bestByHand(free))
      }),
    )
  })

  it('puts lower priorities later', () => {
    fc.assert(
      fc.property(someWorld.map(worldOf), input => {
        const priorities = planFill(input).batches.map(({ priority }) => priority)
        expect(priorities).toEqual(priorities.toSorted((a, b) => a - b))
      }),
    )
  })

  it('keeps batches near their size', () => {
    fc.assert(
      fc.property(someWorld.map(worldOf), input => {
        for (const { steps } of planFill(input).batches) {
          const bytes = bytesOf(steps.flatMap(spansOf))
          expect(steps.length === 1 || bytes <= input.batchBytes).toBe(true)
        }
      }),
    )
  })

  it('is the same for the same input, names included', () => {
    fc.assert(
      fc.property(someWorld, world => {
        expect(planFill(worldOf(world)).batches.map(({ id }) => id)).toEqual(planFill(worldOf(world)).batches.map(({ id }) => id))
      }),
    )
  })

  it('says what nobody has', () => {
    const input = worldOf({ extents: [{ size: 9, wanted: true, patch: null, based: false, priority: 0 }], perFrame: 1, staged: [], batchBytes: 99 })
    expect(planFill({ ...input, packs: [] })).toMatchObject({ batches: [], unobtainable: [{ cid: cidOf(0) }] })
  })

  it('plans 10,000 changed items in well under 2 s', () => {
    const extents = Array.from({ length: 10_000 }, () => ({ size: 900, wanted: true, patch: 100, based: true, priority: 1 }))
    const input = worldOf({ extents, perFrame: 1, staged: [], batchBytes: 2 ** 20 })
    const since = performance.now()
    expect(planFill(input).contentBytes).toBe(9_000_000)
    expect(performance.now() - since).toBeLessThan(1000)
  })
})

/** Cheapest bytes, frame by frame: the frame, or patches for all its extents. */
function bestByHand(input: PlanInput): number {
  const frames = new Map<number, { whole: number; patches: number }>()
  for (const { cid } of input.wants) {
    const { index, span } = input.packs[0]!.frameOf(cid)!
    const recipe = input.deltas[0]!.recipeOf(cid)
    const patch = recipe && recipe.bases.every(base => input.holds(base)) ? bytesOf(recipe.spans) : Infinity
    const frame = frames.get(index) ?? { whole: span.length, patches: 0 }
    frames.set(index, { whole: frame.whole, patches: frame.patches + patch })
  }
  return [...frames.values()].reduce((sum, { whole, patches }) => sum + Math.min(whole, patches), 0)
}

describe('spans', () => {
  const setOf = (spans: readonly Span[]) => new Set(spans.flatMap(({ offset, length }) => Array.from({ length }, (_, i) => offset + i)))

  it('are what sets of bytes are', () => {
    const spans = fc.array(fc.record({ offset: fc.nat(60), length: fc.nat(15) }), { maxLength: 8 })
    fc.assert(
      fc.property(spans, spans, (a, b) => {
        expect(setOf(joined(a))).toEqual(setOf(a))
        expect(setOf(without(joined(a), joined(b)))).toEqual(setOf(a).difference(setOf(b)))
      }),
    )
  })
})
