/**
 * Deflate as zlib does it, and as Info-ZIP does it (the `zip` program): to the byte, at every place
 * and in every version of Node. Node's own zlib is Chromium's, which gives other bytes.
 *
 * pako, a port of zlib, is the first. Info-ZIP's deflate is an ancestor of zlib's with three
 * differences: it hashes to 15 bits, holds 32,768 symbols per block, and after every 4,096 symbols
 * ends a block that looks as if it compresses well. pako asks one function per symbol whether the
 * block is to end, so that is where we step in; for streams that are not ours it answers as before.
 */
import { createRequire } from 'node:module'

export interface DeflateSettings {
  /** 1 to 9. */
  readonly level: number
  /** zlib's, 8 is usual; 0 for Info-ZIP. */
  readonly memLevel: number
}

export const INFO_ZIP = 0

interface State {
  readonly level: number
  readonly strstart: number
  readonly block_start: number
  /** Bytes taken by the block's symbols, three each. */
  readonly sym_next: number
  /** Frequencies (at even places) of distance codes. */
  readonly dyn_dtree: Uint16Array
  hash_bits: number
  hash_size: number
  hash_mask: number
  hash_shift: number
  /** Ours, on streams of ours: the block's symbols with a distance. */
  distances?: number
}

interface Stream {
  state: State
  input: Uint8Array
  avail_in: number
  next_in: number
  output: Uint8Array
  avail_out: number
  next_out: number
}

type Tally = (state: State, distance: number, symbol: number) => boolean

const require = createRequire(import.meta.url)
const trees = require('pako/lib/zlib/trees.js') as { _tr_tally: Tally }
const zlibTally = trees._tr_tally
trees._tr_tally = (state, distance, symbol) => {
  const isFull = zlibTally(state, distance, symbol)
  return state.distances === undefined ? isFull : isFull || endsBlock(state, distance)
}
// Only now: it keeps the function that it finds.
const { deflateInit2, deflate: run } = require('pako/lib/zlib/deflate.js') as {
  deflateInit2(
    stream: Stream,
    level: number,
    method: number,
    windowBits: number,
    memLevel: number,
    strategy: number,
  ): number
  deflate(stream: Stream, flush: number): number
}
const ZStream = require('pako/lib/zlib/zstream.js') as new () => Stream

const DEFLATED = 8
const RAW_WINDOW_BITS = -15
const FINISH = 4
const STREAM_END = 1
const INFO_ZIP_MEM_LEVEL = 9
const INFO_ZIP_HASH_BITS = 15
const MATCH_BYTES_MIN = 3

/** The raw deflate stream of `raw`. */
export function deflate(raw: Uint8Array, { level, memLevel }: DeflateSettings): Uint8Array {
  const stream = new ZStream()
  deflateInit2(
    stream,
    level,
    DEFLATED,
    RAW_WINDOW_BITS,
    memLevel === INFO_ZIP ? INFO_ZIP_MEM_LEVEL : memLevel,
    0,
  )
  if (memLevel === INFO_ZIP) {
    const { state } = stream
    state.hash_bits = INFO_ZIP_HASH_BITS
    state.hash_size = 2 ** INFO_ZIP_HASH_BITS
    state.hash_mask = state.hash_size - 1
    state.hash_shift = Math.floor((INFO_ZIP_HASH_BITS + MATCH_BYTES_MIN - 1) / MATCH_BYTES_MIN)
    state.distances = 0
  }
  stream.input = raw
  stream.avail_in = raw.length
  stream.next_in = 0
  stream.output = new Uint8Array(raw.length + Math.ceil(raw.length / 8) + 1024)
  stream.avail_out = stream.output.length
  stream.next_out = 0
  if (run(stream, FINISH) !== STREAM_END) throw new Error('deflate did not end')
  return stream.output.subarray(0, stream.next_out)
}

const DISTANCE_CODES = 30
const LOOK_EVERY_SYMBOLS = 4096
const DISTANCES_MAX = 32_768

/** Info-ZIP's guess whether it pays to begin a new block. */
function endsBlock(state: State, distance: number): boolean {
  const symbols = state.sym_next / 3
  if (symbols === 1) state.distances = 0
  if (distance > 0) state.distances! += 1
  if (state.level > 2 && symbols % LOOK_EVERY_SYMBOLS === 0) {
    let bits = symbols * 8
    for (let code = 0; code < DISTANCE_CODES; code++) {
      const extraBits = Math.max(0, (code >> 1) - 1)
      bits += state.dyn_dtree[code * 2]! * (5 + extraBits)
    }
    const inputBytes = state.strstart - state.block_start
    if (state.distances! < Math.floor(symbols / 2) && Math.floor(bits / 8) < Math.floor(inputBytes / 2))
      return true
  }
  return state.distances === DISTANCES_MAX
}
