/**
 * zstd off the event loop's thread, with memory that stays put.
 *
 * A compressor for level 19 takes about 25 MiB. Made anew for each frame, on whichever of the
 * thread pool's threads is free, it leaves that much behind in each of them: 150 MB after eight
 * frames. So one is kept for many frames; the same bytes give the same frame, whatever came before.
 * Nor is what it allocates left to the garbage collector, which sees memory outside its heap late
 * (64 MB late): it is given back at once.
 */
import { setImmediate } from 'node:timers/promises'
import { constants, createZstdCompress } from 'node:zlib'

const OUTPUT_PIECE_BYTES = 256 * 1024

export class ZstdEncoder {
  readonly #stream
  #pieces: Uint8Array[] = []
  #last: Promise<unknown> = Promise.resolve()

  /** @param params zlib's `ZSTD_c_…`. */
  constructor(params: Record<number, number>) {
    this.#stream = createZstdCompress({ params, chunkSize: OUTPUT_PIECE_BYTES })
    this.#stream.on('data', (piece: Uint8Array) => this.#pieces.push(piece))
  }

  /** One whole frame of all the pieces. Calls wait for each other. */
  compress(...raw: readonly Uint8Array[]): Promise<Uint8Array<ArrayBuffer>> {
    const compressed = this.#last.then(() => this.#compress(raw))
    this.#last = compressed.catch(() => undefined)
    return compressed
  }

  async #compress(raw: readonly Uint8Array[]): Promise<Uint8Array<ArrayBuffer>> {
    await new Promise<void>((resolve, reject) => {
      this.#stream.once('error', reject)
      for (const piece of raw) this.#stream.write(piece)
      this.#stream.flush(constants.ZSTD_e_end, () => {
        this.#stream.off('error', reject)
        resolve()
      })
    })
    while (this.#stream.readableLength > 0) await setImmediate() // handed on in the next turn
    const pieces = this.#pieces
    this.#pieces = []
    return joined(pieces)
  }

  close(): void {
    this.#stream.destroy()
  }
}

/**
 * Gives memory back now: the garbage collector sees what lies outside its heap late, 64 MB late.
 * Whoever still has a view of it finds it empty. For `new ArrayBuffer` only, not for a Buffer's.
 */
export function free(buffer: ArrayBuffer): void {
  buffer.transfer(0)
}

function joined(pieces: readonly Uint8Array[]): Uint8Array<ArrayBuffer> {
  const whole = new Uint8Array(pieces.reduce((sum, piece) => sum + piece.length, 0))
  let at = 0
  for (const piece of pieces) {
    whole.set(piece, at)
    at += piece.length
  }
  return whole
}
