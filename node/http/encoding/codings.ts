/**
 * Content codings of items (RFC 9110 §8.4, §12.5.3; RFC 9842): which items are worth it, what a client
 * takes, and how each encoded representation is called. Pure.
 */
import { arch, versions } from 'node:process'
import { type Sha256, isSha256, sha256Of } from '../../../manifests/digest.ts'

/** Below this nothing is gained; above, an item goes out as it is, in ranges if need be. */
export const ENCODED_BYTES_MIN = 1024
export const ENCODED_BYTES_MAX = 8 * 1024 * 1024

export type PlainCoding = 'zstd' | 'br' | 'gzip'
/** `dcz`: Zstandard with the dictionary named in `dictionary`, an item that the client holds. */
export type Variant =
  | { readonly coding: PlainCoding; readonly dictionary?: undefined }
  | { readonly coding: 'dcz'; readonly dictionary: Sha256 }

/** Chosen by node/http/encoding/encoder.test.ts's table in docs/http.md: what a tower's CPU can give. */
export const LEVELS = { zstd: 9, br: 5, gzip: 6, dcz: 9 } as const

/** Best first, where the client likes them equally. */
const PREFERRED = ['dcz', 'zstd', 'br', 'gzip'] as const
const FIELD_CHARACTERS_MAX = 500

/** The same encoder gives the same bytes, so tags with its mark are strong; deflate differs by CPU. */
const ENCODER = sha256Of(
  Buffer.from(JSON.stringify([LEVELS, arch, versions['zstd'], versions['brotli'], versions.zlib])),
).slice(0, 8)

const COMPRESSIBLE =
  /^(?:text\/(?!event-stream)[\w.+-]+|application\/(?:json|javascript|ecmascript|xml|xhtml\+xml|rtf|sql|wasm|x-ndjson|x-sh|x-tex|x-yaml|yaml|toml|manifest\+json|vnd\.ms-fontobject)|application\/[\w.-]+\+(?:json|xml)|image\/(?:svg\+xml|bmp|x-icon)|font\/(?:ttf|otf)|model\/(?:gltf\+json|obj|stl))\s*(?:;|$)/i

export function isEncodable(mediaType: string, sizeBytes: number): boolean {
  return sizeBytes >= ENCODED_BYTES_MIN && sizeBytes <= ENCODED_BYTES_MAX && COMPRESSIBLE.test(mediaType)
}

/**
 * The encoded representations that a client likes at least as much as the bytes as they are, best first.
 * What it does not name it does not get: `*` is no wish for a certain coding.
 * @param availableDictionary RFC 9842 §2.2: a byte sequence, the SHA-256 of what the client holds.
 */
export function variantsFor(acceptEncoding: string, availableDictionary: string | undefined): Variant[] {
  const weights = weightsOf(acceptEncoding)
  const asItIs = weights.get('identity') ?? 0
  const dictionary = dictionaryOf(availableDictionary)
  return PREFERRED.filter(coding => (weights.get(coding) ?? 0) > 0)
    .filter(coding => (weights.get(coding) ?? 0) >= asItIs)
    .toSorted((a, b) => (weights.get(b) ?? 0) - (weights.get(a) ?? 0))
    .flatMap(coding => {
      if (coding !== 'dcz') return { coding }
      return dictionary === undefined ? [] : { coding, dictionary }
    })
}

/** Without quotes: `sha256-<hex>` is the item as it is, `sha256-<hex>-zstd-…` an encoding of it. */
export function tagOf(sha256: Sha256, { coding, dictionary }: Variant): string {
  const name = `sha256-${sha256}-${coding}-${ENCODER}`
  return dictionary === undefined ? name : `${name}-${dictionary.slice(0, 16)}`
}

/** What a kept encoding is filed under. */
export function keyOf(sha256: Sha256, { coding, dictionary = '' as Sha256 }: Variant): Sha256 {
  return sha256Of(Buffer.from(`${sha256} ${coding} ${ENCODER} ${dictionary}`))
}

function weightsOf(field: string): Map<string, number> {
  const weights = new Map<string, number>()
  if (field.length > FIELD_CHARACTERS_MAX) return weights
  for (const element of field.split(',')) {
    const match = /^\s*(?:x-(?=gzip))?([\w-]+)\s*(?:;\s*q\s*=\s*(0(?:\.\d{0,3})?|1(?:\.0{0,3})?)\s*)?$/i.exec(
      element,
    )
    if (match) weights.set(match[1]!.toLowerCase(), Number(match[2] ?? 1))
  }
  return weights
}

function dictionaryOf(field: string | undefined): Sha256 | undefined {
  const [, base64] = /^\s*:([A-Za-z0-9+/]{43}=):\s*$/.exec(field ?? '') ?? []
  if (base64 === undefined) return undefined
  const hex = Buffer.from(base64, 'base64').toString('hex')
  return isSha256(hex) ? hex : undefined
}

/**
 * `Use-As-Dictionary` (RFC 9842 §2.1): whoever has this item may name it when it asks for its next
 * version, at the same path.
 * @param urlPath as in a URL, each segment escaped.
 */
export function useAsDictionary(urlPath: string): string {
  const pattern = urlPath.replace(/[\\+*?(){}:]/g, '\\$&') // a URL pattern that matches only itself
  return `match="${pattern.replace(/["\\]/g, '\\$&')}"`
}
