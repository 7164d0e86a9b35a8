/**
 * Packs: files of full frames, with the dag-pb node of every extent beside them (docs/formats.md).
 * This is the format; `publish/pack-writer.ts` writes packs and whoever fills reads them.
 *
 * A directory is authentic (its digest is in a signed manifest) but may still be nonsense: every
 * number is bounded before anything is allocated for it, and failures are `PACK_INVALID`.
 */
import { promisify } from 'node:util'
import { constants, zstdDecompress } from 'node:zlib'
import { digestOf, type Cid, cidOf } from './cid.ts'
import { sha256Of } from './digest.ts'
import { EdgeError } from './errors.ts'
import type { DagNode } from './extent.ts'
import type { DirectoryRef } from './manifest.ts'
import { EXTENT_BYTES_MAX, NODE_BYTES_MAX } from './unixfs.ts'
import { ByteReader, ByteWriter } from './varint.ts'

export const PACK_MAGIC = Buffer.from('TLPACK1\n')
export const TRAILER_MAGIC = Buffer.from('TLPACKE\n')
export const TRAILER_BYTES = 24
/** Extents of at least this size share frames of their own kind, or none. */
export const OWN_FRAME_BYTES = 1024 * 1024
/** A shared frame ends when it has this much. */
export const SHARED_FRAME_BYTES = 4 * 1024 * 1024
export const FRAME_BYTES_MAX = EXTENT_BYTES_MAX
const VERSION = 1
const KEY_BYTES = 8
const decompress = promisify(zstdDecompress)
/** zlib's least. */
const CHUNK_BYTES_MIN = 64

export type FrameCodec = 'plain' | 'zstd'

export interface PackFrame {
  /** In the pack file. */
  readonly offset: number
  readonly storedBytes: number
  readonly rawBytes: number
  readonly codec: FrameCodec
  /** Its extents are `firstExtent` to `firstExtent + extents - 1` of the directory. */
  readonly firstExtent: number
  readonly extents: number
}

/** Where one extent is in a pack. */
export interface ExtentPlace {
  /** Index into the directory's extents. */
  readonly extent: number
  /** Index into the directory's frames. */
  readonly frame: number
  /** Where its bytes begin in the expanded frame. */
  readonly offset: number
  readonly sizeBytes: number
  /** Its dag-pb node in the pack file; none for a raw extent. */
  readonly index?: { readonly offset: number; readonly size: number }
}

export interface FrameEntry {
  readonly codec: FrameCodec
  readonly storedBytes: number
  readonly extents: readonly { readonly cid: Cid; readonly sizeBytes: number; readonly indexBytes: number }[]
}

/** The directory's bytes before compression. */
export function encodePackDirectory(frames: readonly FrameEntry[], nodes: readonly DagNode[]): Buffer {
  const out = new ByteWriter().varint(VERSION).varint(frames.length)
  for (const { codec, storedBytes, extents } of frames) {
    out
      .varint(codec === 'zstd' ? 1 : 0)
      .varint(storedBytes)
      .varint(extents.length)
  }
  for (const { extents } of frames) for (const { sizeBytes } of extents) out.varint(sizeBytes)
  for (const { extents } of frames) for (const { indexBytes } of extents) out.varint(indexBytes)
  for (const { extents } of frames) for (const { cid } of extents) out.bytes(keyOf(cid))
  out.varint(nodes.length)
  for (const { bytes } of nodes) out.varint(bytes.length).bytes(bytes)
  return Buffer.from(out.done())
}

/**
 * The directory as it lies in a pack, checked, expanded and parsed.
 *
 * @throws EdgeError `PACK_INVALID` when these are not the bytes that the manifest means.
 */
export async function openPackDirectory(stored: Uint8Array, ref: DirectoryRef): Promise<PackDirectory> {
  if (stored.length !== ref.size || sha256Of(stored) !== ref.sha256) {
    throw new EdgeError('PACK_INVALID', `a pack's directory does not match its digest ${ref.sha256}`)
  }
  const directory = parsePackDirectory(await expand(stored, ref.rawSize))
  if (directory.directoryOffset !== ref.offset) {
    throw new EdgeError('PACK_INVALID', "a pack's frames and index do not reach up to its directory")
  }
  return directory
}

/**
 * Where a pack's directory is, from its last `TRAILER_BYTES`: for tools that have no manifest.
 * @returns undefined when this is not the end of a pack.
 */
