/**
 * An upstream: any place with the static files of a repository, read by path and range.
 *
 * What it promises, whoever is at the other end: a read yields exactly the bytes asked for (their
 * number and place, not their truth: digests are checked by the caller), or it throws. Every byte
 * that crossed the wire, requests, headers and handshakes included, is reported once.
 */
import type { Abortable } from '../manifests/extent.ts'
import { EdgeError } from '../manifests/errors.ts'

/** `length` bytes from `offset` on. */
export interface Span {
  readonly offset: number
  readonly length: number
}

/** What a byte was spent on: becomes a row of the ledger. */
export interface Purpose {
  /** Empty for metadata that belongs to all. */
  readonly dataset: string
  /** `metadata`, `manifest`, `directory`, `catalog`, `delta`, `frame`, `heal`, … */
  readonly reason: string
}

export interface WireRecord extends Purpose {
  readonly bytesDown: number
  readonly bytesUp: number
  readonly requests: number
}

export interface WireCount {
  readonly bytesDown: number
  readonly bytesUp: number
  readonly requests: number
  readonly connections: number
}

/**
 * What a request costs beside its body, as measured; digits that vary are counted exactly.
 * A range request for `path` costs `downBytes` and `upBytes` plus what `wireOf` adds.
 */
export interface RequestCost {
  readonly downBytes: number
  readonly upBytes: number
  /** To open one connection (TLS, proxy); plain TCP carries no payload. */
  readonly connectDownBytes: number
  readonly connectUpBytes: number
  /** As many are opened when there is so much to ask for at once. */
  readonly connectionsMax?: number
}

export interface ReadOptions extends Abortable {
  readonly purpose: Purpose
  /** Somebody waits for it: goes before what else waits for a connection. */
  readonly urgent?: boolean
}

export interface SpanOptions extends ReadOptions {
  /** A server without ranges sends what comes before the span, too: more than this is refused. */
  readonly skipBytesMax?: number
}

export interface WholeOptions extends ReadOptions {
  /** More than this is refused before it is read. */
  readonly maxBytes: number
}

export interface Upstream extends AsyncDisposable {
  /** For people and the ledger: scheme, host and path, never credentials. */
  readonly name: string
  /**
   * Exactly the bytes of `span`.
   * @param path relative to the upstream's root, segments not percent-encoded.
   * @throws EdgeError `NOT_FOUND`, `UPSTREAM_UNREACHABLE`, `UPSTREAM_REFUSED`, `UPSTREAM_STALLED`,
   * `UPSTREAM_LIED`; the signal's reason when aborted. What was yielded before is good to keep.
   */
  readSpan(path: string, span: Span, options: SpanOptions): AsyncIterable<Uint8Array>
  /** The whole file. @throws as above; `UPSTREAM_LIED` when it is longer than `maxBytes`. */
  readWhole(path: string, options: WholeOptions): AsyncIterable<Uint8Array>
  readonly wire: WireCount
  readonly cost: RequestCost
  /** Longer spans are better asked for in pieces of this size, several at once. */
  readonly pieceBytes: number
  /** Requests are better made several times. */
  readonly isLossy: boolean
  /** False once it has answered a range request with the whole file. */
  readonly ranges: boolean
  /** The same place, of which this is another way in: they share their good name. */
  readonly base?: Upstream
  /** For reading from it in another process; absent where that makes no sense. */
  readonly elsewhere?: Elsewhere | undefined
}

/** What another process needs to read on behalf of this one, and what it must tell. */
export interface Elsewhere {
  readonly settings: RemoteSettings
  readonly pace?: { spend(bytes: number, signal: AbortSignal): Promise<void> } | undefined
  /** Counts and accounts for what crossed the wire there. */
  moved(record: WireRecord, connections: number): void
}

export interface RemoteSettings {
  readonly url: string
  readonly connectionsMax?: number | undefined
  readonly stall?: { readonly bytesMin: number; readonly ms: number } | undefined
  readonly localAddress?: string | undefined
  readonly proxyUrl?: string | undefined
  readonly ca?: string | undefined
}

export const FREE: RequestCost = { downBytes: 0, upBytes: 0, connectDownBytes: 0, connectUpBytes: 0 }

/** Bytes on the wire of one range request for `span` of a file of `fileBytes`. */
export function wireOf(
  cost: RequestCost,
  path: string,
  span: Span,
  fileBytes: number,
): { down: number; up: number } {
  if (cost.downBytes === 0) return { down: span.length, up: 0 }
  const first = digits(span.offset)
  const last = digits(span.offset + span.length - 1)
  return {
    down: cost.downBytes + digits(span.length) + first + last + digits(fileBytes) + span.length,
    up: cost.upBytes + encodedPath(path).length + first + last,
  }
}

/** What only a part's answer has: `Content-Range`, and another status. */
const PART_DOWN_BYTES = 'content-range: bytes -/\r\n'.length + 'Partial Content'.length - 'OK'.length

/** The same, of a server without ranges, which answers with the whole file. */
export function wholeWireOf(
  cost: RequestCost,
  path: string,
  offset: number,
  fileBytes: number,
): { down: number; up: number } {
  const { up } = wireOf(cost, path, { offset, length: fileBytes - offset }, fileBytes)
  return { down: cost.downBytes - PART_DOWN_BYTES + digits(fileBytes) + fileBytes, up }
}

export function digits(value: number): number {
  return String(value).length
}

export function encodedPath(path: string): string {
  return path.split('/').map(encodeURIComponent).join('/')
}

/** Everything a read yields, in one buffer. */
export async function collect(parts: AsyncIterable<Uint8Array>): Promise<Buffer> {
  const all: Uint8Array[] = []
  for await (const part of parts) all.push(part)
  return all.length === 1
    ? Buffer.from(all[0]!.buffer, all[0]!.byteOffset, all[0]!.byteLength)
    : Buffer.concat(all)
}

/** Fits the bytes handed through to `length`, whatever the source does. */
export async function* exactly(
  parts: AsyncIterable<Uint8Array>,
  length: number,
  what: string,
): AsyncGenerator<Uint8Array> {
  let left = length
  if (left === 0) return
  for await (const part of parts) {
    const taken = part.length > left ? part.subarray(0, left) : part
    left -= taken.length
    if (taken.length > 0) yield taken
    if (left === 0) return
  }
  throw new EdgeError('UPSTREAM_LIED', `${what}: ended ${left} bytes early`)
}
