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

  /** The ranges' bytes, joined. */
  async read(ranges: readonly AddressRange[]): Promise<Buffer> {
    const pieces: Uint8Array[] = []
    for (const range of ranges) {
      for (const index of this.#layout.extentsIn(range)) {
        const { address } = this.#layout.extents[index]!
        pieces.push(
          (await this.extent(index)).subarray(Math.max(range.from - address, 0), range.to - address),
        )
      }
    }
    return Buffer.concat(pieces)
  }
}
