/**
 * A section: bytes, stored in the shortest of three ways (plain, zstd, brotli), with both lengths
 * in front of them. zstd may have a raw dictionary: that is what `zstd --patch-from` does.
 *
 * Brotli is there for what has no dictionary and is short: its tables cost less. For the operations
 * of the physics book it takes 834 bytes where zstd -22 takes 896.
 *
 * Pitfalls, all seen: a wrong dictionary gives wrong bytes and no error (whoever uses the bytes must
 * check them); a dictionary that begins with 37 A4 30 EC is parsed as a trained one and refused
 * (we put a zero byte before it); one of fewer than 8 bytes is ignored (we pad it).
 */
import { promisify } from 'node:util'
import zlib from 'node:zlib'
import { EdgeError } from '../errors.ts'
import type { ByteReader, ByteWriter } from '../varint.ts'

const zstd = promisify(zlib.zstdCompress)
const unzstd = promisify(zlib.zstdDecompress)
const { constants } = zlib

type Coding = 0 | 1 | 2
const PLAIN: Coding = 0
const ZSTD: Coding = 1
const BROTLI: Coding = 2
/** zlib's brotli is slow at its best level, about 0.5 MB/s: only for what is short. */
const BROTLI_BYTES_MAX = 96 * 1024
const MAGIC_BYTES = 4
/** What a decoder must be able to keep: dictionary and output together, 2^23 = 8 MiB. */
const WINDOW_LOG_MAX = 23

export interface Section {
  readonly coding: Coding
  readonly rawBytes: number
  readonly stored: Uint8Array
}

export interface SectionHead {
  readonly coding: Coding
  readonly rawBytes: number
  readonly storedBytes: number
}

/**
 * @param dictionary raw content; empty for none.
 * @param level zstd's, 1 to 22.
 */
export async function pack(bytes: Uint8Array, dictionary: Uint8Array, level: number): Promise<Section> {
  const plain: Section = { coding: PLAIN, rawBytes: bytes.length, stored: bytes }
  if (bytes.length < 8) return plain
  if (bytes.length > 64 * 1024 && !gains(await squeeze(bytes, dictionary, 1), bytes)) return plain

  const squeezed = await squeeze(bytes, dictionary, level)
  // The four bytes of zstd's magic number say nothing here: left out, put back when reading.
  let best: Section = { ...plain, coding: ZSTD, stored: squeezed.subarray(MAGIC_BYTES) }
  if (dictionary.length === 0 && bytes.length <= BROTLI_BYTES_MAX) {
    const other = zlib.brotliCompressSync(bytes, {
      params: { [constants.BROTLI_PARAM_QUALITY]: 11, [constants.BROTLI_PARAM_SIZE_HINT]: bytes.length },
    })
    if (other.length < best.stored.length) best = { ...plain, coding: BROTLI, stored: other }
  }
  return best.stored.length < bytes.length ? best : plain
}

/**
 * @throws EdgeError `DELTA_INVALID` when it does not expand to exactly `rawBytes`. With a wrong
 * dictionary the result may be wrong without an error.
 */
export async function unpack(
  { coding, rawBytes, stored }: Section,
  dictionary: Uint8Array,
): Promise<Uint8Array> {
  if (coding === PLAIN) return stored
  let bytes: Uint8Array
  try {
    const limits = { maxOutputLength: Math.max(rawBytes, 1) }
    bytes =
      coding === BROTLI
        ? zlib.brotliDecompressSync(stored, limits)
        : await unzstd(Buffer.concat([ZSTD_MAGIC, stored]), {
            ...limits,
            ...(dictionary.length > 0 ? { dictionary: harmless(dictionary) } : {}),
            params: { [constants.ZSTD_d_windowLogMax]: WINDOW_LOG_MAX },
          })
  } catch (error) {
    throw invalid(`a section of ${rawBytes} bytes cannot be expanded`, error)
  }
  if (bytes.length !== rawBytes)
    throw invalid(`a section has ${bytes.length} bytes where ${rawBytes} were announced`)
  return bytes
}

/** The lengths and the coding; the stored bytes are written by the caller, after all headers. */
export function writeSectionHead(out: ByteWriter, { coding, rawBytes, stored }: Section): void {
  out.varint(rawBytes * 4 + coding)
  if (coding !== PLAIN) out.varint(stored.length)
}

/** @throws EdgeError `DELTA_INVALID` above `rawBytesMax`. */
export function readSectionHead(from: ByteReader, rawBytesMax: number): SectionHead {
  const head = from.varint(rawBytesMax * 4 + 3)
  const coding = head % 4
  const rawBytes = Math.floor(head / 4)
  if (coding !== PLAIN && coding !== ZSTD && coding !== BROTLI) throw invalid(`unknown coding ${coding}`)
  return { coding, rawBytes, storedBytes: coding === PLAIN ? rawBytes : from.varint(rawBytes) }
}

export function invalid(why: string, cause?: unknown): EdgeError {
  return new EdgeError('DELTA_INVALID', `static delta: ${why}`, cause === undefined ? {} : { cause })
}

const ZSTD_MAGIC = Buffer.of(0x28, 0xb5, 0x2f, 0xfd)
const TRAINED_MAGIC = Buffer.of(0x37, 0xa4, 0x30, 0xec)

async function squeeze(bytes: Uint8Array, dictionary: Uint8Array, level: number): Promise<Uint8Array> {
  const window = Math.ceil(Math.log2(bytes.length + dictionary.length + 16))
  return zstd(bytes, {
    pledgedSrcSize: bytes.length,
    ...(dictionary.length > 0 ? { dictionary: harmless(dictionary) } : {}),
    params: {
      [constants.ZSTD_c_compressionLevel]: level,
      [constants.ZSTD_c_windowLog]: Math.min(Math.max(window, 10), WINDOW_LOG_MAX),
      [constants.ZSTD_c_contentSizeFlag]: 0,
      [constants.ZSTD_c_checksumFlag]: 0,
    },
  })
}

function harmless(dictionary: Uint8Array): Uint8Array {
  if (dictionary.length < 8) return Buffer.concat([Buffer.alloc(8), dictionary])
  return TRAINED_MAGIC.equals(dictionary.subarray(0, 4))
    ? Buffer.concat([Buffer.alloc(1), dictionary])
    : dictionary
}

/** Pictures, films and archives gain nothing; squeezing them hard would only burn time. */
function gains(squeezed: Uint8Array, bytes: Uint8Array): boolean {
  return squeezed.length < bytes.length * 0.98
}
