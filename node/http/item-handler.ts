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
import { createHash, hash, randomBytes } from 'node:crypto'
import type { IncomingMessage, ServerResponse } from 'node:http'
import { EdgeError, isEdgeError } from '../../manifests/errors.ts'
import type { ByteRange } from '../../manifests/extent.ts'
import type { ChunkSlice, Library, OpenItem } from '../library.ts'
import type { BufferPool } from './buffer-pool.ts'
import { evaluate, rangeStillValid } from './conditional.ts'
import { CONTENT_DIGEST_BYTES_MAX, CONTENT_DIGEST_WANTED_BYTES_MAX, digestField, wishOf } from './digest-fields.ts'
import { EXPOSED_FIELDS, ItemHeaders, type Source, disposition } from './item-headers.ts'
import { MEMORY_ITEM_BYTES_MAX, type MemoryTier } from './memory-tier.ts'
import { fieldsWith, problem, problemOf, sendProblem } from './problem.ts'
import { contentRange, planRanges } from './ranges.ts'
import type { ItemTarget } from './request-path.ts'
import type { SendQueue } from './send-queue.ts'
import { TargetCache } from './target-cache.ts'

/** Answers up to this long are sent at once, in one write. */
const INLINE_BYTES_MAX = 128 * 1024
/** Below this a body joins its header fields in one string: one buffer less for the socket. */
const LATIN1_BYTES_MAX = 4 * 1024
const EMPTY_SHA256 = 'e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855'

export interface AnswerObserver {
  /** Once per answer, when it is over. `status` 499: the client left before the end. */
  answered(req: IncomingMessage, status: number, source: Source | 'none', bodyBytes: number, seconds: number): void
  /** A read that failed its check or its disk, whether or not it was healed. */
  fault(error: unknown): void
}

export interface ItemHandlerParts {
  readonly library: Library
  readonly memory: MemoryTier
  readonly pool: BufferPool
  readonly queue: SendQueue
  readonly observer: AnswerObserver
  readonly now: () => number
  /** More transfers than this at once are a health miss: 503. */
  readonly transfersMax: number
  /** `Retry-After` where the library cannot say: the item itself is not known yet. */
  readonly retryAfterSeconds: number
}

interface Exchange {
  readonly req: IncomingMessage
  readonly res: ServerResponse
  readonly item: OpenItem
  readonly fields: ItemHeaders
  readonly nowMs: number
  readonly startedAt: number
  /** `?download`: a name to save it under. */
  readonly attachment: boolean
}

export class ItemHandler {
  readonly #parts: ItemHandlerParts
  readonly #targets = new TargetCache()
  readonly #fieldsByPath = new WeakMap<OpenItem, ItemHeaders>()
  readonly #fieldsByDigest = new WeakMap<OpenItem, ItemHeaders>()

  constructor(parts: ItemHandlerParts) {
    this.#parts = parts
  }

  /** @returns false when no item is meant (a listing) and nothing was done. */
  handle(req: IncomingMessage, res: ServerResponse, url: string): boolean {
    const startedAt = performance.now()
    const { library, now } = this.#parts
    let item: OpenItem
    let target: ItemTarget | undefined
    try {
      target = this.#targets.get(url)
      if (!target) return false
      if (req.method !== 'GET' && req.method !== 'HEAD') return this.#otherMethod(req, res, startedAt)
      item = target.kind === 'path' ? library.open(target.dataset, target.path) : library.openDigest(target.sha256)
    } catch (error) {
      return this.#refuse(req, res, startedAt, error, this.#parts.retryAfterSeconds)
    }

    const { headers } = req
    const fields = this.#fieldsOf(item, target)
    const attachment = target.query !== '' && new URLSearchParams(target.query).has('download')
    const exchange: Exchange = { req, res, item, fields, nowMs: now(), startedAt, attachment }

    if (
      headers['if-none-match'] !== undefined ||
      headers['if-modified-since'] !== undefined ||
      headers['if-match'] !== undefined ||
      headers['if-unmodified-since'] !== undefined
    ) {
      if (this.#answeredByCondition(exchange)) return true
    }
    if (headers.range !== undefined && req.method === 'GET') this.#sendRanges(exchange, headers.range)
    else this.#sendWhole(exchange)
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
  #answeredByCondition({ req, res, item, fields, nowMs, startedAt }: Exchange): boolean {
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
      this.#parts.observer.answered(req, 304, 'none', 0, secondsSince(startedAt))
    } else {
      sendProblem(res, problem(412, 'PRECONDITION_FAILED', 'the item is not the one you named', req.url), ['ETag', fields.etag])
      this.#parts.observer.answered(req, 412, 'none', 0, secondsSince(startedAt))
    }
    return true
  }

