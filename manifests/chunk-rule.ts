/**
 * An extent's bytes, cut again: how whoever holds the bytes of an extent proves them against its
 * CID without having its chunk index.
 */
import { CHUNKING, nextCut, type Chunking } from './fastcdc.ts'
import { cutCatalogPages } from './catalog-page.ts'
import { sha256Of } from './digest.ts'
import type { ChunkRef, ChunkRule } from './extent.ts'
import { nodeExtent, rawExtent, type CutExtent } from './unixfs.ts'

/** The extent's chunks in order, each hashed; empty when there are no bytes. */
export function cutExtent(bytes: Uint8Array, rule: ChunkRule, chunking: Chunking = CHUNKING): ChunkRef[] {
  const ends = rule === 'catalog-v1' ? cutCatalogPages(bytes) : cutContent(bytes, chunking)
  let from = 0
  return ends.map(end => {
    const chunk = { digest: sha256Of(bytes.subarray(from, end)), sizeBytes: end - from }
    from = end
    return chunk
  })
}

/**
 * The extent that these bytes are: right bytes are those whose `extent.cid` is the one asked for.
 *
 * @param single whether the extent's CID is raw: it is the whole of an item of at most one chunk.
 */
export function extentOf(bytes: Uint8Array, rule: ChunkRule, single: boolean): CutExtent {
  return single
    ? rawExtent({ digest: sha256Of(bytes), sizeBytes: bytes.length })
    : nodeExtent(cutExtent(bytes, rule))
}

function cutContent(bytes: Uint8Array, chunking: Chunking): number[] {
  const ends: number[] = []
  for (let from = 0; from < bytes.length; ) {
    from = nextCut(bytes, from, bytes.length, chunking)
    ends.push(from)
  }
  return ends
}
