/**
 * `/data/<dataset>/<path>` and `/sha256/<hex>`: items, verified, with all that HTTP promises.
 *
 * Small answers are read, hashed and written at once, from memory where they are hot; everything
 * else goes through the one fair `SendQueue`. Nothing is written before the first chunk (for small
 * answers: all of them) has been verified, so a fault there is still a clean 503.
 *
 * Answers: 200, 206, 304, 412, 416, and problems: 400 path tricks, 404 unknown, 405 method, 410
 * denied, 503 with `Retry-After` when bytes are not here and cannot be had now.
 */
import { hash } from 'node:crypto'
import type { IncomingMessage, ServerResponse } from 'node:http'
import { type Sha256, openSha256 } from '../../manifests/digest.ts'
import { EdgeError, isEdgeError } from '../../manifests/errors.ts'
import type { ByteRange } from '../../manifests/extent.ts'
import type { ChunkSlice, Library, OpenItem } from '../library.ts'
import type { BufferPool } from './buffer-pool.ts'
import { evaluate, rangeStillValid } from './conditional.ts'
import { CONTENT_DIGEST_BYTES_MAX, CONTENT_DIGEST_WANTED_BYTES_MAX, digestField } from './digest-fields.ts'
import { type AnswerSource, EXPOSED_FIELDS, ItemHeaders, type Source } from './item-headers.ts'
import { MEMORY_ITEM_BYTES_MAX, type MemoryTier } from './memory-tier.ts'
import { fetchFirstMissing, residencyOf } from './missing.ts'
import { multipartOf } from './multipart.ts'
import { fieldsWith, problem, sendProblem } from './problem.ts'
import { planRanges } from './ranges.ts'
import { refuse } from './refusal.ts'
import { type RenditionSource, pictureOf, renditionOf, sendRendition } from './rendition-handler.ts'
import type { ItemTarget } from './request-path.ts'
import type { SendQueue } from './send-queue.ts'
import { TargetCache } from './target-cache.ts'
import { type Wishes, wishesOf, withWishes } from './wishes.ts'

/** Answers up to this long are sent at once, in one write. */
const INLINE_BYTES_MAX = 128 * 1024
/** Below this a body joins its header fields in one string: one buffer less for the socket. */
const LATIN1_BYTES_MAX = 4 * 1024
const EMPTY = Buffer.alloc(0)
const EMPTY_SHA256 = 'e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855'

export interface AnswerObserver {
  /** Once per answer, when it is over. `status` 499: the client left before the end. */
  answered(
    req: IncomingMessage,
    status: number,
    source: AnswerSource,
    bodyBytes: number,
    seconds: number,
  ): void
  /** A read that failed its check or its disk, whether or not it was healed. */
  fault(error: unknown): void
}

export interface ItemHandlerParts {
  readonly library: Library
  readonly memory: MemoryTier
  readonly pool: BufferPool
  readonly queue: SendQueue
  readonly observer: AnswerObserver
  /** Without it, queries for renditions give the original. */
  readonly renditions?: RenditionSource | undefined
  readonly now: () => number
  /** More transfers than this at once are a health miss: 503. */
  readonly transfersMax: number
  /** `Retry-After` where the library cannot say: the item itself is not known yet. */
  readonly retryAfterSeconds: number
}

interface Request {
  readonly req: IncomingMessage
  readonly res: ServerResponse
  /** `performance.now()` */
  readonly startedAt: number
}

interface Exchange extends Request {
  readonly item: OpenItem
  readonly fields: ItemHeaders
  readonly nowMs: number
  readonly wishes: Wishes | undefined
}

export class ItemHandler {
  readonly #parts: ItemHandlerParts
  readonly #targets = new TargetCache()
  readonly #waiting = new Set<ServerResponse>()
  readonly #fieldsByPath = new WeakMap<OpenItem, ItemHeaders>()
  readonly #fieldsByDigest = new WeakMap<OpenItem, ItemHeaders>()

  constructor(parts: ItemHandlerParts) {
    this.#parts = parts
  }

  /** Answers that wait for their first byte to come from elsewhere. */
  get waiting(): Iterable<ServerResponse> {
    return this.#waiting
  }