  #sendWhole(exchange: Exchange): void {
    const { req, res, item, fields, nowMs, startedAt } = exchange
    const { sizeBytes, sha256 } = item
    if (sizeBytes <= MEMORY_ITEM_BYTES_MAX) {
      const bytes = sizeBytes === 0 && sha256 === EMPTY_SHA256 ? EMPTY : this.#parts.memory.get(sha256)
      if (bytes) {
        if (hash('sha256', bytes, 'hex') === sha256) {
          const list = fields.whole('memory', nowMs)
          res.writeHead(200, exchange.attachment || req.headers['want-content-digest'] || req.headers['want-repr-digest'] ? adjusted(exchange, list, 200) : list)
          if (req.method === 'HEAD') res.end()
          else if (sizeBytes <= LATIN1_BYTES_MAX) res.end(bytes.toString('latin1'), 'latin1')
          else res.end(bytes)
          this.#parts.observer.answered(req, 200, 'memory', sizeBytes, secondsSince(startedAt))
          return
        }
        this.#parts.memory.evict(sha256)
        this.#parts.observer.fault(new EdgeError('CHUNK_CORRUPT', `item ${sha256} in the memory tier`))
      }
    }
    this.#send(exchange, 200, [{ first: 0, last: sizeBytes - 1 }])
  }

  #sendRanges(exchange: Exchange, field: string): void {
    const { req, res, item, fields, nowMs, startedAt } = exchange
    const ifRange = req.headers['if-range']
    if (ifRange !== undefined && !rangeStillValid(String(ifRange), fields, nowMs)) return this.#sendWhole(exchange)

    const plan = planRanges(field, item.sizeBytes)
    if (plan === 'whole') return this.#sendWhole(exchange)
    if (plan === 'outside') {
      const outside = new EdgeError('RANGE_OUTSIDE_ITEM', `the item has ${item.sizeBytes} bytes`)
      sendProblem(res, problemOf(outside, req.url), ['Content-Range', `bytes */${item.sizeBytes}`, 'ETag', fields.etag])
      this.#parts.observer.answered(req, 416, 'none', 0, secondsSince(startedAt))
      return
    }
    this.#send(exchange, 206, plan)
  }

  #send(exchange: Exchange, status: 200 | 206, ranges: readonly ByteRange[]): void {
    const { req, res, item } = exchange
    const residency = residencyOf(item, ranges)
    if (residency.state !== 'present') return this.#sendWhenReached(exchange, status, ranges, residency.state)

    const source = residency.tier ?? 'hot'
    if (req.method === 'HEAD') {
      res.writeHead(status, adjusted(exchange, exchange.fields.whole(source, exchange.nowMs), 200))
      res.end()
      this.#parts.observer.answered(req, status, source, 0, secondsSince(exchange.startedAt))
      return
    }
    if (source === 'hot' && ranges.length === 1 && this.#sentInline(exchange, status, ranges[0] as ByteRange, source)) return
    this.#enqueue(exchange, status, ranges, source)
  }

  /** All at once, for short answers from a fast tier. @returns false when nothing was done. */
  #sentInline(exchange: Exchange, status: 200 | 206, range: ByteRange, source: Source): boolean {
    const { req, res, item, fields, nowMs, startedAt } = exchange
    const { pool, memory, observer } = this.#parts
    const lengthBytes = range.last - range.first + 1
    const digestMax = wishOf(single(req.headers['want-content-digest'])) === 'wanted' ? CONTENT_DIGEST_WANTED_BYTES_MAX : CONTENT_DIGEST_BYTES_MAX
    if (lengthBytes > INLINE_BYTES_MAX && (status === 200 || lengthBytes > digestMax)) return false

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
      for (const buffer of buffers) pool.give(buffer) // never handed to a socket
      observer.fault(error)
      return false
    }

    const views = slices.map((slice, i) => (buffers[i] as Buffer).subarray(slice.from, slice.to))
    if (status === 206) {
      const digest = lengthBytes <= digestMax ? digestField(digestOfPart(slices, views)) : undefined
      res.writeHead(206, adjusted(exchange, fields.part(source, nowMs, range, digest), 206))
    } else {
      memory.offer(item.sha256, views, item.sizeBytes)
      res.writeHead(200, adjusted(exchange, fields.whole(source, nowMs), 200))
    }
    if (views.length > 1) res.cork()
    for (const [i, view] of views.entries()) {
      res.write(view, error => {
        if (!error) pool.give(buffers[i] as Buffer)
      })
    }
    res.end()
    observer.answered(req, status, source, lengthBytes, secondsSince(startedAt))
    return true
  }

  #enqueue(exchange: Exchange, status: 200 | 206, ranges: readonly ByteRange[], source: Source): void {
    const { req, res, item, fields, nowMs, startedAt } = exchange
    const { queue, observer, transfersMax } = this.#parts
    if (queue.active >= transfersMax) {
      this.#refuse(req, res, startedAt, new EdgeError('OVERLOADED', 'too many transfers at once; ask again in a moment'), 1)
      return
    }
    const body = ranges.length === 1 ? undefined : multipartOf(item, ranges)
    queue.start({
      res,
      item,
      steps: body?.steps ?? item.slices(ranges[0] as ByteRange)[Symbol.iterator](),
      offThread: source !== 'hot',
      head: () => {
        const list = body
          ? fields.multipart(source, nowMs, body.boundary, body.lengthBytes)
          : status === 206
            ? fields.part(source, nowMs, ranges[0] as ByteRange, undefined)
            : fields.whole(source, nowMs)
        res.writeHead(status, adjusted(exchange, list, status))
      },
      refuse: error => void this.#refuse(req, res, startedAt, error, this.#parts.library.retryAfterSeconds(item)),
      done: (outcome, sentBytes) => {
        if (outcome === 'refused') return
        observer.answered(req, outcome === 'sent' ? status : 499, source, sentBytes, secondsSince(startedAt))
      },
    })
  }

  /**
   * Some bytes are not here. The first of those is fetched before anything is promised: when it comes,
   * a link is up, and the rest is fetched on the way; when not, the answer is 503. HEAD fetches nothing.
   */
  #sendWhenReached(exchange: Exchange, status: 200 | 206, ranges: readonly ByteRange[], state: 'partial' | 'absent'): void {
    const { req, res, item, startedAt } = exchange
    const refuse = (error: unknown): void => {
      const retryAfter = this.#parts.library.retryAfterSeconds(item)
      const absent = isEdgeError(error, 'CHUNK_ABSENT') ? new EdgeError('ITEM_ABSENT', `not here yet: ${item.dataset} ${item.path}`) : error
      this.#refuse(req, res, startedAt, absent, retryAfter, ['Cache-Status', `towerlight; fwd=${state === 'absent' ? 'miss' : 'partial'}`])
    }
    if (req.method === 'HEAD') return refuse(new EdgeError('CHUNK_ABSENT', ''))

    const gone = new AbortController()
    const leave = (): void => gone.abort()
    res.once('close', leave)
    fetchFirstMissing(item, ranges, gone.signal).then(
      () => {
        res.off('close', leave)
        if (!res.destroyed) this.#enqueue(exchange, status, ranges, state === 'absent' ? 'miss' : 'partial')
      },
      error => {
        res.off('close', leave)
        refuse(error)
      },
    )
  }

  #sourceOf(item: OpenItem): Source {
    if (this.#parts.memory.get(item.sha256)) return 'memory'
    const { state, tier } = item.residency({ first: 0, last: Math.max(0, item.sizeBytes - 1) })
    return state === 'absent' ? 'miss' : state === 'partial' ? 'partial' : (tier ?? 'hot')
  }

  #otherMethod(req: IncomingMessage, res: ServerResponse, startedAt: number): true {
    if (req.method !== 'OPTIONS') {
      return this.#refuse(req, res, startedAt, new EdgeError('METHOD_NOT_ALLOWED', 'items are read with GET, HEAD and OPTIONS'), 0)
    }
    res.writeHead(204, OPTIONS_FIELDS).end()
    this.#parts.observer.answered(req, 204, 'none', 0, secondsSince(startedAt))
    return true
  }

  #refuse(req: IncomingMessage, res: ServerResponse, startedAt: number, error: unknown, retryAfterSeconds: number, more: string[] = []): true {
    if (!isEdgeError(error)) this.#parts.observer.fault(error)
    const answer = problemOf(error, req.url)
    sendProblem(res, answer, [...fieldsWith(error, retryAfterSeconds), ...more])
    this.#parts.observer.answered(req, answer.status, 'none', 0, secondsSince(startedAt))
    return true
  }
}

