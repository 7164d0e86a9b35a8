import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { rawCidOf, type Cid } from '../manifests/cid.ts'
import { sha256Of } from '../manifests/digest.ts'
import { planFill, type FillPlan, type PlanInput, type Source, type Want } from './plan-fill.ts'
import { joined } from './spans.ts'
import { wholeWireOf, wireOf } from './upstream.ts'

const cidOf = (release: number, n: number): Cid => rawCidOf(sha256Of(`release ${release} extent ${n}`))
const cost = { downBytes: 240, upBytes: 80, connectDownBytes: 0, connectUpBytes: 0 }
/** Wanted is what release 3 has; deltas lead to it from 2, to 2 from 1, to 1 from 0, of which some is here. */
const WANTED = 3

const someWorld = fc.record({
  extents: fc.array(
    fc.record({
      frameBytes: fc.integer({ min: 1, max: 4000 }),
      /** The extent's share of each delta's part; undefined: it has none there. */
      patches: fc.array(fc.option(fc.nat(600), { nil: undefined }), { minLength: 3, maxLength: 3 }),
      /** The oldest, the next, … is here. */
      held: fc.array(fc.boolean(), { minLength: 3, maxLength: 3 }),
      wanted: fc.boolean(),
    }),
    { minLength: 1, maxLength: 10 },
  ),
  perPart: fc.integer({ min: 1, max: 4 }),
})
type World = typeof someWorld extends fc.Arbitrary<infer T> ? T : never

function worldOf({ extents, perPart }: World): PlanInput {
  const nothing = () => ({ async *[Symbol.asyncIterator]() {} })
  const partsOf = (sizeOf: (extent: World['extents'][number]) => number, per: number) => {
    let offset = 60
    return Array.from({ length: Math.ceil(extents.length / per) }, (_, index) => {
      const length = extents.slice(index * per, (index + 1) * per).reduce((sum, one) => sum + sizeOf(one), 0)
      offset += length
      return { offset: offset - length, length }
    })
  }
  const sourceOf = (kind: Source['kind'], path: string, release: number, per: number): Source => {
    const patchOf = ({ patches }: World['extents'][number]) => patches[release - 1]
    const parts = partsOf(kind === 'frame' ? ({ frameBytes }) => frameBytes : one => patchOf(one) ?? 0, per)
    const numberOf = new Map(extents.map((_, n) => [cidOf(release, n), n]))
    return {
      kind,
      path,
      fileBytes: parts.at(-1)!.offset + parts.at(-1)!.length,
      bundleOf(cid) {
        const n = numberOf.get(cid)
        if (n === undefined || (kind === 'delta' && patchOf(extents[n]!) === undefined)) return undefined
        const index = Math.floor(n / per)
        return { index, span: parts[index]!, bases: kind === 'delta' ? [cidOf(release - 1, n)] : [] }
      },
      extentsOf: nothing,
    }
  }
  const held = new Set(
    extents.flatMap(({ held: here }, n) => here.flatMap((is, release) => (is ? [cidOf(release, n)] : []))),
  )
  const wants = extents.flatMap(({ wanted }, order): Want[] => {
    const cid = cidOf(WANTED, order)
    return wanted
      ? [{ cid, sizeBytes: 9000, rule: 'fastcdc-v1', priority: 1, step: 0, order, why: `item ${order}` }]
      : []
  })
  return {
    dataset: 'health/who',
    revision: WANTED,
    wants,
    sources: [sourceOf('delta', 'deltas/3.delta', 3, perPart), sourceOf('frame', 'packs/a.pack', WANTED, 1)],
    helpers: [
      sourceOf('delta', 'deltas/2.delta', 2, perPart),
      sourceOf('delta', 'deltas/1.delta', 1, perPart),
    ],
    holds: cid => held.has(cid),
    staged: () => [],
    cost,
    batchBytes: 3000,
    requestBytes: 900,
  }
}

