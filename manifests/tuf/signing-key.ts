/**
 * Private keys: Ed25519 in PEM (PKCS #8), what `openssl genpkey -algorithm ed25519` makes too.
 * Where the files lie is the caller's business (`node/key-folder.ts`).
 */
import { createPrivateKey, createPublicKey, generateKeyPairSync, sign, type KeyObject } from 'node:crypto'
import { EdgeError } from '../errors.ts'
import type { JsonObject } from './json.ts'
import { keyIdOf } from './public-key.ts'

/** The public half, as metadata lists it. */
export interface PublicKey {
  readonly keyId: string
  readonly json: JsonObject
}

export interface SigningKey extends PublicKey {
  /** Hex. */
  sign(message: Uint8Array): string
}

/** @returns the PEM of a new key. */
export function generateKeyPem(): string {
  return generateKeyPairSync('ed25519').privateKey.export({ format: 'pem', type: 'pkcs8' })
}

/** @throws EdgeError `KEY_INVALID` */
export function parseSigningKey(pem: string): SigningKey {
  const key = readKey(() => createPrivateKey(pem), 'private')
  return { ...publicKeyOf(createPublicKey(key)), sign: message => sign(null, message, key).toString('hex') }
}

/** A publisher's public key, handed over instead of a private one. @throws EdgeError `KEY_INVALID` */
export function parsePublicKey(pem: string): PublicKey {
  return publicKeyOf(readKey(() => createPublicKey(pem), 'public'))
}

/** For handing over to the holder of the root keys. */
export function publicPemOf(pem: string): string {
  return readKey(() => createPublicKey(pem), 'private').export({ format: 'pem', type: 'spki' })
}

function publicKeyOf(key: KeyObject): PublicKey {
  const { x } = key.export({ format: 'jwk' })
  const json = {
    keytype: 'ed25519',
    scheme: 'ed25519',
    keyval: { public: Buffer.from(x ?? '', 'base64url').toString('hex') },
  }
  return { keyId: keyIdOf(json), json }
}

function readKey(read: () => KeyObject, kind: string): KeyObject {
  let key: KeyObject
  try {
    key = read()
  } catch (cause) {
    throw new EdgeError('KEY_INVALID', `not a ${kind} key in PEM form`, { cause })
  }
  if (key.asymmetricKeyType !== 'ed25519') throw new EdgeError('KEY_INVALID', 'not an Ed25519 key')
  return key
}
