/**
 * SHA-256, the one identity of bytes in this project, as lower-case hex with a brand of its own.
 */
import { createHash, hash } from 'node:crypto'
import { EdgeError } from './errors.ts'

declare const brand: unique symbol
export type Sha256 = string & { readonly [brand]: 'sha256' }

/** One shot: `crypto.hash` beats `createHash` for buffers (1.8 GB/s with SHA-NI). */
export function sha256Of(bytes: Uint8Array | string): Sha256 {
  return hash('sha256', bytes, 'hex') as Sha256
}

/** A running SHA-256 for input that does not fit into memory. */
export function openSha256(): { update(bytes: Uint8Array): void; digest(): Sha256 } {
  const running = createHash('sha256')
  return {
    update: bytes => void running.update(bytes),
    digest: () => running.digest('hex') as Sha256,
  }
}

/** @throws EdgeError `REQUEST_INVALID` unless `text` is 64 lower-case hex digits. */
export function parseSha256(text: string): Sha256 {
  if (!isSha256(text))
    throw new EdgeError('REQUEST_INVALID', 'not a SHA-256: 64 lower-case hex digits are needed')
  return text
}

export function isSha256(text: unknown): text is Sha256 {
  return typeof text === 'string' && /^[0-9a-f]{64}$/.test(text)
}
