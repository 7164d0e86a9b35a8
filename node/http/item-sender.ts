/**
 * Sends an item's bytes, whole or in ranges, verified.
 *
 * Small answers are read, hashed and written at once, from memory where they are hot; everything
 * else goes through the one fair `SendQueue`. Nothing is written before the first chunk (for small
 * answers: all of them) has been verified, so a fault there is still a clean 503. What is not here is
 * fetched before anything is promised, or refused with `Retry-After`.
 */
import { hash } from 'node:crypto'
import type { IncomingMessage, ServerResponse } from 'node:http'
import { type Sha256, openSha256 } from '../../manifests/digest.ts'
import { EdgeError } from '../../manifests/errors.ts'
import type { ByteRange } from '../../manifests/extent.ts'
import type { ChunkSlice, Library, OpenItem } from '../library.ts'
import type { BufferPool } from './buffer-pool.ts'
import { CONTENT_DIGEST_BYTES_MAX, CONTENT_DIGEST_WANTED_BYTES_MAX, digestField } from './digest-fields.ts'
import {
  type AnswerObserver,
  type ItemExchange,
  asItemAbsent,
  missOf,
  noteAnswer,
  refuseExchange,
} from './exchange.ts'
import type { Source } from './item-headers.ts'
import { MEMORY_ITEM_BYTES_MAX, type MemoryTier } from './memory-tier.ts'
import { comingSteps, fetchFirstMissing, residencyOf } from './missing.ts'
import { multipartOf } from './multipart.ts'
import type { SendJob, SendQueue } from './send-queue.ts'
import { withWishes } from './wishes.ts'

/** Answers up to this long are sent at once, in one write. */
const INLINE_BYTES_MAX = 128 * 1024
/** Below this a body joins its header fields in one string: one buffer less for the socket. */
const LATIN1_BYTES_MAX = 4 * 1024
const EMPTY = Buffer.alloc(0)
const EMPTY_SHA256 = 'e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855'

export interface ItemSenderParts {
  readonly library: Pick<Library, 'retryAfterSeconds'>
  readonly memory: MemoryTier
  readonly pool: BufferPool
  readonly queue: SendQueue
  readonly observer: AnswerObserver
  /** More transfers than this at once are a health miss: 503. */
  readonly transfersMax: number
  /** In a worker: what cannot be had here is the owner's business. */
  readonly handOver?: ((req: IncomingMessage, res: ServerResponse) => void) | undefined
}

export class ItemSender {
  readonly #parts: ItemSenderParts
  readonly #waiting = new Set<ServerResponse>()

  constructor(parts: ItemSenderParts) {
    this.#parts = parts
  }

  /** Answers that wait for their first byte to come from elsewhere. */
  get waiting(): Iterable<ServerResponse> {
    return this.#waiting
  }

  /** Where a whole answer would come from now. */
  sourceOf(item: OpenItem): Source {
    if (this.#fromMemory(item)) return 'memory'
    const { state, tier } = item.residency({ first: 0, last: Math.max(0, item.sizeBytes - 1) })
    return state === 'absent' ? 'miss' : state === 'partial' ? 'partial' : (tier ?? 'hot')
  }

  /** GET or HEAD of all of it. */
  sendWhole(exchange: ItemExchange): void {
    const { req, res, item, fields, nowMs, wishes } = exchange
    const { memory, observer } = this.#parts
    const { sizeBytes, sha256, path } = item
    const bytes = sizeBytes <= MEMORY_ITEM_BYTES_MAX ? this.#fromMemory(item) : undefined
    if (!bytes) return this.#send(exchange, 200, [{ first: 0, last: sizeBytes - 1 }])

    if (hash('sha256', bytes, 'hex') !== sha256) {
      memory.evict(sha256)
      observer.fault(new EdgeError('CHUNK_CORRUPT', `item ${sha256} in the memory tier`))
      return this.sendWhole(exchange)
    }
    // Once a second is enough for the tiers below to know that it is wanted.
    if (fields.isNewSecond(nowMs)) observer.asked?.(item)
    if (req.method === 'GET') observer.read?.(item, 'memory', [])
    const list = fields.whole('memory', nowMs)
    res.writeHead(200, wishes ? withWishes(list, wishes, path, wholeDigestFor(exchange)) : list)
    if (req.method === 'HEAD') res.end()
    else if (sizeBytes <= LATIN1_BYTES_MAX) res.end(bytes.toString('latin1'), 'latin1')
    else res.end(bytes)
    noteAnswer(observer, exchange, 200, 'memory', sizeBytes)
  }

  /** @param ranges from `planRanges`: at least one, within the item. */
  sendParts(exchange: ItemExchange, ranges: readonly ByteRange[]): void {
    this.#send(exchange, 206, ranges)
  }

  #send(exchange: ItemExchange, status: 200 | 206, ranges: readonly ByteRange[]): void {
    const { req, res, item, fields, nowMs, wishes } = exchange
    const { observer } = this.#parts
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
      return noteAnswer(observer, exchange, 200, source, 0)
    }
    const [only, ...more] = ranges
    const inline = source !== 'warm' && only !== undefined && more.length === 0
    if (inline && this.#sentInline(exchange, status, only, source)) observer.read?.(item, source, ranges)
    else this.#enqueue(exchange, status, ranges, source)
  }

