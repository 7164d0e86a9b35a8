import { constants, generateKeyPairSync, sign, type KeyObject } from 'node:crypto'
import { describe, expect, it } from 'vitest'
import { isSignedBy, keyIdOf, parseTufKey } from './public-key.ts'

const message = Buffer.from('what was signed')
const pemOf = (key: KeyObject) => key.export({ format: 'pem', type: 'spki' })
const keyOf = (keytype: string, scheme: string, material: string) =>
  parseTufKey('id', { keytype, scheme, keyval: { public: material } })

describe('signatures', () => {
  it('Ed25519: the first vector of RFC 8032', () => {
    const key = keyOf(
      'ed25519',
      'ed25519',
      'd75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a',
    )
    const signature =
      'e5564300c360ac729086e2cc806e828a84877f1eb8e5d974d873e065224901555fb8821590a33bacc61e39701cf9b46bd25bf5f0595bbe24655141438e7a100b'
    expect(isSignedBy(key, Buffer.alloc(0), signature)).toBe(true)
    expect(isSignedBy(key, message, signature)).toBe(false)
  })

  it.each([
    ['ecdsa', 'ecdsa-sha2-nistp256', 'P-256', 'sha256'],
    ['ecdsa-sha2-nistp256', 'ecdsa-sha2-nistp256', 'P-256', 'sha256'],
    ['ecdsa', 'ecdsa-sha2-nistp384', 'P-384', 'sha384'],
    ['ecdsa', 'ecdsa-sha2-nistp521', 'P-521', 'sha512'],
  ])('%s, %s', (keytype, scheme, namedCurve, hash) => {
    const { publicKey, privateKey } = generateKeyPairSync('ec', { namedCurve })
    const signature = sign(hash, message, privateKey).toString('hex')
    expect(isSignedBy(keyOf(keytype, scheme, pemOf(publicKey)), message, signature)).toBe(true)
    expect(isSignedBy(keyOf(keytype, scheme, pemOf(publicKey)), Buffer.from('else'), signature)).toBe(false)
    const otherCurve = namedCurve === 'P-256' ? 'ecdsa-sha2-nistp384' : 'ecdsa-sha2-nistp256'
    expect(isSignedBy(keyOf('ecdsa', otherCurve, pemOf(publicKey)), message, signature)).toBe(false)
  })

  it('RSA-PSS and PKCS #1 v1.5, of 2048 bits at least', () => {
    const { publicKey, privateKey } = generateKeyPairSync('rsa', { modulusLength: 2048 })
    const pss = { key: privateKey, padding: constants.RSA_PKCS1_PSS_PADDING, saltLength: 32 }
    const signed = sign('sha256', message, pss).toString('hex')
    const pemSigned = sign('sha256', message, privateKey).toString('hex')
    expect(isSignedBy(keyOf('rsa', 'rsassa-pss-sha256', pemOf(publicKey)), message, signed)).toBe(true)
    expect(isSignedBy(keyOf('rsa', 'rsassa-pss-sha256', pemOf(publicKey)), message, pemSigned)).toBe(false)
    expect(isSignedBy(keyOf('rsa', 'rsa-pkcs1v15-sha256', pemOf(publicKey)), message, pemSigned)).toBe(true)

    const short = generateKeyPairSync('rsa', { modulusLength: 1024 })
    const weak = sign('sha256', message, short.privateKey).toString('hex')
    expect(isSignedBy(keyOf('rsa', 'rsa-pkcs1v15-sha256', pemOf(short.publicKey)), message, weak)).toBe(false)
  })

  it('what cannot be checked is no signature, and no error', () => {
    const hex = 'd75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a'
    for (const [keytype, scheme, material] of [
      ['ed25519', 'ed25519', 'not hex'],
      ['ed25519', 'ed25519', hex.slice(2)],
      ['ecdsa', 'ecdsa-sha2-nistp256', 'no PEM'],
      ['sphincs', 'sphincs-shake-128s', hex],
      ['__proto__', '__proto__', hex],
    ] as const) {
      for (const signature of ['', 'zz', 'abc', 'ab', hex + hex]) {
        expect(isSignedBy(keyOf(keytype, scheme, material), message, signature)).toBe(false)
      }
    }
  })

  it('a key id is the SHA-256 of the canonical key', () => {
    const json = { scheme: 'ed25519', keytype: 'ed25519', keyval: { public: 'aa' } }
    // as securesystemslib computes it
    expect(keyIdOf(json)).toBe('e6787ff966fdf260e61237fa4e1a5c43d720770357876a7051dee79399e0ad44')
  })
})