export function parsePackTrailer(trailer: Uint8Array): Omit<DirectoryRef, 'sha256'> | undefined {
  const bytes = Buffer.from(trailer.buffer, trailer.byteOffset, trailer.length)
  if (bytes.length !== TRAILER_BYTES || !bytes.subarray(16).equals(TRAILER_MAGIC)) return undefined
  const offset = Number(bytes.readBigUInt64LE(0))
  return { offset, size: bytes.readUInt32LE(8), rawSize: bytes.readUInt32LE(12) }
}

/** @throws EdgeError `PACK_INVALID` */
export function parsePackDirectory(raw: Uint8Array): PackDirectory {
  return new PackDirectory(new ByteReader(raw, 'PACK_INVALID'))
}

/**
 * A frame's content.
 *
 * @param stored exactly the frame's bytes in the pack.
 * @throws EdgeError `PACK_INVALID` when they do not expand to `rawBytes`; what comes out is not
 * yet verified: that is done by each extent's CID.
 */
export async function expandFrame(frame: PackFrame, stored: Uint8Array): Promise<Uint8Array> {
  if (stored.length !== frame.storedBytes) {
    throw new EdgeError('PACK_INVALID', `a frame of ${frame.storedBytes} bytes came with ${stored.length}`)
  }
  return frame.codec === 'plain' ? stored : await expand(stored, frame.rawBytes)
}

/** What a pack holds, and where: tables of numbers, so that 100,000 small extents take 2 MB. */
export class PackDirectory {
  readonly frames: readonly PackFrame[]
  readonly extentCount: number
  /** Where the index section begins, and where it ends: the directory follows. */
  readonly indexOffset: number
  readonly directoryOffset: number
  /** The dag-pb blocks above extents. */
  readonly nodes: readonly DagNode[]
  readonly #sizes: Uint32Array
  readonly #indexSizes: Uint16Array
  /** Bytes of the index section before each extent's node. */
  readonly #indexStarts: Float64Array
  readonly #keys: Uint8Array
  readonly #keyTable: Int32Array