const EMPTY = Buffer.alloc(0)

const OPTIONS_FIELDS = [
  'Allow', 'GET, HEAD, OPTIONS',
  'Access-Control-Allow-Origin', '*',
  'Access-Control-Allow-Methods', 'GET, HEAD, OPTIONS',
  'Access-Control-Allow-Headers', 'Range, If-Match, If-None-Match, If-Modified-Since, If-Unmodified-Since, If-Range, Want-Content-Digest, Want-Repr-Digest',
  'Access-Control-Expose-Headers', EXPOSED_FIELDS,
  'Access-Control-Max-Age', '86400',
] // prettier-ignore

/** The fields as this one request wants them: its digest wishes, its file name. Copies only when needed. */
function adjusted({ req, item, fields, attachment }: Exchange, list: string[], status: 200 | 206): string[] {
  const wantContent = req.headers['want-content-digest']
  const wantRepr = req.headers['want-repr-digest']
  if (!attachment && wantContent === undefined && wantRepr === undefined) return list

  let more = list.slice()
  if (wishOf(single(wantRepr)) === 'refused') more = without(more, 'Repr-Digest')
  const wish = wishOf(single(wantContent))
  if (wish === 'refused') more = without(more, 'Content-Digest')
  if (wish === 'wanted' && status === 200 && req.method === 'GET') more.push('Content-Digest', fields.reprDigest)
  if (attachment) more = [...without(more, 'Content-Disposition'), 'Content-Disposition', disposition(item.path)]
  return more
}

