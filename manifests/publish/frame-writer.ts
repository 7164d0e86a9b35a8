/**
 * Extents into frames (`frame-groups.ts` says which share one), each compressed as docs/formats.md
 * says. Two frames are compressed at a time, so that two cores are busy; at most about 60 MiB of
 * content are held.
 */
import { promisify } from 'node:util'
import { constants, zstdCompress } from 'node:zlib'
import { OWN_FRAME_BYTES, type FrameCodec, type FrameEntry } from '../pack.ts'
import { frameGroups, type PackExtent } from './frame-groups.ts'
import { free, ZstdEncoder } from './zstd-encoder.ts'

export interface WrittenFrame extends FrameEntry {
  readonly stored: Uint8Array
  /** The nodes of its extents, in order. */
  readonly index: readonly Uint8Array[]
  /** To be called when `stored` is not needed any more. */
  readonly free: () => void
}

/** Looks for a frame that an earlier pack, or an interrupted publish, has compressed already. */
export type FrameFinder = (
  extents: readonly PackExtent[],
  raw: Uint8Array,
) => Promise<{ codec: FrameCodec; stored: Uint8Array } | undefined>

export interface Effort {
  readonly level: number
  /** Most nodes will take the delta instead. */
  readonly isUpdate: boolean
}

const IN_FLIGHT = 2
const TRIAL_LEVEL = 3
const TRIAL_SAVING = 0.01
/**
 * In an update a quarter of the time is worth one percent of bytes that few will fetch. And what gains
 * no more than this from a middle level over a fast one is left at that: for pictures, the best level
 * takes twenty times as long and saves one percent more.
 */
const UPDATE_LEVEL = 17
const MIDDLE_LEVEL = 9
const MIDDLE_SAVING = 0.02
const SAMPLES = 16
const SAMPLE_BYTES = 32 * 1024
const SAVING = 0.03
const compress = promisify(zstdCompress)

/**
 * @param extents `undefined` ends a shared frame, so that what follows is in another one.
 * @param effort `level` is zstd's, 1 to 22; 19 is what releases are made with.
 */
export async function* writtenFrames(
  extents: AsyncIterable<PackExtent | undefined>,
  effort: Effort,
  find: FrameFinder,
): AsyncGenerator<WrittenFrame> {
  const underWay: Promise<WrittenFrame>[] = []
  const encoders: Encoders[] = []
  const fast = new ZstdEncoder(paramsOf(Math.min(effort.level, TRIAL_LEVEL)))
  let estimator: ZstdEncoder | undefined
  let count = 0
  try {
    const tools = {
      savingOf: (bytes: Uint8Array) => savingOf(bytes, fast),
      estimator: () => (estimator ??= estimatorOf()), // a large item needs its 20 MiB for frames
    }
    for await (const group of frameGroups(extents, tools)) {
      const encoder = (encoders[count++ % IN_FLIGHT] ??= { fast, ...encodersOf(effort) }) // its last frame has been awaited
      const frame = writeFrame(group, raw => compressFrame(raw, encoder), find)
      frame.catch(() => {}) // awaited below, unless an earlier one fails first
      underWay.push(frame)
      if (underWay.length >= IN_FLIGHT) yield await underWay.shift()!
    }
    while (underWay.length > 0) yield await underWay.shift()!
  } finally {
    await Promise.allSettled(underWay)
    fast.close()
    estimator?.close()
    for (const { middle, full } of encoders) for (const one of [middle, full]) one?.close()
  }
}

interface Compressed {
  readonly codec: FrameCodec
  readonly stored: Uint8Array
}

async function writeFrame(
  extents: readonly PackExtent[],
  compressed: (raw: Uint8Array) => Promise<Compressed>,
  find: FrameFinder,
): Promise<WrittenFrame> {
  const written = extents.map(({ cid, bytes, node }) => ({
    cid,
    sizeBytes: bytes.length,
    indexBytes: node?.length ?? 0,
  }))
  const { raw, freeRaw } = rawOf(extents)
  const { codec, stored } = (await find(extents, raw)) ?? (await compressed(raw))
  if (codec === 'zstd') freeRaw()
  return {
    codec,
    stored,
    storedBytes: stored.length,
    extents: written,
    index: extents.flatMap(extent => extent.node ?? []),
    free: codec === 'plain' ? freeRaw : () => freeWhole(stored),
  }
}

