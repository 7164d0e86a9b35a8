/**
 * Which extents share a frame. What shrinks is compressed together with its neighbours; what does not
 * is left apart, to be read as it is.
 *
 * Small extents come in the order of their paths, in frames of 4 MiB. Where it pays, as a fast
 * compressor tells, they are put in the order of their likeness instead, and two frames become one:
 * a book's pictures carry the same profiles and the same drawings again and again, far apart in a
 * folder. That takes 10 to 20 % off their first fill, and nothing off a text's, which stays as it is.
 */
import type { Cid } from '../cid.ts'
import { FRAME_BYTES_MAX, OWN_FRAME_BYTES, SHARED_FRAME_BYTES } from '../pack.ts'
import { likenessOf } from './likeness.ts'
import { free, type ZstdEncoder } from './zstd-encoder.ts'

export interface PackExtent {
  readonly cid: Cid
  readonly bytes: Uint8Array
  /** The extent's dag-pb node; none for a raw one. */
  readonly node?: Uint8Array
  /** Called when `bytes` are not needed any more. */
  readonly free?: () => void
}

/** Large extents that shrink by so much share frames: 3 to 6 % off the first fill of a textbook. */
const JOINED_SAVING = 0.03
/** Small extents that are looked at together, in bytes. */
const ARRANGED_BYTES = 32 * 1024 * 1024
/** Whoever wants one item of a frame fetches all of it: a frame twice as large has to be worth it. */
const TWICE_SAVING = 0.05
/** What is near in the folder is often wanted together: another order has to be worth it, too. */
const ORDER_SAVING = 0.02

/** `undefined` among the extents ends a shared frame, so that what follows is in another one. */
export async function* frameGroups(
  extents: AsyncIterable<PackExtent | undefined>,
  tools: {
    /** The share that a fast level saves. */
    readonly savingOf: (bytes: Uint8Array) => Promise<number>
    /** A fast level that sees all of a frame. */
    readonly estimator: () => ZstdEncoder
  },
): AsyncGenerator<PackExtent[]> {
  const large = new Group(FRAME_BYTES_MAX)
  const small = new Group(ARRANGED_BYTES)
  const rest = async function* () {
    if (!large.isEmpty) yield large.taken()
    if (!small.isEmpty) yield* await arranged(small.taken(), tools.estimator)
  }
  for await (const extent of extents) {
    if (!extent) {
      yield* rest()
      continue
    }
    const isLarge = extent.bytes.length >= OWN_FRAME_BYTES
    if (isLarge && (await tools.savingOf(extent.bytes)) < JOINED_SAVING) yield [extent]
    else if (isLarge || (extent.node && large.hasRoomFor(extent))) {
      if (!large.isEmpty && !large.hasRoomFor(extent)) yield large.taken()
      large.add(extent)
    } else {
      small.add(extent)
      if (small.isFull) yield* await arranged(small.taken(), tools.estimator)
    }
  }
  yield* rest()
}

/** Extents that will share a frame, or be looked at together. */
class Group {
  bytes = 0
  readonly #bytesMax: number
  #extents: PackExtent[] = []

  constructor(bytesMax: number) {
    this.#bytesMax = bytesMax
  }

  get isEmpty(): boolean {
    return this.#extents.length === 0
  }

  get isFull(): boolean {
    return this.bytes >= this.#bytesMax
  }

  /** Of a group that has been begun. */
  hasRoomFor({ bytes }: PackExtent): boolean {
    return !this.isEmpty && this.bytes + bytes.length <= this.#bytesMax
  }

  add(extent: PackExtent): void {
    this.#extents.push(extent)
    this.bytes += extent.bytes.length
  }

  taken(): PackExtent[] {
    const extents = this.#extents
    this.#extents = []
    this.bytes = 0
    return extents
  }
}

interface Estimated {
  readonly extents: PackExtent[]
  readonly bytes: number
}

async function arranged(
  extents: readonly PackExtent[],
  makeEstimator: () => ZstdEncoder,
): Promise<PackExtent[][]> {
  const inPlace = inFrames(extents)
  if (inPlace.length === 1) return inPlace
  const estimator = makeEstimator()
  const byPath = await estimated(inPlace, estimator)
  const byLikeness = await estimated(inFrames(alikeTogether(extents)), estimator)
  const isBetter = sum(byLikeness) < sum(byPath) * (1 - ORDER_SAVING)
  return await joinedWhereItPays(isBetter ? byLikeness : byPath, estimator)
}

function inFrames(extents: readonly PackExtent[]): PackExtent[][] {
  const frames: PackExtent[][] = []
  const frame = new Group(SHARED_FRAME_BYTES)
  for (const extent of extents) {
    if (!frame.isEmpty && !frame.hasRoomFor(extent)) frames.push(frame.taken())
    frame.add(extent)
  }
  if (!frame.isEmpty) frames.push(frame.taken())
  return frames
}

async function joinedWhereItPays(
  frames: readonly Estimated[],
  estimator: ZstdEncoder,
): Promise<PackExtent[][]> {
  const result: PackExtent[][] = []
  for (let at = 0; at < frames.length; at++) {
    const [here, next] = [frames[at]!, frames[at + 1]]
    const both = next && [...here.extents, ...next.extents]
    if (both && rawBytes(both) <= FRAME_BYTES_MAX) {
      const together = await estimateOf(both, estimator)
      if (together.bytes < sum([here, next]) * (1 - TWICE_SAVING)) {
        result.push(both)
        at++
        continue
      }
    }
    result.push(here.extents)
  }
  return result
}

async function estimated(frames: readonly PackExtent[][], estimator: ZstdEncoder): Promise<Estimated[]> {
  const result: Estimated[] = []
  for (const extents of frames) result.push(await estimateOf(extents, estimator))
  return result
}

async function estimateOf(extents: PackExtent[], estimator: ZstdEncoder): Promise<Estimated> {
  const compressed = await estimator.compress(...extents.map(({ bytes }) => bytes))
  const bytes = compressed.length
  free(compressed.buffer)
  return { extents, bytes }
}

function alikeTogether(extents: readonly PackExtent[]): PackExtent[] {
  return extents
    .map((extent, place) => ({ extent, place, likeness: likenessOf(extent.bytes) }))
    .toSorted((a, b) => compared(a.likeness, b.likeness) || a.place - b.place)
    .map(({ extent }) => extent)
}

function compared(a: Uint32Array, b: Uint32Array): number {
  const at = a.findIndex((value, lane) => value !== b[lane])
  return at < 0 ? 0 : a[at]! - b[at]!
}

function sum(frames: readonly Estimated[]): number {
  return frames.reduce((total, { bytes }) => total + bytes, 0)
}

function rawBytes(extents: readonly PackExtent[]): number {
  return extents.reduce((total, { bytes }) => total + bytes.length, 0)
}
