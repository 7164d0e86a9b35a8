/**
 * CIDs as we use them: CIDv1, SHA-256, codec `raw` (a chunk) or `dag-pb` (a UnixFS node), base32.
 *
 * A CID is exactly 36 bytes: 01, codec (55 raw, 70 dag-pb), 12 20, digest. Every block of ours is
 * of this form, so a fixed-width codec of our own replaces the general one: the store keeps
 * millions of them, and this is a table look-up. Other CIDs are refused.
 */
import { EdgeError } from './errors.ts'
import type { Sha256 } from './digest.ts'

declare const brand: unique symbol
/** Base32 text, `bafkrei…` (raw) or `bafybei…` (dag-pb), 59 characters. */
export type Cid = string & { readonly [brand]: 'cid' }
export type Codec = 'raw' | 'dag-pb'

const LETTERS = Buffer.from('abcdefghijklmnopqrstuvwxyz234567')
const NO_LETTER = 255
/** By character code. */
const VALUE_OF = new Uint8Array(128).fill(NO_LETTER)
for (const [value, letter] of LETTERS.entries()) VALUE_OF[letter] = value
const CODEC_BYTE = { raw: 0x55, 'dag-pb': 0x70 } as const
export const CID_BYTES = 36
const CID_CHARACTERS = 59

export function cidOf(codec: Codec, digest: Sha256): Cid {
  return `b${base32Of(Buffer.from(`01${CODEC_BYTE[codec].toString(16)}1220${digest}`, 'hex'))}` as Cid
}

export function rawCidOf(digest: Sha256): Cid {
  return cidOf('raw', digest)
}

/** @throws EdgeError `REQUEST_INVALID` for anything but a CIDv1 of our form in base32. */
export function parseCid(text: string): Cid {
  const bytes = text.length === CID_CHARACTERS && text[0] === 'b' ? base32Bytes(text.slice(1)) : undefined
  if (!bytes || !isOurForm(bytes) || `b${base32Of(bytes)}` !== text) {
    throw new EdgeError(
      'REQUEST_INVALID',
      'not a CID we know: CIDv1, raw or dag-pb, sha2-256, base32 is needed',
    )
  }
  return text as Cid
}

/** @throws EdgeError `REQUEST_INVALID` unless the 36 bytes are a CID of our form. */
export function cidFromBytes(bytes: Uint8Array): Cid {
  if (!isOurForm(bytes)) throw new EdgeError('REQUEST_INVALID', 'not a CID of our form')
  return `b${base32Of(bytes)}` as Cid
}

/** The binary form, 36 bytes. */
export function cidBytes(cid: Cid): Buffer {
  const bytes = base32Bytes(cid.slice(1))
  if (!bytes) throw new EdgeError('REQUEST_INVALID', 'not a CID of our form')
  return bytes
}

export function codecOf(cid: Cid): Codec {
  return cid.startsWith('bafk') ? 'raw' : 'dag-pb'
}

export function digestOf(cid: Cid): Sha256 {
  return cidBytes(cid).toString('hex', 4) as Sha256
}

function isOurForm(bytes: Uint8Array): boolean {
  return (
    bytes.length === CID_BYTES &&
    bytes[0] === 0x01 &&
    (bytes[1] === CODEC_BYTE.raw || bytes[1] === CODEC_BYTE['dag-pb']) &&
    bytes[2] === 0x12 &&
    bytes[3] === 0x20
  )
}

/** RFC 4648 §6 without padding, lower case. */
function base32Of(bytes: Uint8Array): string {
  const text = Buffer.allocUnsafe(Math.ceil((bytes.length * 8) / 5))
  let length = 0
  let pending = 0
  let bits = 0
  for (let at = 0; at < bytes.length; at++) {
    pending = (pending << 8) | bytes[at]!
    bits += 8
    while (bits >= 5) {
      bits -= 5
      text[length++] = LETTERS[(pending >>> bits) & 31]!
    }
    pending &= (1 << bits) - 1
  }
  if (bits > 0) text[length++] = LETTERS[(pending << (5 - bits)) & 31]!
  return text.toString('latin1', 0, length)
}

function base32Bytes(text: string): Buffer | undefined {
  const bytes = Buffer.allocUnsafe(Math.floor((text.length * 5) / 8))
  let pending = 0
  let bits = 0
  let length = 0
  for (let at = 0; at < text.length; at++) {
    const value = VALUE_OF[text.charCodeAt(at)] ?? NO_LETTER
    if (value === NO_LETTER) return undefined
    pending = (pending << 5) | value
    bits += 5
    if (bits >= 8) {
      bits -= 8
      bytes[length++] = (pending >>> bits) & 255
      pending &= (1 << bits) - 1
    }
  }
  return bytes
}
