import { describe, expect, it } from 'vitest'
import { rawCidOf } from '../cid.ts'
import { sha256Of } from '../digest.ts'
import { FRAME_BYTES_MAX, SHARED_FRAME_BYTES } from '../pack.ts'
import { stream } from '../vectors/vectors.ts'
import { frameGroups, type PackExtent } from './frame-groups.ts'
import { estimatorOf } from './frame-writer.ts'

const noise = stream(30_000_000)
const PROFILES = Array.from({ length: 3 }, (_, at) => noise.subarray(at * 90_000, at * 90_000 + 90_000))

/** A picture of its own, after one of a few long profiles. */
function picture(number: number): PackExtent {
  const own = noise.subarray(400_000 + number * 20_000, 420_000 + number * 20_000)
  return extentOf(Buffer.concat([PROFILES[number % PROFILES.length]!, own]))
}

function text(number: number): PackExtent {
  const words = Array.from({ length: 12_000 }, (_, at) => `${noise[number * 12_000 + at]}`)
  return extentOf(Buffer.from(words.join(' ')))
}

function extentOf(bytes: Uint8Array): PackExtent {
  return { cid: rawCidOf(sha256Of(bytes)), bytes }
}

async function grouped(extents: readonly PackExtent[]): Promise<number[][]> {
  const estimator = estimatorOf()
  try {
    const groups = await Array.fromAsync(
      frameGroups(
        (async function* () {
          yield* extents
        })(),
        { savingOf: async () => 0.5, estimator: () => estimator },
      ),
    )
    return groups.map(group => group.map(extent => extents.indexOf(extent)))
  } finally {
    estimator.close()
  }
}

const sizeOf = (extents: readonly PackExtent[], group: readonly number[]) =>
  group.reduce((sum, at) => sum + extents[at]!.bytes.length, 0)

describe('frames of small extents', () => {
  it('have what is alike together, in larger frames where that pays', async () => {
    const pictures = Array.from({ length: 150 }, (_, number) => picture(number))
    const groups = await grouped(pictures)
    expect(groups.flat().toSorted((a, b) => a - b)).toEqual(pictures.map((_, at) => at))
    for (const group of groups) expect(sizeOf(pictures, group)).toBeLessThanOrEqual(FRAME_BYTES_MAX)
    const profiles = groups.map(group => new Set(group.map(at => at % PROFILES.length)).size)
    expect(profiles.reduce((sum, count) => sum + count, 0)).toBeLessThan(PROFILES.length * groups.length)
    expect(groups.some(group => sizeOf(pictures, group) > SHARED_FRAME_BYTES)).toBe(true)
    expect(await grouped(pictures)).toEqual(groups) // and the same frames each time
  })

  it('are in the order of the folder where another one gains nothing', async () => {
    const texts = Array.from({ length: 240 }, (_, number) => text(number))
    const groups = await grouped(texts)
    expect(groups.length).toBeGreaterThan(1)
    expect(groups.flat()).toEqual(texts.map((_, at) => at))
    for (const group of groups) expect(sizeOf(texts, group)).toBeLessThanOrEqual(SHARED_FRAME_BYTES)
  })
})
