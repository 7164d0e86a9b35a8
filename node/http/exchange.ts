/**
 * One request for an item under way, and how every answer ends: noted once, failures as problems.
 */
import type { IncomingMessage, ServerResponse } from 'node:http'
import { EdgeError, isEdgeError } from '../../manifests/errors.ts'
import type { ByteRange } from '../../manifests/extent.ts'
import type { OpenItem } from '../library.ts'
import type { AnswerSource, ItemHeaders } from './item-headers.ts'
import { fieldsWith } from './problem.ts'
import type { ReadOutcome } from './reads.ts'
import { refuse } from './refusal.ts'
import type { Wishes } from './wishes.ts'

export interface Exchange {
  readonly req: IncomingMessage
  readonly res: ServerResponse
  /** `performance.now()` */
  readonly startedAt: number
}

export interface ItemExchange extends Exchange {
  readonly item: OpenItem
  readonly fields: ItemHeaders
  readonly nowMs: number
  readonly wishes: Wishes | undefined
}

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
  /** Somebody asked for all of an item again that is in memory: told once a second at most. */
  asked?(item: OpenItem): void
  /** What became of a GET for bytes of an item; once. Other than from memory it counts as asked for. */
  read?(item: OpenItem, outcome: ReadOutcome, ranges: readonly ByteRange[]): void
}

export function noteAnswer(
  observer: AnswerObserver,
  { req, startedAt }: Exchange,
  status: number,
  source: AnswerSource,
  bodyBytes: number,
): void {
  observer.answered(req, status, source, bodyBytes, (performance.now() - startedAt) / 1000)
}

/** @param more further fields, flat. */
export function refuseExchange(
  observer: AnswerObserver,
  exchange: Exchange,
  error: unknown,
  retryAfterSeconds: number,
  more: readonly string[] = [],
): void {
  if (!isEdgeError(error)) observer.fault(error)
  const { req, res } = exchange
  const status = refuse(req, res, error, [...fieldsWith(error, retryAfterSeconds), ...more])
  noteAnswer(observer, exchange, status, 'none', 0)
}

/** Of an item's bytes that were not here: fetched while the client waited; or why they were not. */
export function missOf(error: unknown): ReadOutcome {
  return isEdgeError(error, 'CHUNK_ABSENT', 'ITEM_ABSENT') ? 'absent' : 'unhealthy'
}

/** A chunk that cannot be had is, to a client, an item that is not here. */
export function asItemAbsent(error: unknown, { dataset, path }: OpenItem): unknown {
  if (!isEdgeError(error, 'CHUNK_ABSENT')) return error
  return new EdgeError('ITEM_ABSENT', `not here yet: ${dataset} ${path}`, { cause: error })
}
