import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { rawCidOf, type Cid } from '../manifests/cid.ts'
import { sha256Of } from '../manifests/digest.ts'
import { planFill, type PlanInput, type Source, type Want } from './plan-fill.ts'
import { bytesOf, joined, without } from './spans.ts'
import { FREE, wireOf, type Span } from './upstream.ts'

const cidOf = (n: number): Cid => rawCidOf(sha256Of(`extent ${n}`))
const cost = { downBytes: 240, upBytes: 80, connectDownBytes: 0, connectUpBytes: 0 }

interface World {
  readonly extents: readonly {
    size: number
    wanted: boolean
    patch: number | null
    based: boolean
    priority: number
  }[]
  readonly perFrame: number
  readonly perPart: number
  readonly staged: readonly Span[]
  readonly batchBytes: number
}

const someSpans = fc
  .array(fc.record({ offset: fc.nat(5000), length: fc.nat(3000) }), { maxLength: 6 })
  .map(spans => joined(spans))
const someWorld: fc.Arbitrary<World> = fc.record({
  extents: fc.array(
    fc.record({
      size: fc.integer({ min: 1, max: 3000 }),
      wanted: fc.boolean(),
      patch: fc.option(fc.nat(800)),
      based: fc.boolean(),
      priority: fc.nat(3),
    }),
    { minLength: 1, maxLength: 12 },
  ),
  perFrame: fc.integer({ min: 1, max: 4 }),
  perPart: fc.integer({ min: 1, max: 4 }),
  staged: someSpans,
  batchBytes: fc.integer({ min: 1, max: 20_000 }),
})

/** One step, and yet two staged ranges to bridge: 2 bytes and 319. */
const TWO_GAPS_IN_A_FRAME: World = {
  extents: [
    { size: 643, wanted: false, patch: null, based: false, priority: 0 },
    { size: 3, wanted: true, patch: null, based: false, priority: 0 },
  ],
  perFrame: 2,
  perPart: 1,
  staged: [
    { offset: 9, length: 2 },
    { offset: 12, length: 319 },
  ],
  batchBytes: 1,
}

