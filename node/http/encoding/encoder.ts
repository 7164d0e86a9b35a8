/**
 * Encodes whole items on the thread pool. The same bytes, coding and dictionary give the same result.
 */
import { promisify } from 'node:util'
import { type ZstdOptions, brotliCompress, constants, gzip, zstdCompress, zstdDecompress } from 'node:zlib'
import type { Sha256 } from '../../../manifests/digest.ts'
import { ENCODED_BYTES_MAX, LEVELS, type PlainCoding } from './codings.ts'

/** 8 MiB: what every receiver must be able to take (RFC 9659; RFC 9842 §5), and all of an item. */
const WINDOW_LOG = 23
/** A skippable frame that holds the dictionary's SHA-256 (RFC 9842 §5). */
const DCZ_HEAD = Buffer.from('5e2a4d1820000000', 'hex')

const zstd = promisify<Buffer, ZstdOptions, Buffer>(zstdCompress)
const unzstd = promisify<Buffer, ZstdOptions, Buffer>(zstdDecompress)

export async function encode(bytes: Buffer, coding: PlainCoding): Promise<Buffer> {
  if (coding === 'zstd') return zstd(bytes, { params: zstdParams(LEVELS.zstd) })
  if (coding === 'gzip') return promisify<Buffer, object, Buffer>(gzip)(bytes, { level: LEVELS.gzip })
  const { BROTLI_PARAM_QUALITY, BROTLI_PARAM_SIZE_HINT } = constants
  const params = { [BROTLI_PARAM_QUALITY]: LEVELS.br, [BROTLI_PARAM_SIZE_HINT]: bytes.length }
  return promisify<Buffer, object, Buffer>(brotliCompress)(bytes, { params })
}

/** @param dictionary whose SHA-256 is `sha256`. */
export async function encodeWith(bytes: Buffer, dictionary: Buffer, sha256: Sha256): Promise<Buffer> {
  const body = await zstd(bytes, { params: zstdParams(LEVELS.dcz), dictionary })
  return Buffer.concat([DCZ_HEAD, Buffer.from(sha256, 'hex'), body])
}

/** @throws what zlib says of bytes that are no Zstandard, or more than an encodable item. */
export async function decodeZstd(bytes: Buffer): Promise<Buffer> {
  return unzstd(bytes, { maxOutputLength: ENCODED_BYTES_MAX })
}

function zstdParams(level: number): Record<number, number> {
  const { ZSTD_c_compressionLevel, ZSTD_c_windowLog, ZSTD_c_checksumFlag } = constants
  return { [ZSTD_c_compressionLevel]: level, [ZSTD_c_windowLog]: WINDOW_LOG, [ZSTD_c_checksumFlag]: 1 }
}
