/**
 * The fields of an item's answers, built once per open item and then only touched up.
 *
 * They are kept as the flat name-value arrays that `writeHead` takes without copying; the two that
 * move with time, `Age` and `Cache-Status`, are rewritten in place when the second or the tier
 * changes. So an array is valid until the next call, and `writeHead` has used it by then.
 *
 * Staleness is told, never hidden: `Age` counts from when the upstream last confirmed the metadata
 * (RFC 9111 §5.1), and `ttl` in `Cache-Status` (RFC 9211 §2.4) is negative once it has expired.
 */
import type { Sha256 } from '../../manifests/digest.ts'
import type { ByteRange } from '../../manifests/extent.ts'
import type { Freshness, OpenItem, Tier } from '../library.ts'
import type { Validators } from './conditional.ts'
import { digestField } from './digest-fields.ts'
import { isEncodable, useAsDictionary } from './encoding/codings.ts'
import { contentRange } from './ranges.ts'
import { encodePath } from './request-path.ts'

/** Where the bytes come from: a tier of ours, or fetched while the client waits. */
export type Source = Tier | 'miss' | 'partial'
/** The same for logs and metrics, where an answer may hold no item's bytes. */
export type AnswerSource = Source | 'rendition' | 'none'

/** All of them: nothing here is a secret of one client. */
export const EXPOSED_FIELDS = '*'

/** By digest the bytes can never change; by name they may with every release, so browsers ask again. */
const CACHE_CONTROL = {
  digest: 'public, max-age=31536000, immutable',
  path: 'public, max-age=60, stale-while-revalidate=86400, stale-if-error=2592000',
} as const

/** Dictionaries are offered, and so varied by, where a path has had another version (RFC 9842 §6.2). */
const VARY = { digest: 'Accept-Encoding', path: 'Accept-Encoding, Available-Dictionary' } as const

/**
 * Published pages may run their own scripts, but in an origin of their own (T18): they cannot read
 * the portal's session, and reach no other host.
 */
const SANDBOX =
  "sandbox allow-scripts allow-forms allow-popups allow-modals allow-downloads; default-src 'self' 'unsafe-inline' 'unsafe-eval' data: blob:"
const ACTIVE_TYPE = /^(?:text\/html|text\/xml|application\/xhtml\+xml|application\/xml|image\/svg\+xml)\b/
const INLINE_TYPE =
  /^(?:text|image|audio|video|font)\/|^application\/(?:json|ld\+json|geo\+json|manifest\+json|javascript|pdf|xml|xhtml\+xml|rtf|wasm|x-ndjson)\b/

export type Naming = keyof typeof CACHE_CONTROL

/** One encoded representation of the item. */
export interface EncodedFields {
  /** `zstd`, `br`, `gzip`, `dcz`. */
  readonly coding: string
  /** Without quotes. */
  readonly tag: string
  readonly sha256: Sha256
  readonly lengthBytes: number
}

export class ItemHeaders implements Validators {
  readonly etag: string
  readonly etagOfEncodings: string | undefined
  /** Whether encodings of it are given to clients that take them. */
  readonly isEncodable: boolean
  /** As in a URL; undefined for an item asked for by digest. */
  readonly path: string | undefined
  readonly lastModifiedMs: number
  readonly reprDigest: string
  readonly #item: OpenItem
  readonly #whole: string[]
  readonly #notModified: string[]
  #source: Source | undefined
  #second = -1