  /** @returns false when no item is meant (a listing, perhaps) and nothing was done. */
  handle(req: IncomingMessage, res: ServerResponse, url: string): boolean {
    const startedAt = performance.now()
    const { library, now } = this.#parts
    let target: ItemTarget | undefined
    let item: OpenItem
    try {
      target = this.#targets.get(url)
      if (!target) return false
      if (req.method !== 'GET' && req.method !== 'HEAD') return this.#otherMethod({ req, res, startedAt })
      item =
        target.kind === 'path' ? library.open(target.dataset, target.path) : library.openDigest(target.sha256)
    } catch (error) {
      // It may be a folder without its slash: the listings know.
      if (target?.kind === 'path' && isEdgeError(error, 'ITEM_UNKNOWN')) return false
      this.#refuse({ req, res, startedAt }, error, this.#parts.retryAfterSeconds)
      return true
    }
    const fields = this.#fieldsOf(item, target)
    const wishes = wishesOf(req, target.query)
    const exchange: Exchange = { req, res, startedAt, item, fields, nowMs: now(), wishes }
    if (target.query === '' || !this.#answeredByRendition(exchange, target.query)) this.#answer(exchange)
    return true
  }

  #answer(exchange: Exchange): void {
    const { headers, method } = exchange.req
    if (
      headers['if-none-match'] !== undefined ||
      headers['if-modified-since'] !== undefined ||
      headers['if-match'] !== undefined ||
      headers['if-unmodified-since'] !== undefined
    ) {
      if (this.#answeredByCondition(exchange)) return
    }
    if (headers.range !== undefined && method === 'GET') this.#sendRanges(exchange, headers.range)
    else this.#sendWhole(exchange)
  }

  #answeredByRendition(exchange: Exchange, query: string): boolean {
    const { req, res, item, fields, nowMs } = exchange
    const { renditions, library } = this.#parts
    if (!renditions) return false
    try {
      const rendition = renditionOf(req, item, query)
      if (!rendition) return false
      const gone = new AbortController()
      res.once('close', () => gone.abort())
      this.#waiting.add(res)
      renditions
        .get(pictureOf(item), rendition, { signal: gone.signal })
        .finally(() => this.#waiting.delete(res))
        .then(rendered => {
          const list = fields.whole(this.#sourceOf(item), nowMs)
          const { status, bodyBytes } = sendRendition(req, res, item, list, rendered, fields)
          this.#answered(exchange, status, 'rendition', bodyBytes)
        })
        .catch(error => this.#refuse(exchange, absentUnless(error, item), library.retryAfterSeconds(item)))
    } catch (error) {
      this.#refuse(exchange, error, 0)
    }
    return true
  }

  #fieldsOf(item: OpenItem, { kind }: ItemTarget): ItemHeaders {
    const known = kind === 'path' ? this.#fieldsByPath : this.#fieldsByDigest
    let fields = known.get(item)
    if (!fields) {
      fields = new ItemHeaders(item, kind)
      known.set(item, fields)
    }
    return fields
  }

  /**
   * 304 and 412. They need no bytes, so they are given for items that are not here too: what the
   * client holds is still what the signed catalog names.
   */
  #answeredByCondition(exchange: Exchange): boolean {
    const { req, res, item, fields, nowMs } = exchange
    const { headers } = req
    const verdict = evaluate(
      {
        ifMatch: headers['if-match'],
        ifNoneMatch: headers['if-none-match'],
        ifModifiedSince: headers['if-modified-since'],
        ifUnmodifiedSince: headers['if-unmodified-since'],
      },
      fields,
    )
    if (verdict === 'proceed') return false
    if (verdict === 'not-modified') {
      res.writeHead(304, fields.notModified(this.#sourceOf(item), nowMs))
      res.end()
      this.#answered(exchange, 304, 'none', 0)
    } else {
      const failed = problem(412, 'PRECONDITION_FAILED', 'the item is not the one you named', req.url)
      sendProblem(res, failed, ['ETag', fields.etag])
      this.#answered(exchange, 412, 'none', 0)
    }
    return true
  }

  #sendWhole(exchange: Exchange): void {
    const { req, res, item, fields, nowMs, wishes } = exchange
    const { sizeBytes, sha256, path } = item
    const bytes = sizeBytes <= MEMORY_ITEM_BYTES_MAX ? this.#fromMemory(item) : undefined
    if (!bytes) return this.#send(exchange, 200, [{ first: 0, last: sizeBytes - 1 }])

    if (hash('sha256', bytes, 'hex') !== sha256) {
      this.#parts.memory.evict(sha256)
      this.#parts.observer.fault(new EdgeError('CHUNK_CORRUPT', `item ${sha256} in the memory tier`))
      return this.#sendWhole(exchange)
    }
    // Once a second is enough for the tiers below to know that it is wanted.
    if (fields.isNewSecond(nowMs)) item.used()
    const list = fields.whole('memory', nowMs)
    res.writeHead(200, wishes ? withWishes(list, wishes, path, wholeDigestFor(exchange)) : list)
    if (req.method === 'HEAD') res.end()
    else if (sizeBytes <= LATIN1_BYTES_MAX) res.end(bytes.toString('latin1'), 'latin1')
    else res.end(bytes)
    this.#answered(exchange, 200, 'memory', sizeBytes)
  }

  #sendRanges(exchange: Exchange, field: string): void {
    const { req, item, fields, nowMs } = exchange
    const ifRange = req.headers['if-range']
    if (ifRange !== undefined && !rangeStillValid(String(ifRange), fields, nowMs)) {
      return this.#sendWhole(exchange)
    }
    const plan = planRanges(field, item.sizeBytes)
    if (plan === 'whole') return this.#sendWhole(exchange)
    if (plan === 'outside') {
      const outside = new EdgeError('RANGE_OUTSIDE_ITEM', `the item has ${item.sizeBytes} bytes`)
      const more = ['Content-Range', `bytes */${item.sizeBytes}`, 'ETag', fields.etag]
      return this.#refuse(exchange, outside, 0, more)
    }
    this.#send(exchange, 206, plan)
  }

  #send(exchange: Exchange, status: 200 | 206, ranges: readonly ByteRange[]): void {
    const { req, res, item, fields, nowMs, wishes } = exchange
    const residency = residencyOf(item, ranges)
    if (residency.state !== 'present') {
      return this.#sendOnceReached(
        exchange,
        status,
        ranges,
        residency.state === 'absent' ? 'miss' : 'partial',
      )
    }
    const source = residency.tier ?? 'hot'
    if (req.method === 'HEAD') {
      res.writeHead(200, withWishes(fields.whole(source, nowMs), wishes, item.path))
      res.end()
      return this.#answered(exchange, 200, source, 0)
    }
    const [only] = ranges
    const inline =
      source !== 'warm' && ranges.length === 1 && only && this.#sentInline(exchange, status, only, source)
    if (!inline) this.#enqueue(exchange, status, ranges, source)
  }

  /** All at once, for short answers from a fast tier. @returns false when nothing was done. */
  #sentInline(exchange: Exchange, status: 200 | 206, range: ByteRange, source: Source): boolean {
    const { res, item, fields, nowMs, wishes } = exchange
    const { pool, memory, observer } = this.#parts
    const lengthBytes = range.last - range.first + 1
    const wanted = wishes?.contentDigest === 'wanted'
    const digestBytesMax = wanted ? CONTENT_DIGEST_WANTED_BYTES_MAX : CONTENT_DIGEST_BYTES_MAX
    const hashed = status === 206 && lengthBytes <= digestBytesMax
    if (lengthBytes > INLINE_BYTES_MAX && !hashed) return false

    const slices: ChunkSlice[] = []
    const buffers: Buffer[] = []
    try {
      for (const slice of item.slices(range)) {
        const buffer = pool.take(slice.sizeBytes)
        buffers.push(buffer)
        item.readInto(slice, buffer)
        slices.push(slice)
      }
    } catch (error) {
      for (const buffer of buffers) pool.give(buffer) // no socket has seen them
      observer.fault(error)
      return false
    }

    const views = slices.map(({ from, to }, i) => buffers[i]!.subarray(from, to))
    if (status === 206) {
      const digest = soleChunkDigest(slices) ?? (hashed ? digestOf(views) : undefined)
      res.writeHead(
        206,
        withWishes(fields.part(source, nowMs, range, digest && digestField(digest)), wishes, item.path),
      )
    } else {
      memory.offer(item.sha256, views, item.sizeBytes)
      const list = fields.whole(source, nowMs)
      res.writeHead(200, withWishes(list, wishes, item.path, wholeDigestFor(exchange)))
    }
    for (const [i, view] of views.entries()) {
      res.write(view, error => {
        if (!error) pool.give(buffers[i]!)
      })
    }
    res.end()
    this.#answered(exchange, status, source, lengthBytes)
    return true
  }

  #enqueue(exchange: Exchange, status: 200 | 206, ranges: readonly ByteRange[], source: Source): void {
    const { res, item, fields, nowMs, wishes } = exchange
    const { queue, library, transfersMax } = this.#parts
    if (queue.active >= transfersMax) {
      return this.#refuse(exchange, new EdgeError('OVERLOADED', 'too many transfers at once'), 1)
    }
    const parts = ranges.length > 1 ? multipartOf(item, ranges) : undefined
    const only = ranges[0]!
    queue.start({
      res,
      item,
      steps: parts?.steps ?? item.slices(only)[Symbol.iterator](),
      offThread: source === 'warm',
      head: () => {
        const list = parts
          ? fields.multipart(source, nowMs, parts.boundary, parts.lengthBytes)
          : status === 206
            ? fields.part(source, nowMs, only, undefined)
            : fields.whole(source, nowMs)
        const wholeDigest = status === 200 ? wholeDigestFor(exchange) : undefined
        res.writeHead(status, withWishes(list, wishes, item.path, wholeDigest))
      },
      refuse: error => this.#refuse(exchange, absentUnless(error, item), library.retryAfterSeconds(item)),
      done: (outcome, sentBytes) => {
        if (outcome !== 'refused')
          this.#answered(exchange, outcome === 'sent' ? status : 499, source, sentBytes)
      },
    })
  }

  /**
   * Some bytes are not here. The first of those is fetched before anything is promised: when it comes,
   * a link is up, and the rest is fetched on the way; when not, the answer is 503. HEAD fetches nothing.
   */
  #sendOnceReached(
    exchange: Exchange,
    status: 200 | 206,
    ranges: readonly ByteRange[],
    source: Source,
  ): void {
    const { req, res, item } = exchange
    const giveUp = (error: unknown): void => {
      const more = ['Cache-Status', `towerlight; fwd=${source}`]
      this.#refuse(exchange, absentUnless(error, item), this.#parts.library.retryAfterSeconds(item), more)
    }
    if (req.method === 'HEAD') return giveUp(new EdgeError('CHUNK_ABSENT', item.path))

    const gone = new AbortController()
    const leave = (): void => gone.abort()
    res.once('close', leave)
    this.#waiting.add(res)
    fetchFirstMissing(item, ranges, gone.signal)
      .finally(() => {
        this.#waiting.delete(res)
        res.off('close', leave)
      })
      .then(() => {
        if (!res.destroyed) this.#enqueue(exchange, status, ranges, source)
      })
      .catch(giveUp)
  }

  #fromMemory({ sizeBytes, sha256 }: OpenItem): Buffer | undefined {
    return sizeBytes === 0 && sha256 === EMPTY_SHA256 ? EMPTY : this.#parts.memory.get(sha256)
  }

  #sourceOf(item: OpenItem): Source {
    if (this.#fromMemory(item)) return 'memory'
    const { state, tier } = item.residency({ first: 0, last: Math.max(0, item.sizeBytes - 1) })
    return state === 'absent' ? 'miss' : state === 'partial' ? 'partial' : (tier ?? 'hot')
  }

  #otherMethod(request: Request): true {
    if (request.req.method === 'OPTIONS') {
      request.res.writeHead(204, OPTIONS_FIELDS).end()
      this.#answered(request, 204, 'none', 0)
    } else {
      const error = new EdgeError('METHOD_NOT_ALLOWED', 'items are read with GET, HEAD and OPTIONS')
      this.#refuse(request, error, 0)
    }
    return true
  }

  #refuse(request: Request, error: unknown, retryAfterSeconds: number, more: readonly string[] = []): void {
    const { req, res } = request
    if (!isEdgeError(error)) this.#parts.observer.fault(error)
    const status = refuse(req, res, error, [...fieldsWith(error, retryAfterSeconds), ...more])
    this.#answered(request, status, 'none', 0)
  }

  #answered({ req, startedAt }: Request, status: number, source: AnswerSource, bodyBytes: number): void {
    this.#parts.observer.answered(req, status, source, bodyBytes, (performance.now() - startedAt) / 1000)
  }
}