function without(list: readonly string[], name: string): string[] {
  return list.filter((_, i) => list[i - (i % 2)] !== name)
}

function residencyOf(item: OpenItem, ranges: readonly ByteRange[]): ReturnType<OpenItem['residency']> {
  if (ranges.length === 1) return item.residency(ranges[0] as ByteRange)
  const all = ranges.map(range => item.residency(range))
  const states = new Set(all.map(({ state }) => state))
  const [only] = states
  const state = states.size === 1 && only ? only : 'partial'
  return { state, tier: all.some(({ tier }) => tier === 'warm') ? 'warm' : (all[0]?.tier ?? null) }
}

async function fetchFirstMissing(item: OpenItem, ranges: readonly ByteRange[], signal: AbortSignal): Promise<void> {
  const range = ranges.find(each => item.residency(each).state !== 'present')
  if (!range) return
  let { first: from, last: to } = range
  while (from < to) {
    const middle = from + Math.floor((to - from) / 2)
    if (item.residency({ first: range.first, last: middle }).state === 'present') from = middle + 1
    else to = middle
  }
  for (const slice of item.slices({ first: from, last: from })) await item.recover(slice, { signal })
}

/** Free when the part is exactly one chunk: its name is the digest. */
function digestOfPart(slices: readonly ChunkSlice[], views: readonly Buffer[]): ChunkSlice['digest'] {
  const [only] = slices
  if (slices.length === 1 && only && only.from === 0 && only.to === only.sizeBytes) return only.digest
  if (views.length === 1) return hash('sha256', views[0] as Buffer, 'hex') as ChunkSlice['digest']
  const running = createHash('sha256')
  for (const view of views) running.update(view)
  return running.digest('hex') as ChunkSlice['digest']
}

/** `multipart/byteranges` (RFC 9110 §14.6): the parts' heads between the slices, the length known before. */
function multipartOf(item: OpenItem, ranges: readonly ByteRange[]) {
  const boundary = `towerlight-${randomBytes(16).toString('hex')}`
  const heads = ranges.map((range, i) =>
    Buffer.from(
      `${i === 0 ? '' : '\r\n'}--${boundary}\r\nContent-Type: ${item.mediaType}\r\nContent-Range: ${contentRange(range, item.sizeBytes)}\r\n\r\n`,
    ),
  )
  const tail = Buffer.from(`\r\n--${boundary}--\r\n`)
  const lengthBytes = ranges.reduce((sum, { first, last }, i) => sum + (heads[i] as Buffer).length + last - first + 1, tail.length)
  function* steps(): Generator<ChunkSlice | Buffer> {
    for (const [i, range] of ranges.entries()) {
      yield heads[i] as Buffer
      yield* item.slices(range)
    }
    yield tail
  }
  return { boundary, lengthBytes, steps: steps() }
}

function single(field: string | string[] | undefined): string | undefined {
  return Array.isArray(field) ? field.join(', ') : field
}

function secondsSince(startedAt: number): number {
  return (performance.now() - startedAt) / 1000
}
