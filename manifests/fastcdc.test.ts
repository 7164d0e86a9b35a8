import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { sha256Of } from './digest.ts'
import { chunksOf, CHUNKING, nextCut, type Chunking } from './fastcdc.ts'
import { stream, vectors } from './vectors/vectors.ts'

interface Vectors {
  gear: [value: number, entry: number][]
  cuts: { name: string; input: string; sizeBytes: number; ends: number[] }[]
}

const SMALL: Chunking = { name: 'fastcdc-v1', minBytes: 64, avgBytes: 256, maxBytes: 1024 }
const inputs: Record<string, (sizeBytes: number) => Buffer> = {
  stream,
  zeros: size => Buffer.alloc(size),
  text: size => Buffer.from('A tower keeps what it was given. '.repeat(Math.ceil(size / 33)).slice(0, size)),
}

const gearOf = (byte: number) => Buffer.from(sha256Of(`fastcdc-v1 ${byte}`), 'hex').readInt32LE()

/** The rule as docs/formats.md words it: every place looked at, every hash made from nothing. */
function slowCut(bytes: Uint8Array, from: number, { minBytes, avgBytes, maxBytes }: Chunking): number {
  const bits = Math.log2(avgBytes)
  for (let at = from; at < bytes.length; at++) {
    const length = at - from + 1
    if (length === maxBytes || at === bytes.length - 1) return at + 1
    if (length < minBytes) continue
    let hash = 0
    for (const byte of bytes.subarray(at - 31, at + 1)) hash = (hash * 2 + gearOf(byte)) | 0
    if (hash >>> (32 - (length <= avgBytes ? bits + 2 : bits - 2)) === 0) return at + 1
  }
  throw new Error('nothing to cut')
}

function endsOf(bytes: Uint8Array, chunking: Chunking): number[] {
  const ends: number[] = []
  while ((ends.at(-1) ?? 0) < bytes.length)
    ends.push(nextCut(bytes, ends.at(-1) ?? 0, bytes.length, chunking))
  return ends
}

describe('nextCut', () => {
  it('goes by the gear table of the vectors', () => {
    const { gear } = vectors('fastcdc.json') as Vectors
    for (const [value, entry] of gear) expect(gearOf(value)).toBe(entry)
  })

  it('gives the ends of the vectors', () => {
    for (const { name, input, sizeBytes, ends } of (vectors('fastcdc.json') as Vectors).cuts) {
      expect(endsOf(inputs[input]!(sizeBytes), CHUNKING), name).toEqual(ends)
    }
  })

  it('equals the rule as worded, place by place', () => {
    const bytes = stream(40_000)
    fc.assert(
      fc.property(fc.nat(30_000), fc.nat(3000), (from, length) => {
        const item = bytes.subarray(0, from + length + 1)
        expect(nextCut(item, from, item.length, SMALL)).toBe(slowCut(item, from, SMALL))
      }),
      { numRuns: 30 },
    )
  })

  it('keeps chunks between the smallest and the largest, near the average', () => {
    const ends = endsOf(stream(16 * 1024 * 1024), CHUNKING)
    const sizes = ends.map((end, at) => end - (ends[at - 1] ?? 0)).slice(0, -1)
    expect(Math.min(...sizes)).toBeGreaterThanOrEqual(CHUNKING.minBytes)
    expect(Math.max(...sizes)).toBeLessThanOrEqual(CHUNKING.maxBytes)
    expect(sizes.reduce((total, size) => total + size) / sizes.length).toBeLessThan(90_000)
  })

  it('changes one or two chunks for an insertion', () => {
    const old = stream(8 * 1024 * 1024)
    const at = 3_000_000
    const edited = Buffer.concat([old.subarray(0, at), Buffer.from('ten bytes!'), old.subarray(at)])
    const before = new Set(digestsOf(old))
    expect(digestsOf(edited).filter(digest => !before.has(digest)).length).toBeLessThanOrEqual(2)
  })
})

describe('chunksOf', () => {
  it('cuts a stream as it cuts the whole, however it is delivered', async () => {
    const bytes = stream(60_000)
    await fc.assert(
      fc.asyncProperty(
        fc.nat(60_000),
        fc.array(fc.integer({ min: 1, max: 9000 }), { minLength: 1 }),
        async (size, steps) => {
          const item = bytes.subarray(0, size)
          const ends: number[] = []
          for await (const chunk of chunksOf(pieces(item, steps), SMALL)) {
            const from = ends.at(-1) ?? 0
            ends.push(from + chunk.sizeBytes)
            expect(chunk.digest).toBe(sha256Of(item.subarray(from, from + chunk.sizeBytes)))
            expect(chunk.bytes.length).toBe(chunk.sizeBytes)
          }
          expect(ends).toEqual(endsOf(item, SMALL))
        },
      ),
      { numRuns: 50 },
    )
  })
})

function digestsOf(bytes: Uint8Array): string[] {
  const ends = endsOf(bytes, CHUNKING)
  return ends.map((end, at) => sha256Of(bytes.subarray(ends[at - 1] ?? 0, end)))
}

function* pieces(bytes: Uint8Array, steps: number[]): Generator<Uint8Array> {
  for (let from = 0, at = 0; from < bytes.length; at++) {
    const step = steps[at % steps.length]!
    yield bytes.subarray(from, from + step)
    from += step
  }
}
