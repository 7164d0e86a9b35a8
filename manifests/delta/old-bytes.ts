/**
 * Bytes of the older release by address, read extent by extent, the last few kept.
 */
import { LRUCache } from 'lru-cache'
import type { Cid } from '../cid.ts'
import { inflate } from './deflate.ts'
import type { OldLayout } from './old-layout.ts'
import type { AddressRange } from './part.ts'
import type { ReleaseView } from './release-view.ts'

const KEPT_BYTES = 32 * 1024 * 1024

export class OldBytes {
  readonly #layout: OldLayout
  readonly #view: ReleaseView
  readonly #kept = new LRUCache<Cid | number, Uint8Array>({
    maxSize: KEPT_BYTES,
    sizeCalculation: bytes => bytes.length + 1,
  })

  constructor(layout: OldLayout, view: ReleaseView) {
    this.#layout = layout
    this.#view = view
  }

  async extent(index: number): Promise<Uint8Array> {
    const { cid, stream, sizeBytes } = this.#layout.extents[index]!
    const key = stream ? index : cid
    const kept = this.#kept.get(key)
    if (kept) return kept
    const bytes = stream ? inflate(await this.read([stream]), sizeBytes) : await this.#view.readExtent(cid)
    this.#kept.set(key, bytes)
    return bytes
  }

  /** The ranges' bytes, joined. @param into where they are put, when it is given: as long or longer. */
  async read(ranges: readonly AddressRange[], into?: Buffer): Promise<Buffer> {
    const target = into ?? Buffer.allocUnsafe(ranges.reduce((sum, { from, to }) => sum + to - from, 0))
    let length = 0
    for (const range of ranges) {
      for (const index of this.#layout.extentsIn(range)) {
        const { address } = this.#layout.extents[index]!
        const bytes = await this.extent(index)
        const piece = bytes.subarray(Math.max(range.from - address, 0), range.to - address)
        target.set(piece, length)
        length += piece.length
      }
    }
    return target.subarray(0, length)
  }
}
