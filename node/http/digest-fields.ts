/**
 * Digest fields (RFC 9530): `Repr-Digest`, `Content-Digest` and the client's wishes.
 *
 * `Repr-Digest` is free, it is the item's identity, and goes with every answer unless the client
 * refuses it (`Want-Repr-Digest: sha-256=0`). `Content-Digest` is about the bytes of this very
 * message: it is sent with 206, where it says something new; free when the part is one whole chunk,
 * one more hash otherwise. So it is always there for parts up to `CONTENT_DIGEST_BYTES_MAX`, and on
 * request (`Want-Content-Digest`) up to `CONTENT_DIGEST_WANTED_BYTES_MAX`, since such a part has
 * to be verified whole, in memory, before its first byte goes out. (At 64 KiB the second hash would be
 * a fifth of the whole request: bench/read, `range`.)
 */
import type { Sha256 } from '../../manifests/digest.ts'

export const CONTENT_DIGEST_BYTES_MAX = 32 * 1024
export const CONTENT_DIGEST_WANTED_BYTES_MAX = 512 * 1024

export function digestField(digest: Sha256): string {
  return `sha-256=:${Buffer.from(digest, 'hex').toString('base64')}:`
}

export type Wish = 'none' | 'wanted' | 'refused'

/**
 * What a `Want-*-Digest` dictionary says of SHA-256: `sha-256=0` refuses, 1 to 10 wants. A field
 * that only names other algorithms expresses no wish that we can meet.
 */
export function wishOf(field: string | undefined): Wish {
  if (field === undefined) return 'none'
  const match = /(?:^|,)\s*sha-256\s*(?:=\s*(\d+))?\s*(?:;[^,]*)?(?=,|$)/i.exec(field)
  if (!match) return 'none'
  return match[1] !== undefined && Number(match[1]) === 0 ? 'refused' : 'wanted'
}
