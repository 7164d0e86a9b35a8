/**
 * Public keys as TUF writes them, and the one question asked of them: is this signature theirs?
 *
 * Ed25519, ECDSA on the NIST curves, RSA-PSS and RSA PKCS#1 v1.5 (TUF 4.2.2 and what the reference
 * client adds). A key of another kind, or one that cannot be read, is kept and never verifies
 * anything: a repository may use keys that we do not know as long as others make up the threshold.
 */
import { constants, createPublicKey, type KeyObject, verify } from 'node:crypto'
import { sha256Of } from '../digest.ts'
import { asObject, asText, canonicalBytes, type JsonObject } from './json.ts'

export interface TufKey {
  readonly keyId: string
  readonly keytype: string
  readonly scheme: string
  /** Hex for Ed25519, PEM otherwise. Two ids with the same material are one key. */
  readonly material: string
  /** As found, with fields that we do not know. */
  readonly json: JsonObject
}

type Hash = 'sha256' | 'sha384' | 'sha512'
const ECDSA_HASH: Readonly<Record<string, Hash>> = {
  'ecdsa-sha2-nistp256': 'sha256',
  'ecdsa-sha2-nistp384': 'sha384',
  'ecdsa-sha2-nistp521': 'sha512',
}
const CURVES: Readonly<Record<string, string>> = {
  'ecdsa-sha2-nistp256': 'prime256v1',
  'ecdsa-sha2-nistp384': 'secp384r1',
  'ecdsa-sha2-nistp521': 'secp521r1',
}
const RSA_BITS_MIN = 2048

/** @throws EdgeError `TRUST_INVALID` */
export function parseTufKey(keyId: string, value: unknown): TufKey {
  const what = `key ${keyId.slice(0, 16)}`
  const json = asObject(value, what)
  const keyval = asObject(json.keyval, what)
  return {
    keyId,
    keytype: asText(json.keytype, what),
    scheme: asText(json.scheme, what),
    material: asText(keyval.public, what).trim(),
    json,
  }
}

/** SHA-256 over the key's canonical form (TUF 4.2.2). */
export function keyIdOf(json: JsonObject): string {
  return sha256Of(canonicalBytes(json))
}

/** Never throws: what cannot be checked is not a signature. */
export function isSignedBy(key: TufKey, message: Uint8Array, signatureHex: string): boolean {
  if (!/^(?:[0-9a-fA-F]{2})+$/.test(signatureHex)) return false
  try {
    return verifyAs(key, message, Buffer.from(signatureHex, 'hex'))
  } catch {
    return false
  }
}

function verifyAs({ keytype, scheme, material }: TufKey, message: Uint8Array, signature: Buffer): boolean {
  if (keytype === 'ed25519' && scheme === 'ed25519') {
    return verify(null, message, ed25519Of(material), signature)
  }
  const ecdsaHash = Object.hasOwn(ECDSA_HASH, scheme) ? ECDSA_HASH[scheme] : undefined
  if (ecdsaHash && (keytype === 'ecdsa' || keytype === scheme)) {
    const key = createPublicKey(material)
    if (key.asymmetricKeyDetails?.namedCurve !== CURVES[scheme]) return false
    return verify(ecdsaHash, message, key, signature)
  }
  const rsa = /^(rsassa-pss|rsa-pkcs1v15)-(sha256|sha384|sha512)$/.exec(scheme)
  if (rsa && keytype === 'rsa') {
    const key = createPublicKey(material)
    if (key.asymmetricKeyType !== 'rsa' || (key.asymmetricKeyDetails?.modulusLength ?? 0) < RSA_BITS_MIN)
      return false
    const padding =
      rsa[1] === 'rsassa-pss'
        ? { padding: constants.RSA_PKCS1_PSS_PADDING, saltLength: constants.RSA_PSS_SALTLEN_AUTO }
        : { padding: constants.RSA_PKCS1_PADDING }
    return verify(rsa[2], message, { key, ...padding }, signature)
  }
  return false
}

function ed25519Of(hex: string): KeyObject {
  const x = Buffer.from(hex, 'hex').toString('base64url')
  return createPublicKey({ key: { kty: 'OKP', crv: 'Ed25519', x }, format: 'jwk' })
}
