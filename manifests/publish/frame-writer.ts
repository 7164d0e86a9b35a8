/**
 * Extents into frames: large extents alone, small ones together in the order in which they come,
 * each frame compressed as docs/formats.md says. Two frames are compressed at a time, so that two
 * cores are busy; at most about 50 MiB of content are held.
 */
import { promisify } from 'node:util'
import { constants, zstdCompress } from 'node:zlib'
import type { Cid } from '../cid.ts'
import { OWN_FRAME_BYTES, SHARED_FRAME_BYTES, type FrameCodec, type FrameEntry } from '../pack.ts'
import { free, ZstdEncoder } from './zstd-encoder.ts'

export interface PackExtent {
  readonly cid: Cid
  readonly bytes: Uint8Array
  /** The extent's dag-pb node; none for a raw one. */
  readonly node?: Uint8Array
  /** Called when `bytes` are not needed any more. */
  readonly free?: () => void
}

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

const IN_FLIGHT = 2
const TRIAL_LEVEL = 3
const TRIAL_SAVING = 0.01
const SAMPLES = 16
const SAMPLE_BYTES = 32 * 1024
const SAVING = 0.03
const compress = promisify(zstdCompress)

/**
 * @param extents `undefined` ends a shared frame, so that what follows is in another one.
 * @param level zstd's, 1 to 22; 19 is what releases are made with.
 */
export async function* writtenFrames(
  extents: AsyncIterable<PackExtent | undefined>,
  level: number,
  find: FrameFinder,
): AsyncGenerator<WrittenFrame> {
  const underWay: Promise<WrittenFrame>[] = []
  const encoders: Encoders[] = []
  let count = 0
  try {
    for await (const group of frameGroups(extents)) {
      const encoder = (encoders[count++ % IN_FLIGHT] ??= encodersOf(level)) // its last frame has been awaited
      const frame = writeFrame(group, raw => compressFrame(raw, encoder), find)
      frame.catch(() => {}) // awaited below, unless an earlier one fails first
      underWay.push(frame)
      if (underWay.length >= IN_FLIGHT) yield await underWay.shift()!
    }
    while (underWay.length > 0) yield await underWay.shift()!
  } finally {
    await Promise.allSettled(underWay)
    for (const { trial, full } of encoders) [trial, full].forEach(encoder => encoder.close())
  }
}

async function* frameGroups(extents: AsyncIterable<PackExtent | undefined>): AsyncGenerator<PackExtent[]> {
  let shared: PackExtent[] = []
  let sharedBytes = 0
  for await (const extent of extents) {
    if (extent && extent.bytes.length >= OWN_FRAME_BYTES) {
      yield [extent]
      continue
    }
    if (extent) {
      shared.push(extent)
      sharedBytes += extent.bytes.length
    }
    if (shared.length > 0 && (!extent || sharedBytes >= SHARED_FRAME_BYTES)) {
      yield shared
      shared = []
      sharedBytes = 0
    }
  }
  if (shared.length > 0) yield shared
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
  const raw = extents.length === 1 ? extents[0]!.bytes : Buffer.concat(extents.map(extent => extent.bytes))
  const { codec, stored } = (await find(extents, raw)) ?? (await compressed(raw))
  const written = extents.map(({ cid, bytes, node }) => ({
    cid,
    sizeBytes: bytes.length,
    indexBytes: node?.length ?? 0,
  }))
  const freeRaw = () => extents.forEach(extent => extent.free?.())
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

interface Encoders {
  /** A fast level, to find out what is compressed already. */
  readonly trial: ZstdEncoder
  readonly full: ZstdEncoder
}

function encodersOf(level: number): Encoders {
  return {
    trial: new ZstdEncoder(paramsOf(Math.min(level, TRIAL_LEVEL))),
    full: new ZstdEncoder(paramsOf(level)),
  }
}

/** Plain where zstd gains too little. */
async function compressFrame(raw: Uint8Array, { trial, full }: Encoders): Promise<Compressed> {
  const plain = { codec: 'plain' as const, stored: raw }
  const sample = raw.length <= SAMPLES * SAMPLE_BYTES ? raw : sampleOf(raw)
  if ((await trial.compress(sample)).length > sample.length * (1 - TRIAL_SAVING)) return plain
  const stored = await full.compress(raw)
  return stored.length > raw.length * (1 - SAVING) ? plain : { codec: 'zstd', stored }
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
    ...(level > TRIAL_LEVEL && {
      [constants.ZSTD_c_windowLog]: 22,
      [constants.ZSTD_c_chainLog]: 22,
      [constants.ZSTD_c_hashLog]: 19,
    }),
  }
}
