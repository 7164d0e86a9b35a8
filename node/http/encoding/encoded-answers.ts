/**
 * Answers with an encoding of an item, for clients that take one: `zstd`, `br`, `gzip`, and `dcz` for a
 * browser that holds an earlier version (RFC 9842).
 *
 * HEAD says what GET would, so it has the encoding made as well. Conditions were evaluated before, and a
 * `Range` never comes here: ranges are of the item as it is. What cannot be encoded now, for whatever
 * reason, goes out as it is.
 */
import { hash } from 'node:crypto'
import type { IncomingMessage, ServerResponse } from 'node:http'
import type { Sha256 } from '../../../manifests/digest.ts'
import { EdgeError } from '../../../manifests/errors.ts'
import type { Abortable } from '../../../manifests/extent.ts'
import type { Tier } from '../../library.ts'
import { digestField } from '../digest-fields.ts'
import { type AnswerObserver, type ItemExchange, noteAnswer } from '../exchange.ts'
import type { ItemSender } from '../item-sender.ts'
import { readWhole } from '../whole-item.ts'
import { withWishes } from '../wishes.ts'
import { type Variant, tagOf, variantsFor } from './codings.ts'
import { type Encoded, type Encodings, PIECE_BYTES, pieceAt } from './encodings.ts'

export interface EncodedAnswerParts {
  readonly encodings: Encodings
  readonly sender: ItemSender
  readonly observer: AnswerObserver
  /** How many bytes less than the item as it is. */
  readonly onSent: (coding: string, savedBytes: number) => void
  /** In a worker: what is not kept yet is the owner's to make. */
  readonly handOver?: ((req: IncomingMessage, res: ServerResponse) => void) | undefined
}

export class EncodedAnswers {
  readonly #parts: EncodedAnswerParts
  readonly #waiting = new Set<ServerResponse>()

  constructor(parts: EncodedAnswerParts) {
    this.#parts = parts
  }

  /** Answers that wait for an encoding. */
  get waiting(): Iterable<ServerResponse> {
    return this.#waiting
  }

  /** @returns false when the item is to be sent as it is, and nothing was done. */
  answered(exchange: ItemExchange, acceptEncoding: string | string[]): boolean {
    const { req, item } = exchange
    const held = req.headers['available-dictionary']
    const { path } = exchange.fields
    const dictionary = held === undefined || path === undefined ? undefined : String(held)
    const variants = variantsFor(String(acceptEncoding), dictionary)
    const [first] = variants
    if (!first) return false
    const kept = this.#parts.encodings.inMemory(item.sha256, first)
    if (kept === undefined) {
      const { state, tier } = item.residency({ first: 0, last: item.sizeBytes - 1 })
      if (state !== 'present') return false
      void this.#answerOnceMade(exchange, variants, tier ?? 'hot')
      return true
    }
    if (kept === 'as-it-is') return false
    if (exchange.fields.isNewSecond(exchange.nowMs)) this.#parts.observer.asked?.(item)
    this.#send(exchange, first, kept, 'memory')
    return true
  }

  async #answerOnceMade(exchange: ItemExchange, variants: readonly Variant[], tier: Tier): Promise<void> {
    const { res, item, fields } = exchange
    const { encodings, observer, sender, handOver } = this.#parts
    const encodable = {
      sha256: item.sha256,
      path: fields.path,
      read: (options: Abortable) => readWhole(item, options),
    }
    this.#waiting.add(res)
    try {
      for (const variant of variants) {
        const made = encodings.inMemory(item.sha256, variant) ?? (await encodings.get(encodable, variant))
        if (res.destroyed) return noteAnswer(observer, exchange, 499, tier, 0)
        if (made === 'not-here') return handOver?.(exchange.req, res)
        if (made === 'as-it-is' && variant.coding !== 'dcz') break
        if (made !== 'as-it-is') return this.#send(exchange, variant, made, tier)
      }
    } catch (error) {
      observer.fault(error) // sending it as it is heals what can be healed, or says why not
    } finally {
      this.#waiting.delete(res)
    }
    if (!res.destroyed) sender.sendWhole(exchange)
  }

  #send(exchange: ItemExchange, variant: Variant, encoded: Encoded, source: Tier): void {
    const { req, res, item, fields, nowMs, wishes } = exchange
    const { sender, observer, onSent } = this.#parts
    const { bytes, sha256, pieces } = encoded
    const isGet = req.method === 'GET'
    const head = (): void => {
      const tag = tagOf(item.sha256, variant)
      const list = fields.encoded(source, nowMs, {
        coding: variant.coding,
        tag,
        sha256,
        lengthBytes: bytes.length,
      })
      res.writeHead(200, withWishes(list, wishes, item.path, isGet ? digestField(sha256) : undefined))
    }
    onSent(variant.coding, item.sizeBytes - bytes.length)
    if (!isGet) {
      head()
      res.end()
      return noteAnswer(observer, exchange, 200, source, 0)
    }
    if (pieces.length > 0) {
      const refuse = (): void => this.#sendAsItIs(exchange, variant)
      return sender.sendSteps(exchange, 200, [], source, {
        steps: verified(encoded),
        lengthBytes: bytes.length,
        offThread: false,
        head,
        refuse,
      })
    }
    if (hash('sha256', bytes, 'hex') !== sha256) {
      observer.fault(damaged(sha256))
      return this.#sendAsItIs(exchange, variant)
    }
    observer.read?.(item, source, [])
    head()
    res.end(bytes)
    noteAnswer(observer, exchange, 200, source, bytes.length)
  }

  /** The encoding was damaged in memory; nothing of it was sent, and the item itself is still there. */
  #sendAsItIs(exchange: ItemExchange, variant: Variant): void {
    const { encodings, sender } = this.#parts
    encodings.forget(exchange.item.sha256, variant)
    sender.sendWhole(exchange)
  }
}

/** Each piece is hashed when its turn has come. */
function* verified({ bytes, sha256, pieces }: Encoded): Generator<Buffer> {
  for (const [i, digest] of pieces.entries()) {
    const piece = pieceAt(bytes, i)
    if (hash('sha256', piece, 'hex') !== digest) throw damaged(sha256, i * PIECE_BYTES)
    yield piece
  }
}

function damaged(sha256: Sha256, at = 0): EdgeError {
  return new EdgeError('CHUNK_CORRUPT', `encoding ${sha256} at ${at}, in memory`)
}