// biome-ignore format: a field and its value on each line
const OPTIONS_FIELDS = [
  'Allow', 'GET, HEAD, OPTIONS',
  'Access-Control-Allow-Origin', '*',
  'Access-Control-Allow-Methods', 'GET, HEAD, OPTIONS',
  'Access-Control-Allow-Headers', 'Range, If-Match, If-None-Match, If-Modified-Since, If-Unmodified-Since, If-Range, Want-Content-Digest, Want-Repr-Digest',
  'Access-Control-Expose-Headers', EXPOSED_FIELDS,
  'Access-Control-Max-Age', '86400',
]

/** With GET only: HEAD has no content that a digest could be of (RFC 9530 appendix B.2). */
function wholeDigestFor({ req, fields }: Exchange): string | undefined {
  return req.method === 'GET' ? fields.reprDigest : undefined
}

/** A chunk that cannot be had is, to a client, an item that is not here. */
function absentUnless(error: unknown, { dataset, path }: OpenItem): unknown {
  if (!isEdgeError(error, 'CHUNK_ABSENT')) return error
  return new EdgeError('ITEM_ABSENT', `not here yet: ${dataset} ${path}`, { cause: error })
}

/** Free: where the part is exactly one chunk, its name is the digest. */
function soleChunkDigest([slice, ...more]: readonly ChunkSlice[]): Sha256 | undefined {
  return slice && more.length === 0 && slice.from === 0 && slice.to === slice.sizeBytes
    ? slice.digest
    : undefined
}

function digestOf(views: readonly Buffer[]): Sha256 {
  const running = openSha256()
  for (const view of views) running.update(view)
  return running.digest()
}
