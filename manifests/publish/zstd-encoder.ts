/**
 * One zstd compressor for many frames, off the event loop's thread.
 *
 * A compressor for level 19 takes about 30 MiB. Made anew for each frame on one of the thread pool's
 * threads it leaves that much behind in each of them: 150 MB more after eight frames than one that
 * is used again. The same bytes give the same frame, whatever came before.
 */
import { setImmediate } from 'node:timers/promises'
import { constants, createZstdCompress } from 'node:zlib'

const OUTPUT_PIECE_BYTES = 1024 * 1024

export class ZstdEncoder {
  readonly #stream
  #pieces: Uint8Array[] = []

  /** @param params zlib's `ZSTD_c_…`. */
  constructor(params: Record<number, number>) {
    this.#stream = createZstdCompress({ params, chunkSize: OUTPUT_PIECE_BYTES })
    this.#stream.on('data', (piece: Uint8Array) => this.#pieces.push(piece))
  }

  /** One whole frame. One call at a time. */
  async compress(raw: Uint8Array): Promise<Uint8Array> {
    this.#pieces = []
    await new Promise<void>((resolve, reject) => {
      this.#stream.once('error', reject)
      this.#stream.write(raw)
      this.#stream.flush(constants.ZSTD_e_end, () => {
        this.#stream.off('error', reject)
        resolve()
      })
    })
    while (this.#stream.readableLength > 0) await setImmediate() // handed on in the next turn
    return Buffer.concat(this.#pieces)
  }

  close(): void {
    this.#stream.destroy()
  }
}