  constructor(reader: ByteReader) {
    if (reader.varint() !== VERSION) throw reader.invalid('a pack directory of another version')
    const heads = Array.from({ length: countOf(reader, 3) }, () => ({
      codec: reader.varint(1) === 1 ? ('zstd' as const) : ('plain' as const),
      storedBytes: reader.varint(FRAME_BYTES_MAX),
      extents: reader.varint(reader.left),
    }))
    this.extentCount = heads.reduce((total, head) => total + head.extents, 0)
    if (this.extentCount * (KEY_BYTES + 2) > reader.left) throw reader.invalid('too many extents')

    this.#sizes = Uint32Array.from({ length: this.extentCount }, () => reader.varint(EXTENT_BYTES_MAX))
    this.#indexSizes = Uint16Array.from({ length: this.extentCount }, () => reader.varint(NODE_BYTES_MAX))
    this.#keys = Uint8Array.from(reader.bytes(this.extentCount * KEY_BYTES))
    this.nodes = Array.from({ length: countOf(reader, 2) }, () => {
      const bytes = Uint8Array.from(reader.bytes(reader.varint(NODE_BYTES_MAX)))
      return { cid: cidOf('dag-pb', sha256Of(bytes)), bytes }
    })
    reader.end()

    this.frames = framesOf(heads, this.#sizes, reader)
    const lastFrame = this.frames.at(-1)
    this.indexOffset = lastFrame ? lastFrame.offset + lastFrame.storedBytes : PACK_MAGIC.length
    this.#indexStarts = startsOf(this.#indexSizes)
    this.directoryOffset = this.indexOffset + this.#indexStarts[this.extentCount]!
    this.#keyTable = tableOf(this.#keys)
  }

  /**
   * Where an extent with this CID may be: usually one place or none. Keys are shortened digests, so
   * only the bytes tell whether it is really the one.
   */
  find(cid: Cid): ExtentPlace[] {
    const key = keyOf(cid)
    const places: ExtentPlace[] = []
    const mask = this.#keyTable.length - 1
    for (let slot = key.readUInt32LE(0) & mask; this.#keyTable[slot] !== -1; slot = (slot + 1) & mask) {
      const extent = this.#keyTable[slot]!
      if (key.equals(this.#keys.subarray(extent * KEY_BYTES, (extent + 1) * KEY_BYTES)))
        places.push(this.placeOf(extent))
    }
    return places
  }

  /** The extents of a frame, in order. */
  extentsOf(frame: number): ExtentPlace[] {
    const { firstExtent, extents } = this.frames[frame]!
    let offset = 0
    return Array.from({ length: extents }, (_, at) => {
      const place = this.#place(firstExtent + at, frame, offset)
      offset += place.sizeBytes
      return place
    })
  }

  placeOf(extent: number): ExtentPlace {
    const frame = this.#frameOf(extent)
    let offset = 0
    for (let before = this.frames[frame]!.firstExtent; before < extent; before++)
      offset += this.#sizes[before]!
    return this.#place(extent, frame, offset)
  }

  #place(extent: number, frame: number, offset: number): ExtentPlace {
    const size = this.#indexSizes[extent]!
    return {
      extent,
      frame,
      offset,
      sizeBytes: this.#sizes[extent]!,
      ...(size > 0 && { index: { offset: this.indexOffset + this.#indexStarts[extent]!, size } }),
    }
  }

  #frameOf(extent: number): number {
    let first = 0
    let last = this.frames.length - 1
    while (first < last) {
      const middle = (first + last + 1) >> 1
      if (this.frames[middle]!.firstExtent <= extent) first = middle
      else last = middle - 1
    }
    return first
  }
}

/**
 * The extents of an expanded frame, in order, not yet verified. Views, not copies.
 *
 * @param raw what `expandFrame` gave.
 */
export function frameExtents(
  directory: PackDirectory,
  frame: number,
  raw: Uint8Array,
): { place: ExtentPlace; bytes: Uint8Array }[] {
  return directory
    .extentsOf(frame)
    .map(place => ({ place, bytes: raw.subarray(place.offset, place.offset + place.sizeBytes) }))
}

async function expand(stored: Uint8Array, rawBytes: number): Promise<Uint8Array> {
  try {
    const raw = await decompress(stored, {
      maxOutputLength: Math.max(rawBytes, 1),
      chunkSize: Math.max(rawBytes + 1, CHUNK_BYTES_MIN), // one buffer: pieces joined leave twice as much behind
      rejectGarbageAfterEnd: true,
      params: { [constants.ZSTD_d_windowLogMax]: 27 },
    })
    if (raw.length === rawBytes) return raw
  } catch (cause) {
    throw new EdgeError('PACK_INVALID', `${stored.length} bytes do not expand to the ${rawBytes} expected`, {
      cause,
    })
  }
  throw new EdgeError('PACK_INVALID', `${stored.length} bytes expand to fewer than the ${rawBytes} expected`)
}

function keyOf(cid: Cid): Buffer {
  return Buffer.from(digestOf(cid).slice(0, KEY_BYTES * 2), 'hex')
}

/** A count of things that take at least `bytesEach`: so it cannot make us allocate much. */
function countOf(reader: ByteReader, bytesEach: number): number {
  return reader.varint(Math.floor(reader.left / bytesEach) + 1)
}

function framesOf(
  heads: readonly { codec: FrameCodec; storedBytes: number; extents: number }[],
  sizes: Uint32Array,
  reader: ByteReader,
): PackFrame[] {
  let offset = PACK_MAGIC.length
  let firstExtent = 0
  return heads.map(({ codec, storedBytes, extents }) => {
    let rawBytes = 0
    for (let extent = firstExtent; extent < firstExtent + extents; extent++) rawBytes += sizes[extent]!
    const fits = codec === 'plain' ? storedBytes === rawBytes : storedBytes < rawBytes
    if (extents === 0 || rawBytes > FRAME_BYTES_MAX || !fits)
      throw reader.invalid('the sizes of a frame do not fit together')
    const frame = { offset, storedBytes, rawBytes, codec, firstExtent, extents }
    offset += storedBytes
    firstExtent += extents
    return frame
  })
}

/** Running sums: where each begins; one more for the end of the last. */
function startsOf(sizes: Uint16Array): Float64Array {
  const starts = new Float64Array(sizes.length + 1)
  for (const [at, size] of sizes.entries()) starts[at + 1] = starts[at]! + size
  return starts
}

/** Open addressing, at most half full: extent numbers by the first four bytes of their keys. */
function tableOf(keys: Uint8Array): Int32Array {
  const count = keys.length / KEY_BYTES
  const table = new Int32Array(2 ** Math.ceil(Math.log2(count * 2 + 2))).fill(-1)
  const view = new DataView(keys.buffer, keys.byteOffset)
  for (let extent = 0; extent < count; extent++) {
    let slot = view.getUint32(extent * KEY_BYTES, true) & (table.length - 1)
    while (table[slot] !== -1) slot = (slot + 1) & (table.length - 1)
    table[slot] = extent
  }
  return table
}
