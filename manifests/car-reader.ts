/**
 * Reads CARv1 streams from sources that are not trusted: each block comes out only when its bytes
 * hash to its CID, and nothing is read beyond the bounds that the caller sets.
 */
import { CID_BYTES, cidFromBytes, digestOf } from './cid.ts'
import { sha256Of } from './digest.ts'
import { EdgeError } from './errors.ts'
import type { DagNode } from './extent.ts'

/** Kubo refuses larger blocks as well. */
const BLOCK_BYTES_MAX = 2 * 1024 * 1024
const HEADER_BYTES_MAX = 1024 * 1024

/**
 * The archive's blocks, verified, in its order; its header is skipped.
 * @throws EdgeError `CHUNK_CORRUPT` at the first block that is not what its CID says, or when the
 * stream ends inside a block.
 */
export async function* blocksOfCar(stream: AsyncIterable<Uint8Array>): AsyncGenerator<DagNode> {
  const reader = new PieceReader(stream)
  const headerBytes = await reader.varint(HEADER_BYTES_MAX)
  if (headerBytes === undefined) throw new EdgeError('CHUNK_CORRUPT', 'the archive is empty')
  await reader.take(headerBytes)
  for (;;) {
    const length = await reader.varint(BLOCK_BYTES_MAX + CID_BYTES)
    if (length === undefined) return
    if (length < CID_BYTES)
      throw new EdgeError('CHUNK_CORRUPT', 'the archive has a block without a CID of our form')
    const block = await reader.take(length)
    const cid = cidFromBytes(block.subarray(0, CID_BYTES))
    const bytes = block.subarray(CID_BYTES)
    if (sha256Of(bytes) !== digestOf(cid))
      throw new EdgeError('CHUNK_CORRUPT', `block ${cid} has other bytes`)
    yield { cid, bytes }
  }
}

class PieceReader {
  readonly #pieces: AsyncIterator<Uint8Array>
  #rest: Uint8Array = new Uint8Array(0)

  constructor(stream: AsyncIterable<Uint8Array>) {
    this.#pieces = stream[Symbol.asyncIterator]()
  }

  async take(length: number): Promise<Buffer> {
    const parts: Uint8Array[] = []
    for (let missing = length; missing > 0; ) {
      if (this.#rest.length === 0 && !(await this.#refill())) {
        throw new EdgeError('CHUNK_CORRUPT', 'the archive ends inside a block')
      }
      const part = this.#rest.subarray(0, missing)
      this.#rest = this.#rest.subarray(part.length)
      parts.push(part)
      missing -= part.length
    }
    return Buffer.concat(parts)
  }

  /** Undefined at the end of the stream. */
  async varint(max: number): Promise<number | undefined> {
    if (this.#rest.length === 0 && !(await this.#refill())) return undefined
    let value = 0
    for (let scale = 1; ; scale *= 128) {
      const byte = (await this.take(1))[0] ?? 0
      value += (byte & 127) * scale
      if (value > max) throw new EdgeError('CHUNK_CORRUPT', 'the archive has a block that is too long')
      if (byte < 128) return value
    }
  }

  async #refill(): Promise<boolean> {
    for (;;) {
      const next = await this.#pieces.next()
      if (next.done) return false
      if (next.value.length > 0) {
        this.#rest = next.value
        return true
      }
    }
  }
}