function rawOf(extents: readonly PackExtent[]): { raw: Uint8Array; freeRaw: () => void } {
  const [first] = extents
  if (extents.length === 1) return { raw: first!.bytes, freeRaw: () => first!.free?.() }
  const raw = new Uint8Array(extents.reduce((sum, { bytes }) => sum + bytes.length, 0))
  let at = 0
  for (const { bytes, free: freeExtent } of extents) {
    raw.set(bytes, at)
    at += bytes.length
    freeExtent?.()
  }
  return { raw, freeRaw: () => freeWhole(raw) }
}

/** What is alike within a frame is found at any distance. */
export function estimatorOf(): ZstdEncoder {
  return new ZstdEncoder({
    ...paramsOf(TRIAL_LEVEL),
    [constants.ZSTD_c_windowLog]: 23,
    [constants.ZSTD_c_enableLongDistanceMatching]: 1,
  })
}

interface Encoders {
  /** To find out what is compressed already; one for all. */
  readonly fast: ZstdEncoder
  /** To find out whether effort pays, where that is asked. */
  readonly middle: ZstdEncoder | undefined
  readonly full: ZstdEncoder
}

function encodersOf({ level, isUpdate }: Effort): Omit<Encoders, 'fast'> {
  const upTo = (own: number) => new ZstdEncoder(paramsOf(Math.min(level, own)))
  const middle = isUpdate && level > MIDDLE_LEVEL ? upTo(MIDDLE_LEVEL) : undefined
  return { middle, full: upTo(isUpdate ? UPDATE_LEVEL : level) }
}

/** Plain where zstd gains too little. */
async function compressFrame(raw: Uint8Array, { fast, middle, full }: Encoders): Promise<Compressed> {
  const plain = { codec: 'plain' as const, stored: raw }
  if ((await savingOf(raw, fast)) < TRIAL_SAVING) return plain
  const cheap = middle && raw.length >= OWN_FRAME_BYTES ? await goodEnough(raw, fast, middle) : undefined
  const stored = cheap ?? (await full.compress(raw))
  return stored.length > raw.length * (1 - SAVING) ? plain : { codec: 'zstd', stored }
}

async function goodEnough(
  raw: Uint8Array,
  fast: ZstdEncoder,
  middle: ZstdEncoder,
): Promise<Uint8Array | undefined> {
  const quick = await fast.compress(raw)
  const better = await middle.compress(raw)
  const isEnough = better.length > quick.length * (1 - MIDDLE_SAVING)
  freeWhole(quick)
  if (isEnough) return better
  freeWhole(better)
  return undefined
}

/** The share that a fast level saves, of a sample. */
async function savingOf(raw: Uint8Array, trial: ZstdEncoder): Promise<number> {
  const sample = raw.length <= SAMPLES * SAMPLE_BYTES ? raw : sampleOf(raw)
  return 1 - (await trial.compress(sample)).length / Math.max(sample.length, 1)
}

/** Evenly spread. */
function sampleOf(raw: Uint8Array): Uint8Array {
  const step = Math.floor(raw.length / SAMPLES)
  return Buffer.concat(
    Array.from({ length: SAMPLES }, (_, at) => raw.subarray(at * step, at * step + SAMPLE_BYTES)),
  )
}

function freeWhole({ buffer, byteLength }: Uint8Array): void {
  if (buffer instanceof ArrayBuffer && buffer.byteLength === byteLength) free(buffer)
}

/** For directories: any gain is worth it, and they are never plain. */
export async function compressDirectory(raw: Uint8Array, level: number): Promise<Uint8Array> {
  return await compress(raw, { pledgedSrcSize: raw.length, params: paramsOf(level) })
}

/** Tables of 18 MiB instead of 48: costs 0.3 % on a textbook, and two run at a time. */
function paramsOf(level: number): Record<number, number> {
  return {
    [constants.ZSTD_c_compressionLevel]: level,
    ...(level > MIDDLE_LEVEL && {
      [constants.ZSTD_c_windowLog]: 23,
      [constants.ZSTD_c_chainLog]: 22,
      [constants.ZSTD_c_hashLog]: 19,
    }),
  }
}
