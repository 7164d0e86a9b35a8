/**
 * Deflate streams inside zip containers (EPUB, DOCX, H5P): found, expanded, and made again exactly.
 *
 * A changed word changes a whole deflate stream, so such files ruin every delta; what they were made
 * of does not. What zlib made (Python, Java, PHP, …) and what `zip` made comes out again to the
 * byte: 322 of 322 members each. Other makers' streams may not; whoever publishes tries, and leaves
 * as it is what does not come out equal.
 */
import { inflateRawSync } from 'node:zlib'
import { deflate, type DeflateSettings, INFO_ZIP } from './exact-deflate.ts'
import { invalid } from './section.ts'

export interface Member {
  readonly name: string
  /** Where its deflate stream lies. */
  readonly from: number
  readonly to: number
  readonly rawBytes: number
}

/** Longest stream that is looked at, as stored and expanded. */
export const STREAM_BYTES_MAX = 8 * 1024 * 1024
const LOCAL_HEADER = Buffer.from('PK\x03\x04', 'latin1')
const LOCAL_HEADER_BYTES = 30
const DEFLATED = 8
const STORED_BYTES_MIN = 64
const SETTINGS: readonly DeflateSettings[] = [6, 9, 5, 8, 7, 4, 3, 2, 1].flatMap(level =>
  [8, INFO_ZIP, 9].map(memLevel => ({ level, memLevel })),
)

export function mayHaveMembers(bytes: Uint8Array): boolean {
  return Buffer.from(bytes.buffer, bytes.byteOffset, bytes.length).includes(LOCAL_HEADER)
}

/**
 * Zip members of bytes that come in pieces, in order: APPNOTE.TXT 4.3.7. A member's end is where its
 * stream ends, whatever its header says, since many headers leave the sizes to a later record.
 */
export async function* membersOf(pieces: AsyncIterable<Uint8Array>): AsyncGenerator<Member> {
  let start = 0
  let rest = Buffer.alloc(0)
  for await (const piece of pieces) {
    const bytes = Buffer.concat([rest, piece])
    let at = 0
    for (;;) {
      const header = bytes.indexOf(LOCAL_HEADER, at)
      at = header < 0 ? Math.max(at, bytes.length - LOCAL_HEADER.length + 1) : header
      if (header < 0) break
      const found = memberAt(bytes, header)
      if (found === 'cut' && bytes.length - header < STREAM_BYTES_MAX) break
      if (typeof found !== 'object') at += LOCAL_HEADER.length
      else {
        at = found.to
        yield { ...found, from: start + found.from, to: start + found.to }
      }
    }
    start += at
    rest = bytes.subarray(at)
  }
}

/** 'cut' when more bytes may make it whole. */
function memberAt(bytes: Buffer, header: number): Member | 'cut' | undefined {
  if (header + LOCAL_HEADER_BYTES > bytes.length) return 'cut'
  if (bytes.readUInt16LE(header + 8) !== DEFLATED) return undefined
  const nameFrom = header + LOCAL_HEADER_BYTES
  const nameTo = nameFrom + bytes.readUInt16LE(header + 26)
  const from = nameTo + bytes.readUInt16LE(header + 28)
  if (from >= bytes.length) return 'cut'
  const stream = expanded(bytes.subarray(from, from + STREAM_BYTES_MAX))
  if (typeof stream !== 'object') return stream
  if (stream.storedBytes < STORED_BYTES_MIN) return undefined
  return {
    name: bytes.toString('latin1', nameFrom, nameTo),
    from,
    to: from + stream.storedBytes,
    rawBytes: stream.raw.length,
  }
}

/** @throws EdgeError `DELTA_INVALID` unless this is one whole stream of `rawBytes`. */
export function inflate(stored: Uint8Array, rawBytes: number): Uint8Array {
  const stream = rawBytes <= STREAM_BYTES_MAX ? expanded(stored) : undefined
  if (typeof stream !== 'object' || stream.raw.length !== rawBytes || stream.storedBytes !== stored.length)
    throw invalid('a base is not the deflate stream that it should be')
  return stream.raw
}

/**
 * With which settings `raw` becomes exactly `stored`; undefined when with none.
 *
 * @param likely is tried first: members of one container are mostly made alike.
 */
export function settingsFor(
  raw: Uint8Array,
  stored: Uint8Array,
  likely: DeflateSettings | undefined,
): DeflateSettings | undefined {
  const tried = likely ? [likely, ...SETTINGS.filter(settings => settings !== likely)] : SETTINGS
  return tried.find(settings => Buffer.compare(deflate(raw, settings), stored) === 0)
}

function expanded(
  bytes: Uint8Array,
): { readonly raw: Uint8Array; readonly storedBytes: number } | 'cut' | undefined {
  try {
    const { buffer, engine } = inflateRawSync(bytes, {
      info: true,
      maxOutputLength: STREAM_BYTES_MAX,
    }) as unknown as {
      buffer: Uint8Array
      engine: { bytesWritten: number }
    }
    return { raw: buffer, storedBytes: engine.bytesWritten }
  } catch (error) {
    return (error as { code?: unknown }).code === 'Z_BUF_ERROR' ? 'cut' : undefined
  }
}
