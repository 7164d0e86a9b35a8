import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import type { Cid } from '../cid.ts'
import { sha256Of } from '../digest.ts'
import { EdgeError, isEdgeError } from '../errors.ts'
import { deltaBytes } from './build.ts'
import { type ReadBase, StaticDelta } from './delta.ts'
import { keyOf } from './head.ts'
import { type MemoryRelease, releaseOf } from './testing.ts'

/** Deterministic noise; text-like when `letters` is small. */
function noise(seed: number, length: number, letters = 256): Buffer {
  const bytes = Buffer.allocUnsafe(length)
  let state = seed | 1
  for (let at = 0; at < length; at++) {
    state = (Math.imul(state, 1664525) + 1013904223) | 0
    bytes[at] = (state >>> 16) % letters
  }
  return bytes
}

type Edit =
  | {
      readonly kind: 'replace' | 'insert'
      readonly at: number
      readonly length: number
      readonly seed: number
    }
  | { readonly kind: 'remove'; readonly at: number; readonly length: number }
  | { readonly kind: 'move'; readonly at: number; readonly length: number; readonly to: number }

const where = fc.double({ min: 0, max: 1, noNaN: true })
const howMuch = fc.oneof(fc.integer({ min: 0, max: 40 }), fc.integer({ min: 0, max: 90_000 }))
const someEdit: fc.Arbitrary<Edit> = fc.oneof(
  fc.record({
    kind: fc.constantFrom('replace' as const, 'insert' as const),
    at: where,
    length: howMuch,
    seed: fc.nat(),
  }),
  fc.record({ kind: fc.constant('remove' as const), at: where, length: howMuch }),
  fc.record({ kind: fc.constant('move' as const), at: where, length: howMuch, to: where }),
)

function edited(bytes: Buffer, edits: readonly Edit[]): Buffer {
  for (const edit of edits) {
    const at = Math.floor(edit.at * bytes.length)
    const end = Math.min(at + edit.length, bytes.length)
    if (edit.kind === 'insert')
      bytes = Buffer.concat([bytes.subarray(0, at), noise(edit.seed, edit.length), bytes.subarray(at)])
    if (edit.kind === 'replace')
      bytes = Buffer.concat([bytes.subarray(0, at), noise(edit.seed, end - at), bytes.subarray(end)])
    if (edit.kind === 'remove') bytes = Buffer.concat([bytes.subarray(0, at), bytes.subarray(end)])
    if (edit.kind === 'move') {
      const rest = Buffer.concat([bytes.subarray(0, at), bytes.subarray(end)])
      const to = Math.floor(edit.to * rest.length)
      bytes = Buffer.concat([rest.subarray(0, to), bytes.subarray(at, end), rest.subarray(to)])
    }
  }
  return bytes
}

const someItem = fc.record({
  seed: fc.nat(),
  length: fc.oneof(fc.nat(50), fc.nat(70_000), fc.nat(70_000), fc.nat(400_000)),
  letters: fc.constantFrom(2, 20, 256),
  edits: fc.array(someEdit, { maxLength: 6 }),
  fate: fc.constantFrom(
    'edited',
    'edited',
    'edited',
    'same',
    'removed',
    'added',
    'renamed',
    'halved',
    'doubled',
  ),
})
type SomeItem = typeof someItem extends fc.Arbitrary<infer T> ? T : never

function releasesOf(items: readonly SomeItem[]): { from: MemoryRelease; to: MemoryRelease } {
  const from = new Map<string, Uint8Array>()
  const to = new Map<string, Uint8Array>()
  for (const [at, { seed, length, letters, edits, fate }] of items.entries()) {
    const path = `part ${at % 3}/${at}`
    const old = noise(seed, length, letters)
    if (fate !== 'added') from.set(path, old)
    const changed = edited(old, edits)
    if (fate === 'same') to.set(path, old)
    if (fate === 'edited' || fate === 'added') to.set(path, changed)
    if (fate === 'renamed') to.set(`elsewhere/${at}`, changed)
    if (fate === 'doubled') to.set(path, Buffer.concat([changed, old]))
    if (fate === 'halved') {
      to.set(path, changed.subarray(0, changed.length / 2))
      to.set(`${path} second half`, changed.subarray(changed.length / 2))
    }
  }
  return { from: releaseOf(from), to: releaseOf(to) }
}

type Built = Awaited<ReturnType<typeof deltaBytes>>

async function opened(
  bytes: Buffer,
  { directory }: Built,
  from: MemoryRelease,
  to: MemoryRelease,
): Promise<StaticDelta> {
  const head = bytes.subarray(directory.offset, directory.offset + directory.size)
  const delta = await StaticDelta.open(head, { ...directory, sha256: sha256Of(head) })
  const rootOf = new Map([from.catalog, ...from.all].map(({ root, extents }) => [keyOf(root), extents]))
  delta.nameCatalog(to.catalog, key => rootOf.get(key))
  delta.nameItems(to.entries, key => rootOf.get(key))
  return delta
}

