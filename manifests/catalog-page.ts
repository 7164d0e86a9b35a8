/**
 * Where a catalog's pages end, `catalog-v1` (docs/formats.md): after a line whose path hashes to
 * zero in seven bits, so that a changed line changes its own page only. Pages are the catalog's
 * chunks; lines are never split.
 */
const PAGE_BYTES_MIN = 32 * 1024
export const PAGE_BYTES_MAX = 128 * 1024
const LINE_FEED = 0x0a
/** Where a path begins in its line: `{"path":"` is before it. */
const PATH_AT = 9

/**
 * The end (exclusive) of each page, the last one being the end of `bytes`. Total: bytes that are
 * no catalog are cut somewhere, too, and found out by their digest.
 *
 * @param bytes whole lines from a page's beginning on: a catalog, or an extent of one.
 */
export function cutCatalogPages(bytes: Uint8Array): number[] {
  const ends: number[] = []
  let pageFrom = 0
  for (let lineFrom = 0; lineFrom < bytes.length; ) {
    const found = bytes.indexOf(LINE_FEED, lineFrom)
    const lineTo = found < 0 ? bytes.length : found + 1
    if (lineTo - pageFrom > PAGE_BYTES_MAX && lineFrom > pageFrom) {
      ends.push(lineFrom)
      pageFrom = lineFrom
    }
    if (lineTo - pageFrom >= PAGE_BYTES_MIN && pathHash(bytes, lineFrom, lineTo) >>> 25 === 0) {
      ends.push(lineTo)
      pageFrom = lineTo
    }
    lineFrom = lineTo
  }
  if (pageFrom < bytes.length) ends.push(bytes.length)
  return ends
}

/** 32-bit FNV-1a of the path as written, up to its closing quote. */
function pathHash(bytes: Uint8Array, lineFrom: number, lineTo: number): number {
  let hash = 2166136261
  for (let at = lineFrom + PATH_AT; at < lineTo; at++) {
    const byte = bytes[at]!
    if (byte === 0x22) break
    hash = Math.imul(hash ^ byte, 16777619)
    if (byte === 0x5c && at + 1 < lineTo) hash = Math.imul(hash ^ bytes[++at]!, 16777619)
  }
  return hash
}