describe('a plan over several deltas', () => {
  it('has all that each step needs, from what is here on', () => {
    fc.assert(
      fc.property(someWorld.map(worldOf), input => {
        const { batches } = planFill(input)
        for (const { steps, helpers = [], requests } of batches) {
          for (const { source, wants, loads } of steps) {
            const paths = new Set([...loads!].map(load => load.source.path))
            expect(paths.has(source.path)).toBe(true)
            if (source.kind === 'frame') continue
            for (let { cid } of wants) {
              for (let at = -1; at < 2; at++) {
                const delta = at < 0 ? source : input.helpers![at]!
                const bundle = delta.bundleOf(cid)!
                expect([...loads!].some(load => load.source === delta && load.span === bundle.span)).toBe(
                  true,
                )
                cid = bundle.bases[0]!
                if (input.holds(cid)) break
                expect(at).toBeLessThan(1)
              }
            }
          }
          const fetched = new Map(helpers.map(({ path, requests: own }) => [path, own]))
          for (const { source, span } of steps.flatMap(({ loads }) => [...loads!])) {
            const spans = joined(fetched.get(source.path) ?? requests)
            if (span.length === 0) continue
            expect(
              spans.some(
                ({ offset, length }) => offset <= span.offset && offset + length >= span.offset + span.length,
              ),
            ).toBe(true)
          }
        }
      }),
    )
  })

  it('pays for each request once, whoever needs it', () => {
    fc.assert(
      fc.property(someWorld.map(worldOf), input => {
        const { batches, wire } = planFill(input)
        const requests = new Map<string, number>()
        for (const { path, fileBytes, requests: own, helpers = [] } of batches)
          for (const file of [{ path, fileBytes, requests: own }, ...helpers])
            for (const span of file.requests) {
              const { down, up } = wireOf(cost, file.path, span, file.fileBytes)
              requests.set(`${file.path} ${span.offset}`, down + up)
            }
        expect(wire.requests).toBe(requests.size)
        expect(wire.down + wire.up).toBe([...requests.values()].reduce((sum, bytes) => sum + bytes, 0))
      }),
    )
  })

  it('is no dearer than without older deltas', () => {
    fc.assert(
      fc.property(someWorld.map(worldOf), input => {
        const free = { ...input, cost: { ...cost, downBytes: 0, upBytes: 0 } }
        const alone = planFill({ ...free, helpers: [] })
        expect(planFill(free).wire.down).toBeLessThanOrEqual(alone.wire.down)
        expect(planFill(free).unobtainable).toEqual([])
      }),
    )
  })

  it('counts files that come whole once each, and is no dearer than frames alone', () => {
    const files = ['deltas/1.delta', 'deltas/3.delta', 'packs/a.pack']
    const sizesOf = ({ batches }: FillPlan) =>
      new Map(
        batches.flatMap(({ path, fileBytes, requests, helpers = [] }) =>
          [{ path, fileBytes, requests }, ...helpers].flatMap(file =>
            file.requests.length > 0 ? [[file.path, file.fileBytes] as const] : [],
          ),
        ),
      )
    fc.assert(
      fc.property(someWorld.map(worldOf), fc.subarray(files), fc.boolean(), (world, whole, begun) => {
        const kept = { offset: 0, length: begun ? 90 : 0 }
        const staged = (path: string) => [whole.includes(path) ? { offset: 0, length: 1e6 } : kept]
        const input = { ...world, ranges: false, staged }
        const plan = planFill(input)
        const sizes = sizesOf(plan)
        const prices = Array.from(sizes, ([path, size]) => wholeWireOf(cost, path, kept.length, size))
        expect(plan.unobtainable).toEqual([])
        expect(sizes.keys().some(path => whole.includes(path))).toBe(false)
        expect(plan.wire).toEqual({
          requests: sizes.size,
          down: prices.reduce((sum, { down }) => sum + down, 0),
          up: prices.reduce((sum, { up }) => sum + up, 0),
        })
        const frames = sizesOf(planFill({ ...input, sources: input.sources.slice(1), helpers: [] }))
        const sum = (some: typeof sizes) => some.values().reduce((bytes, size) => bytes + size, 0)
        expect(sum(sizes)).toBeLessThanOrEqual(sum(frames))
      }),
    )
  })
})
