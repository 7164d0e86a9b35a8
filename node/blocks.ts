/**
 * Blocks by CID, proven: nodes, and chunks out of the extents that hold them. For the IPFS gateway,
 * and for neighbours who heal from us.
 *
 * Which extent holds a chunk follows from the extents' nodes. Whoever walks an item asks for the
 * node first, so its chunks are remembered then.
 */
import { LRUCache } from 'lru-cache'
import { codecOf, digestOf, type Cid } from '../manifests/cid.ts'
import type { Sha256 } from '../manifests/digest.ts'
import { isEdgeError } from '../manifests/errors.ts'
import type { Abortable } from '../manifests/extent.ts'
import type { ChunkPlace } from './chunk-index.ts'
import type { ContentStore } from './store/store.ts'

const REMEMBERED_MAX = 50_000

export class Blocks {
  readonly #store: ContentStore
  readonly #places = new LRUCache<Sha256, ChunkPlace>({ max: REMEMBERED_MAX })
  readonly #find: (digest: Sha256) => ChunkPlace | undefined

  /** @param find asks the index of chunks. */
  constructor(store: ContentStore, find: (digest: Sha256) => ChunkPlace | undefined) {
    this.#store = store
    this.#find = find
  }

  /** Undefined when the block is not here, or not whole. */
  async block(cid: Cid, options: Abortable): Promise<Uint8Array | undefined> {
    if (codecOf(cid) === 'dag-pb') return this.#node(cid)
    try {
      if (this.#store.tierOf(cid)) return await this.#store.readExtent(cid, options)
      const place = this.#places.get(digestOf(cid)) ?? this.#find(digestOf(cid))
      return place && (await this.#chunk(digestOf(cid), place, options))
    } catch (error) {
      if (isEdgeError(error, 'CHUNK_ABSENT', 'CHUNK_CORRUPT')) return undefined
      throw error
    }
  }

  #node(cid: Cid): Uint8Array | undefined {
    const view = this.#store.view(cid)
    if (view?.over === 'chunks' && this.#store.tierOf(cid)) {
      for (let link = 0; link < view.links; link++)
        this.#places.set(view.digestAt(link), { extent: cid, link })
    }
    return view?.bytes
  }

  async #chunk(
    digest: Sha256,
    { extent, link }: ChunkPlace,
    options: Abortable,
  ): Promise<Uint8Array | undefined> {
    const view = this.#store.view(extent)
    if (!view || link >= view.links || view.digestAt(link) !== digest) return undefined
    const chunk = { digest, sizeBytes: view.sizeOf(link) }
    const buffer = Buffer.allocUnsafeSlow(chunk.sizeBytes)
    await this.#store.readChunk(extent, view.startOf(link), chunk, buffer, options)
    return buffer
  }
}
