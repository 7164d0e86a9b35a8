/**
 * `/data/<dataset>/<path>` and `/sha256/<hex>`: which answer an item's request gets. The bytes are
 * `ItemSender`'s.
 *
 * Answers: 200, 206, 304, 412, 416, and problems: 400 path tricks, 404 unknown, 405 method, 410
 * denied, 503 with `Retry-After` when bytes are not here and cannot be had now.
 */
import type { IncomingMessage, ServerResponse } from 'node:http'
import { setTimeout as sleep } from 'node:timers/promises'
import { EdgeError, isEdgeError } from '../../manifests/errors.ts'
import type { Library, OpenItem } from '../library.ts'
import { evaluate, matchedTag, rangeStillValid } from './conditional.ts'
import type { EncodedAnswers } from './encoding/encoded-answers.ts'
import {
  type AnswerObserver,
  type Exchange,
  type ItemExchange,
  asItemAbsent,
  noteAnswer,
  refuseExchange,
} from './exchange.ts'
import { EXPOSED_FIELDS, ItemHeaders } from './item-headers.ts'
import type { ItemSender } from './item-sender.ts'
import { problem, sendProblem } from './problem.ts'
import { planRanges } from './ranges.ts'
import { type RenditionSource, pictureOf, renditionOf, sendRendition } from './rendition-handler.ts'
import type { ItemTarget } from './request-path.ts'
import { TargetCache } from './target-cache.ts'
import { wishesOf } from './wishes.ts'

export interface ItemHandlerParts {
  readonly library: Library
  readonly sender: ItemSender
  readonly observer: AnswerObserver
  /** Without it, items go out as they are. */
  readonly encoded?: EncodedAnswers | undefined
  /** Without it, queries for renditions give the original. */
  readonly renditions?: RenditionSource | undefined
  /** In a worker: failures are the owner's to tell, it may know better. */
  readonly handOver?: ((req: IncomingMessage, res: ServerResponse) => void) | undefined
  readonly now: () => number
  /** `Retry-After` where the library cannot say: the item itself is not known yet. */
  readonly retryAfterSeconds: number
}

/** A reader waits so long for a catalog to be healed. */
const MEND_MS = 2500

export class ItemHandler {
  readonly #parts: ItemHandlerParts
  readonly #targets = new TargetCache()
  readonly #rendering = new Set<ServerResponse>()
  /** Requests that were looked at a second time. */
  readonly #again = new WeakSet<ServerResponse>()
  readonly #fieldsByPath = new WeakMap<OpenItem, ItemHeaders>()
  readonly #fieldsByDigest = new WeakMap<OpenItem, ItemHeaders>()

  constructor(parts: ItemHandlerParts) {
    this.#parts = parts
  }

  /** Answers that wait for a rendition. */
  get rendering(): Iterable<ServerResponse> {
    return this.#rendering
  }

  /** @returns false when no item is meant (a listing, perhaps) and nothing was done. */
  handle(req: IncomingMessage, res: ServerResponse, url: string): boolean {
    const startedAt = performance.now()
    const { library, observer, now, retryAfterSeconds, handOver } = this.#parts
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
      if (handOver || (target?.kind === 'path' && isEdgeError(error, 'ITEM_UNKNOWN'))) return false
      if (this.#triedAgain(error, req, res, url)) return true
      refuseExchange(observer, { req, res, startedAt }, error, retryAfterSeconds)
      return true
    }
    if (handOver && target.query !== '') return false // renditions
    const fields = this.#fieldsOf(item, target)
    const wishes = wishesOf(req, target.query)
    const exchange: ItemExchange = { req, res, startedAt, item, fields, nowMs: now(), wishes }
    if (target.query === '' || !this.#answeredByRendition(exchange, target.query)) this.#answer(exchange)
    return true
  }

  /** A page of the catalog was damaged and is being healed: once that has ended the request is looked at again. */
  #triedAgain(error: unknown, req: IncomingMessage, res: ServerResponse, url: string): boolean {
    if (this.#again.has(res) || !isEdgeError(error, 'CHUNK_CORRUPT', 'CHUNK_ABSENT')) return false
    const mending = this.#parts.library.mending?.()
    if (!mending) return false
    this.#again.add(res)
    void this.#handleOnceMended(mending, error, { req, res, startedAt: performance.now() }, url)
    return true
  }

  async #handleOnceMended(
    mending: Promise<unknown>,
    error: unknown,
    exchange: { readonly req: IncomingMessage; readonly res: ServerResponse; readonly startedAt: number },
    url: string,
  ): Promise<void> {
    const { observer, retryAfterSeconds } = this.#parts
    const { req, res } = exchange
    await Promise.race([mending, sleep(MEND_MS, undefined, { ref: false })])
    if (res.destroyed || this.handle(req, res, url)) return
    refuseExchange(observer, exchange, error, retryAfterSeconds)
  }