  constructor(item: OpenItem, naming: Naming) {
    this.#item = item
    this.etag = `"sha256-${item.sha256}"`
    this.isEncodable = isEncodable(item.mediaType, item.sizeBytes)
    this.path = naming === 'path' ? urlPathOf(item) : undefined
    this.etagOfEncodings = this.isEncodable ? `"sha256-${item.sha256}-` : undefined
    this.lastModifiedMs = Math.floor(item.publishedAtMs / 1000) * 1000
    this.reprDigest = digestField(item.sha256)

    // biome-ignore format: a field and its value on each line
    const common = [
      'Age', '0', // slots 1 and 3 are rewritten by #touch
      'Cache-Status', '',
      'ETag', this.etag,
      'Last-Modified', new Date(this.lastModifiedMs).toUTCString(),
      'Cache-Control', CACHE_CONTROL[naming],
      ...(this.isEncodable ? ['Vary', VARY[naming]] : []),
      'Access-Control-Allow-Origin', '*',
      'Access-Control-Expose-Headers', EXPOSED_FIELDS,
    ]
    this.#notModified = common
    // biome-ignore format: a field and its value on each line
    this.#whole = [
      ...common,
      'Content-Type', item.mediaType,
      'X-Content-Type-Options', 'nosniff',
      'Cross-Origin-Resource-Policy', 'cross-origin',
      ...(ACTIVE_TYPE.test(item.mediaType) ? ['Content-Security-Policy', SANDBOX] : []),
      ...(INLINE_TYPE.test(item.mediaType) ? [] : ['Content-Disposition', disposition(item.path)]),
      ...(this.isEncodable && this.path !== undefined ? ['Use-As-Dictionary', useAsDictionary(this.path)] : []),
      'Accept-Ranges', 'bytes',
      'Repr-Digest', this.reprDigest,
      'Content-Length', String(item.sizeBytes),
    ]
  }

  /** Whether no answer was given in this second yet. */
  isNewSecond(nowMs: number): boolean {
    return Math.floor(nowMs / 1000) !== this.#second
  }

  /** 200. Valid until the next call of any method here. */
  whole(source: Source, nowMs: number): string[] {
    this.#touch(source, nowMs)
    return this.#whole
  }

  /** 206 with one part; `contentDigest` where it was worth computing. */
  part(source: Source, nowMs: number, range: ByteRange, contentDigest: string | undefined): string[] {
    const fields = this.#withLength(source, nowMs, range.last - range.first + 1)
    fields.push('Content-Range', contentRange(range, this.#item.sizeBytes))
    if (contentDigest !== undefined) fields.push('Content-Digest', contentDigest)
    return fields
  }

  /** 206 with several parts. */
  multipart(source: Source, nowMs: number, boundary: string, lengthBytes: number): string[] {
    const fields = this.#withLength(source, nowMs, lengthBytes)
    fields[fields.indexOf('Content-Type') + 1] = `multipart/byteranges; boundary=${boundary}`
    return fields
  }

  /** 200 with an encoding of it. No ranges: those are always of the item as it is. */
  encoded(source: Source, nowMs: number, { coding, tag, sha256, lengthBytes }: EncodedFields): string[] {
    const fields = this.#withLength(source, nowMs, lengthBytes)
    for (let i = 0; i < fields.length; i += 2) {
      if (fields[i] === 'ETag') fields[i + 1] = `"${tag}"`
      else if (fields[i] === 'Accept-Ranges') fields[i + 1] = 'none'
      else if (fields[i] === 'Repr-Digest') fields[i + 1] = digestField(sha256)
    }
    fields.push('Content-Encoding', coding)
    return fields
  }

  /**
   * 304: what a 200 would have said that a cache must update (RFC 9110 §15.4.5).
   * @param etag of the representation that the client holds.
   */
  notModified(source: Source, nowMs: number, etag: string): string[] {
    this.#touch(source, nowMs)
    if (etag === this.etag) return this.#notModified
    return this.#notModified.map((value, i) => (this.#notModified[i - 1] === 'ETag' ? etag : value))
  }

  #withLength(source: Source, nowMs: number, lengthBytes: number): string[] {
    this.#touch(source, nowMs)
    const fields = this.#whole.slice()
    fields[fields.length - 1] = String(lengthBytes) // Content-Length is last in #whole
    return fields
  }

  #touch(source: Source, nowMs: number): void {
    const second = Math.floor(nowMs / 1000)
    if (second === this.#second && source === this.#source) return
    this.#second = second
    this.#source = source

    const { age, ttl } = ageOf(this.#item.freshness, second)
    this.#whole[1] = this.#notModified[1] = String(age)
    this.#whole[3] = this.#notModified[3] = cacheStatus(source, ttl)
  }
}

/** Seconds. */
function ageOf(freshness: Freshness, nowSeconds: number): { age: number; ttl: number } {
  const confirmed = Math.floor(Date.parse(freshness.confirmedAt) / 1000)
  const expires = Math.floor(Date.parse(freshness.expiresAt) / 1000)
  const ttl = Number.isNaN(expires) ? 0 : expires - nowSeconds
  return {
    age: Number.isNaN(confirmed) ? 0 : Math.max(0, nowSeconds - confirmed),
    ttl: freshness.fresh ? Math.max(0, ttl) : Math.min(-1, ttl),
  }
}

function cacheStatus(source: Source, ttl: number): string {
  if (source === 'miss' || source === 'partial') return `towerlight; fwd=${source}; stored; ttl=${ttl}`
  return `towerlight; hit; ttl=${ttl}; detail=${source}`
}

function urlPathOf({ dataset, path }: OpenItem): string {
  return `/data/${dataset}/${encodePath(path)}`
}

/** RFC 6266: a name for old clients, and the real one. */
export function disposition(path: string): string {
  const name = path.slice(path.lastIndexOf('/') + 1)
  const plain = name.replace(/[^\x20-\x7e]|["\\%;]/g, '_')
  const full = encodeURIComponent(name).replace(
    /['()*!]/g,
    c => `%${c.charCodeAt(0).toString(16).toUpperCase()}`,
  )
  return `attachment; filename="${plain}"; filename*=UTF-8''${full}`
}
