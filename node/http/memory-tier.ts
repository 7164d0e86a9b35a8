/**
 * The memory tier: whole small items that are asked for again and again, bounded in bytes.
 *
 * Memory rots too: whoever takes bytes from here hashes them again before sending (I1) and calls
 * `evict` when they no longer match. An item is admitted at its second read within about the last
 * ten thousand, so one pass over a big catalog does not wash the hot ones out.
 */
import { LRUCache } from 'lru-cache'
import type { Sha256 } from '../../manifests/digest.ts'

export const MEMORY_ITEM_BYTES_MAX = 64 * 1024
const SEEN_ONCE_MAX = 8_192
/** What an entry costs beside its bytes: Buffer, backing store, key, list node. */
const ENTRY_BYTES = 400

export class MemoryTier {
  readonly #items: LRUCache<Sha256, Buffer>
  #seen = new Set<Sha256>()
  #seenBefore = new Set<Sha256>()

  constructor(bytesMax: number) {
    this.#items = new LRUCache<Sha256, Buffer>({
      maxSize: Math.max(1, bytesMax),
      maxEntrySize: Math.max(1, Math.min(bytesMax, MEMORY_ITEM_BYTES_MAX + ENTRY_BYTES)),
      sizeCalculation: bytes => bytes.length + ENTRY_BYTES,
    })
  }

  /** Not verified: hash before use. */
  get(digest: Sha256): Buffer | undefined {
    return this.#items.get(digest)
  }

  /** Copies `parts`, together the item and just verified, when they are worth keeping. */
  offer(digest: Sha256, parts: readonly Uint8Array[], sizeBytes: number): void {
    if (sizeBytes > MEMORY_ITEM_BYTES_MAX || sizeBytes === 0 || !this.#secondRead(digest)) return
    const copy = Buffer.allocUnsafeSlow(sizeBytes)
    let at = 0
    for (const part of parts) {
      copy.set(part, at)
      at += part.length
    }
    this.#items.set(digest, copy)
  }

  evict(digest: Sha256): void {
    this.#items.delete(digest)
  }

  get bytes(): number {
    return this.#items.calculatedSize
  }

  get items(): number {
    return this.#items.size
  }

  #secondRead(digest: Sha256): boolean {
    if (this.#seen.has(digest) || this.#seenBefore.has(digest)) return true
    if (this.#seen.size >= SEEN_ONCE_MAX) {
      this.#seenBefore = this.#seen
      this.#seen = new Set()
    }
    this.#seen.add(digest)
    return false
  }
}