/** Extents in one pack, some per frame, stored at half their size; parts of a delta one after another. */
function worldOf({ extents, perFrame, perPart, staged, batchBytes }: World): PlanInput {
  const numberOf = new Map(extents.map((_, n) => [cidOf(n), n]))
  const nothing = () => ({ async *[Symbol.asyncIterator]() {} })
  const spansOf = (per: number, sizeOf: (extent: World['extents'][number]) => number, first: number) => {
    const spans: Span[] = []
    for (let at = 0; at < extents.length; at += per) {
      const last = spans.at(-1)
      const length = extents.slice(at, at + per).reduce((sum, extent) => sum + sizeOf(extent), 0)
      spans.push({ offset: last ? last.offset + last.length : first, length })
    }
    return spans
  }
  const frames = spansOf(perFrame, ({ size }) => Math.ceil(size / 2), 8)
  const parts = spansOf(perPart, ({ patch }) => patch ?? 0, 50)
  const pack: Source = {
    kind: 'frame',
    path: 'packs/a.pack',
    fileBytes: frames.at(-1)!.offset + frames.at(-1)!.length + 100,
    bundleOf(cid) {
      const n = numberOf.get(cid)
      if (n === undefined) return undefined
      const index = Math.floor(n / perFrame)
      return { index, span: frames[index]!, bases: [] }
    },
    extentsOf: nothing,
  }
  const delta: Source = {
    kind: 'delta',
    path: 'deltas/a.delta',
    fileBytes: parts.at(-1)!.offset + parts.at(-1)!.length,
    bundleOf(cid) {
      const n = numberOf.get(cid)
      if (n === undefined || extents[n]!.patch === null) return undefined
      const index = Math.floor(n / perPart)
      return { index, span: parts[index]!, bases: [cidOf(1000 + n)] }
    },
    extentsOf: nothing,
  }
  const based = new Set(extents.flatMap(({ based }, n) => (based ? [cidOf(1000 + n)] : [])))
  const wants = extents.flatMap(({ wanted, size, priority }, n): Want[] =>
    wanted
      ? [
          {
            cid: cidOf(n),
            sizeBytes: size,
            rule: 'fastcdc-v1',
            priority: priority as 0,
            step: 0,
            order: n,
            why: `item ${n}`,
          },
        ]
      : [],
  )
  return {
    dataset: 'health/who',
    revision: 2,
    wants,
    sources: [delta, pack],
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
        const brought = plan.batches.flatMap(batch =>
          batch.steps.flatMap(step => step.wants.map(({ cid }) => cid)),
        )
        expect(brought.toSorted()).toEqual(input.wants.map(({ cid }) => cid).toSorted())
        expect(plan.unobtainable).toEqual([])
        expect(plan.contentBytes).toBe(input.wants.reduce((sum, { sizeBytes }) => sum + sizeBytes, 0))
      }),
    )
  })

  it('asks for all bytes that its steps need and has not, and for no byte twice', () => {
    fc.assert(
      fc.property(someWorld, world => {
        const input = worldOf(world)
        for (const batch of planFill(input).batches) {
          const needed = without(joined(batch.steps.map(({ span }) => span)), input.staged(batch.path))
          expect(without(needed, batch.requests)).toEqual([])
          expect(bytesOf(joined(batch.requests))).toBe(bytesOf(batch.requests))
          expect(Math.max(0, ...batch.requests.map(({ length }) => length))).toBeLessThanOrEqual(
            input.requestBytes,
          )
          const wire = batch.requests.map(span => wireOf(cost, batch.path, span, batch.fileBytes))
          expect(batch.wire.down).toBe(wire.reduce((sum, { down }) => sum + down, 0))
          // each gap that is bridged costs no more than the request that it saves
          const gaps = Math.max(0, needed.length - 1)
          expect(bytesOf(batch.requests) - bytesOf(needed)).toBeLessThanOrEqual(320 * gaps)
        }
      }),
      { examples: [[TWO_GAPS_IN_A_FRAME]] },
    )
  })

  it('is no dearer than frames alone or parts wherever there are any, and close to the best of all', () => {
    let best = 0
    let ours = 0
    fc.assert(
      fc.property(someWorld.map(worldOf), input => {
        const free = { ...input, cost: FREE, staged: () => [] }
        const { down } = planFill(free).wire
        expect(down).toBeLessThanOrEqual(planFill({ ...free, sources: free.sources.slice(1) }).wire.down)
        const optimum = bestOfAll(free)
        expect(down).toBeGreaterThanOrEqual(optimum)
        best += optimum
        ours += down
      }),
    )
    expect(ours).toBeLessThanOrEqual(best * 1.02)
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
          const bytes = bytesOf(steps.map(({ span }) => span))
          expect(steps.length === 1 || bytes <= input.batchBytes).toBe(true)
        }
      }),
    )
  })

  it('is the same for the same input, names included', () => {
    fc.assert(
      fc.property(someWorld, world => {
        expect(planFill(worldOf(world)).batches.map(({ id }) => id)).toEqual(
          planFill(worldOf(world)).batches.map(({ id }) => id),
        )
      }),
    )
  })

  it('says what nobody has', () => {
    const input = worldOf({
      extents: [{ size: 9, wanted: true, patch: null, based: false, priority: 0 }],
      perFrame: 1,
      perPart: 1,
      staged: [],
      batchBytes: 99,
    })
    expect(planFill({ ...input, sources: [] })).toMatchObject({
      batches: [],
      unobtainable: [{ cid: cidOf(0) }],
    })
  })

  it('plans 10,000 changed items in well under 2 s', () => {
    const extents = Array.from({ length: 10_000 }, () => ({
      size: 900,
      wanted: true,
      patch: 100,
      based: true,
      priority: 1,
    }))
    const input = worldOf({ extents, perFrame: 5, perPart: 100, staged: [], batchBytes: 2 ** 20 })
    const since = process.cpuUsage()
    expect(planFill(input).contentBytes).toBe(9_000_000)
    expect(process.cpuUsage(since).user / 1000).toBeLessThan(2000)
  })
})

/** The cheapest bytes of all: every set of parts is tried; the frames follow from it. */
function bestOfAll(input: PlanInput): number {
  const [delta, pack] = input.sources as [Source, Source]
  const usable = (cid: Cid) => {
    const part = delta.bundleOf(cid)
    return part?.bases.every(base => input.holds(base)) ? part : undefined
  }
  const parts = [
    ...new Map(input.wants.flatMap(({ cid }) => usable(cid) ?? []).map(part => [part.index, part])).values(),
  ]
  let best = Infinity
  for (let set = 0; set < 2 ** parts.length; set++) {
    const taken = new Map(
      parts.filter((_, at) => set & (1 << at)).map(part => [part.index, part.span.length]),
    )
    const frames = new Map<number, number>()
    for (const { cid } of input.wants) {
      const part = usable(cid)
      if (part && taken.has(part.index)) continue
      const frame = pack.bundleOf(cid)!
      frames.set(frame.index, frame.span.length)
    }
    best = Math.min(
      best,
      [...taken.values(), ...frames.values()].reduce((sum, bytes) => sum + bytes, 0),
    )
  }
  return best
}

describe('spans', () => {
  const setOf = (spans: readonly Span[]) =>
    new Set(spans.flatMap(({ offset, length }) => Array.from({ length }, (_, i) => offset + i)))

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