  /** All at once, for short answers from a fast tier. @returns false when nothing was done. */
  #sentInline(exchange: ItemExchange, status: 200 | 206, range: ByteRange, source: Source): boolean {
    const { res, item, fields, nowMs, wishes } = exchange
    const { pool, memory, observer } = this.#parts
    const lengthBytes = range.last - range.first + 1
    const wanted = wishes?.contentDigest === 'wanted'
    const hashed =
      status === 206 && lengthBytes <= (wanted ? CONTENT_DIGEST_WANTED_BYTES_MAX : CONTENT_DIGEST_BYTES_MAX)
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
      const list = fields.part(source, nowMs, range, digest && digestField(digest))
      res.writeHead(206, withWishes(list, wishes, item.path))
    } else {
      memory.offer(item.sha256, views, item.sizeBytes)
      const list = fields.whole(source, nowMs)
      res.writeHead(200, withWishes(list, wishes, item.path, wholeDigestFor(exchange)))
    }
    const last = views.length - 1
    const givesBack = (i: number) => (error?: Error | null) => {
      if (!error) pool.give(buffers[i]!)
    }
    for (let i = 0; i < last; i++) res.write(views[i]!, givesBack(i))
    if (last < 0) res.end()
    else res.end(views[last]!, givesBack(last))
    noteAnswer(observer, exchange, status, source, lengthBytes)
    return true
  }

  #enqueue(
    exchange: ItemExchange,
    status: 200 | 206,
    ranges: readonly ByteRange[],
    source: Source,
    coming?: SendJob['steps'],
  ): void {
    const { res, item, fields, nowMs, wishes } = exchange
    const { library, observer, handOver } = this.#parts
    const parts = ranges.length > 1 ? multipartOf(item, ranges) : undefined
    const only = ranges[0]!
    this.sendSteps(exchange, status, ranges, source, {
      steps: parts?.steps ?? coming ?? item.slices(only)[Symbol.iterator](),
      lengthBytes: parts?.lengthBytes ?? only.last - only.first + 1,
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
      refuse: error => {
        if (handOver) return handOver(exchange.req, res)
        observer.read?.(item, missOf(error), ranges)
        refuseExchange(observer, exchange, asItemAbsent(error, item), library.retryAfterSeconds(item))
      },
    })
  }

  /** Through the queue: an answer of any length. */
  sendSteps(
    exchange: ItemExchange,
    status: 200 | 206,
    ranges: readonly ByteRange[],
    source: Source,
    job: Pick<SendJob, 'steps' | 'lengthBytes' | 'offThread' | 'head' | 'refuse'>,
  ): void {
    const { res, item } = exchange
    const { queue, transfersMax, observer } = this.#parts
    if (queue.active >= transfersMax) {
      observer.read?.(item, 'unhealthy', ranges)
      return refuseExchange(observer, exchange, new EdgeError('OVERLOADED', 'too many transfers at once'), 1)
    }
    queue.start({
      res,
      item,
      ...job,
      done: (outcome, sentBytes) => {
        if (outcome === 'refused') return
        observer.read?.(item, source === 'miss' || source === 'partial' ? 'fetched' : source, ranges)
        noteAnswer(observer, exchange, outcome === 'sent' ? status : 499, source, sentBytes)
      },
    })
  }

  /**
   * Some bytes are not here. The first of those is fetched before anything is promised: when it comes,
   * a link is up, and the rest is fetched on the way; when not, the answer is 503. HEAD fetches nothing.
   */
  #sendOnceReached(
    exchange: ItemExchange,
    status: 200 | 206,
    ranges: readonly ByteRange[],
    source: Source,
  ): void {
    const { req, res, item } = exchange
    const { observer, library, handOver } = this.#parts
    if (handOver) return handOver(req, res)
    const giveUp = (error: unknown): void => {
      if (req.method === 'GET') observer.read?.(item, missOf(error), ranges)
      const more = ['Cache-Status', `towerlight; fwd=${source}`]
      refuseExchange(observer, exchange, asItemAbsent(error, item), library.retryAfterSeconds(item), more)
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
        const [only, ...more] = ranges
        const coming = only && more.length === 0 ? comingSteps(item, only) : undefined
        if (!res.destroyed) this.#enqueue(exchange, status, ranges, source, coming)
      })
      .catch(giveUp)
  }

  #fromMemory({ sizeBytes, sha256 }: OpenItem): Buffer | undefined {
    return sizeBytes === 0 && sha256 === EMPTY_SHA256 ? EMPTY : this.#parts.memory.get(sha256)
  }
}

/** With GET only: HEAD has no content that a digest could be of (RFC 9530 appendix B.2). */
function wholeDigestFor({ req, fields }: ItemExchange): string | undefined {
  return req.method === 'GET' ? fields.reprDigest : undefined
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
