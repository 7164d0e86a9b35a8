/**
 * An extent's bytes, cut again: how whoever holds the bytes of an extent proves them against its
 * CID without having its chunk index.
 */
import { CHUNKING, nextCut, type Chunking } from './fastcdc.ts'
import { cutCatalogPages } from './catalog-page.ts'
import { sha256Of } from './digest.ts'
import type { ChunkRef, ChunkRule } from './extent.ts'
import { nodeExtent, rawExtent, type CutExtent } from './unixfs.ts'

/** The extent's chunks in order, each cut and hashed when it is asked for; none when there are no bytes. */
export function* chunksOfExtent(
  bytes: Uint8Array,
  rule: ChunkRule,
  chunking: Chunking = CHUNKING,
): Generator<ChunkRef> {
  let from = 0
  for (const end of rule === 'catalog-v1' ? cutCatalogPages(bytes) : contentCuts(bytes, chunking)) {
    yield { digest: sha256Of(bytes.subarray(from, end)), sizeBytes: end - from }
    from = end
  }
}

export function cutExtent(bytes: Uint8Array, rule: ChunkRule, chunking: Chunking = CHUNKING): ChunkRef[] {
  return [...chunksOfExtent(bytes, rule, chunking)]
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

function* contentCuts(bytes: Uint8Array, chunking: Chunking): Generator<number> {
  for (let from = 0; from < bytes.length; ) {
    from = nextCut(bytes, from, bytes.length, chunking)
    yield from
  }
}