  #answer(exchange: ItemExchange): void {
    const { headers, method } = exchange.req
    if (
      headers['if-none-match'] !== undefined ||
      headers['if-modified-since'] !== undefined ||
      headers['if-match'] !== undefined ||
      headers['if-unmodified-since'] !== undefined
    ) {
      if (this.#answeredByCondition(exchange)) return
    }
    if (headers.range !== undefined && method === 'GET') this.#answerRanges(exchange, headers.range)
    else if (headers['accept-encoding'] === undefined || !exchange.fields.isEncodable)
      this.#parts.sender.sendWhole(exchange)
    else if (!this.#parts.encoded?.answered(exchange, headers['accept-encoding']))
      this.#parts.sender.sendWhole(exchange)
  }

  /**
   * 304 and 412. They need no bytes, so they are given for items that are not here too: what the
   * client holds is still what the signed catalog names.
   */
  #answeredByCondition(exchange: ItemExchange): boolean {
    const { req, res, item, fields, nowMs } = exchange
    const { sender, observer } = this.#parts
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
      const held = headers['if-none-match']
      const tag = (held === undefined ? undefined : matchedTag(held, fields, 'weak')) ?? fields.etag
      res.writeHead(304, fields.notModified(sender.sourceOf(item), nowMs, tag))
      res.end()
      noteAnswer(observer, exchange, 304, 'none', 0)
    } else {
      const failed = problem(412, 'PRECONDITION_FAILED', 'the item is not the one you named', req.url)
      sendProblem(res, failed, ['ETag', fields.etag])
      noteAnswer(observer, exchange, 412, 'none', 0)
    }
    return true
  }

  #answerRanges(exchange: ItemExchange, field: string): void {
    const { req, item, fields, nowMs } = exchange
    const { sender, observer } = this.#parts
    const ifRange = req.headers['if-range']
    if (ifRange !== undefined && !rangeStillValid(String(ifRange), fields, nowMs))
      return sender.sendWhole(exchange)

    const plan = planRanges(field, item.sizeBytes)
    if (plan === 'whole') return sender.sendWhole(exchange)
    if (plan !== 'outside') return sender.sendParts(exchange, plan)
    const outside = new EdgeError('RANGE_OUTSIDE_ITEM', `the item has ${item.sizeBytes} bytes`)
    refuseExchange(observer, exchange, outside, 0, [
      'Content-Range',
      `bytes */${item.sizeBytes}`,
      'ETag',
      fields.etag,
    ])
  }

  #answeredByRendition(exchange: ItemExchange, query: string): boolean {
    const { req, res, item, fields, nowMs } = exchange
    const { renditions, library, sender, observer } = this.#parts
    if (!renditions) return false
    try {
      const rendition = renditionOf(req, item, query)
      if (!rendition) return false
      const gone = new AbortController()
      res.once('close', () => gone.abort())
      this.#rendering.add(res)
      renditions
        .get(pictureOf(item), rendition, { signal: gone.signal })
        .finally(() => this.#rendering.delete(res))
        .then(rendered => {
          if (!rendered) return this.#answer(exchange)
          const list = fields.whole(sender.sourceOf(item), nowMs)
          const { status, bodyBytes } = sendRendition(req, res, item, list, rendered, fields)
          noteAnswer(observer, exchange, status, 'rendition', bodyBytes)
        })
        .catch(error =>
          refuseExchange(observer, exchange, asItemAbsent(error, item), library.retryAfterSeconds(item)),
        )
    } catch (error) {
      refuseExchange(observer, exchange, error, 0)
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

  #otherMethod(exchange: Exchange): true {
    const { observer } = this.#parts
    if (exchange.req.method === 'OPTIONS') {
      exchange.res.writeHead(204, OPTIONS_FIELDS).end()
      noteAnswer(observer, exchange, 204, 'none', 0)
    } else {
      const error = new EdgeError('METHOD_NOT_ALLOWED', 'items are read with GET, HEAD and OPTIONS')
      refuseExchange(observer, exchange, error, 0)
    }
    return true
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