function basesOf(from: MemoryRelease, without: ReadonlySet<string> = new Set()): ReadBase {
  const byKey = new Map([...from.byCid].map(([cid, bytes]) => [keyOf(cid), bytes]))
  return async ({ key }, offset, length) => {
    const bytes = without.has(key) ? undefined : byKey.get(key)
    if (!bytes) throw new EdgeError('DELTA_BASE_ABSENT', key)
    return bytes.subarray(offset, offset + length)
  }
}

const newExtents = (from: MemoryRelease, to: MemoryRelease): Cid[] =>
  [...to.byCid.keys()].filter(cid => !from.byCid.has(cid))

describe('a static delta', () => {
  it('rebuilds every new extent from the old ones, and says which', async () => {
    await fc.assert(
      fc.asyncProperty(fc.array(someItem, { maxLength: 5 }), async items => {
        const { from, to } = releasesOf(items)
        const built = await deltaBytes(from, to)
        expect(built.bytes.length).toBe(built.sizeBytes)
        const delta = await opened(built.bytes, built, from, to)
        expect([...delta.extents.keys()].sort()).toEqual(newExtents(from, to).sort())
        for (const cid of delta.extents.keys()) {
          const { span, bases } = delta.recipeOf(cid)!
          const needed = new Set(bases.map(({ key }) => key))
          const others = new Set([...from.byCid.keys()].map(keyOf).filter(key => !needed.has(key)))
          const fresh = await opened(built.bytes, built, from, to)
          const read = async (offset: number, length: number) => {
            expect({ offset, length }).toEqual(span)
            return built.bytes.subarray(offset, offset + length)
          }
          const bytes = await fresh.rebuild(cid, read, basesOf(from, others))
          expect(Buffer.compare(bytes, to.byCid.get(cid)!)).toBe(0)
        }
      }),
      { numRuns: 25 },
    )
  })

  it('is the same for the same releases', async () => {
    await fc.assert(
      fc.asyncProperty(fc.array(someItem, { maxLength: 4 }), async items => {
        const { from, to } = releasesOf(items)
        expect((await deltaBytes(from, to)).bytes.equals((await deltaBytes(from, to)).bytes)).toBe(true)
      }),
      { numRuns: 6 },
    )
  })

  it('never yields wrong bytes when it is damaged', async () => {
    await fc.assert(
      fc.asyncProperty(
        fc.array(someItem, { minLength: 1, maxLength: 3 }),
        fc.array(fc.tuple(where, fc.integer({ min: 1, max: 255 })), { minLength: 1, maxLength: 5 }),
        async (items, flips) => {
          const { from, to } = releasesOf(items)
          const built = await deltaBytes(from, to)
          const bytes = Buffer.from(built.bytes)
          for (const [at, mask] of flips) bytes[Math.floor(at * bytes.length) % bytes.length]! ^= mask
          try {
            const delta = await opened(bytes, built, from, to)
            for (const cid of delta.extents.keys()) {
              const rebuilt = await delta
                .rebuild(cid, async (at, length) => bytes.subarray(at, at + length), basesOf(from))
                .catch(expectDeltaError)
              if (rebuilt) expect(Buffer.compare(rebuilt, to.byCid.get(cid)!)).toBe(0)
            }
          } catch (error) {
            expectDeltaError(error)
          }
        },
      ),
      { numRuns: 25 },
    )
  })

  it('says which base is absent', async () => {
    const old = noise(1, 400_000)
    const from = releaseOf(new Map([['a', old]]))
    const to = releaseOf(new Map([['a', edited(old, [{ kind: 'insert', at: 0.5, length: 9, seed: 3 }])]]))
    const built = await deltaBytes(from, to)
    const delta = await opened(built.bytes, built, from, to)
    const [item] = to.all
    const nothing = basesOf(releaseOf(new Map()))
    const read = async (at: number, length: number) => built.bytes.subarray(at, at + length)
    await expect(delta.rebuild(item!.root, read, nothing)).rejects.toMatchObject({
      code: 'DELTA_BASE_ABSENT',
    })
    expect(built.sizeBytes).toBeLessThan(600)
  })

  it('costs next to nothing for what was moved, renamed, split and merged', async () => {
    const old = new Map([1, 2, 3, 4].map(seed => [`${seed}`, noise(seed, 3_000_000) as Uint8Array]))
    const bytes = [...old.values()]
    const next = new Map<string, Uint8Array>([
      ['renamed', bytes[0]!],
      ['split 1', bytes[1]!.subarray(0, 1_234_567)],
      ['split 2', bytes[1]!.subarray(1_234_567)],
      ['merged', Buffer.concat([bytes[2]!, bytes[3]!])],
    ])
    const built = await deltaBytes(releaseOf(old), releaseOf(next))
    expect(built.sizeBytes).toBeLessThan(1500)
  })
})

function expectDeltaError(error: unknown): undefined {
  expect(isEdgeError(error, 'DELTA_INVALID', 'DELTA_BASE_ABSENT'), String(error)).toBe(true)
  return undefined
}
