/**
 * A repository on any HTTP server that can serve static files.
 *
 * Requests are minimal (no header that a static server does not need) and never compressed; a
 * server that answers 200 to a range request works, slowly. Redirects are followed on the same
 * origin only (T17). What the server claims (length, range) is compared with what was asked before
 * a byte of the body is believed, and reading stops at the length asked for.
 */
import type { Dispatcher } from 'undici'
import { EdgeError, isEdgeError } from '../manifests/errors.ts'
import { Lane, type LaneOptions } from './lane.ts'
import { Rhythm } from './rhythm.ts'
import { Tuner } from './tuning.ts'
import { Account, count } from './wire-account.ts'
import { STALL, stallGuarded, withDeadline, type StallRule } from './stall.ts'
import {
  digits,
  encodedPath,
  exactly,
  type Elsewhere,
  type ReadOptions,
  type RequestCost,
  type Span,
  type SpanOptions,
  type Upstream,
  type WholeOptions,
  type WireRecord,
} from './upstream.ts'

/** Slows a transfer down: resolves when `bytes` more may have passed. */
export interface Pace {
  spend(bytes: number, signal: AbortSignal): Promise<void>
  /** For a transfer that flows evenly. */
  readonly flow?: Flow | undefined
}

export interface Flow {
  /** At most so many connections, and so much per request. */
  readonly connections: number
  readonly pieceBytes: number
  /** At most so much is read at once. */
  readonly readBytes: number
}

export interface HttpUpstreamOptions extends Partial<Omit<LaneOptions, 'connectMs'>> {
  readonly onWire: (record: WireRecord) => void
  /** At most this many connections. */
  readonly connectionsMax?: number
  readonly stall?: StallRule
  readonly pace?: Pace
}

type Answer = Dispatcher.ResponseData
const REDIRECTS_MAX = 3
const CONNECTIONS_MAX = 8
/** Until measured: what nginx and node:http answer, about. */
const GUESS: RequestCost = { downBytes: 260, upBytes: 70, connectDownBytes: 0, connectUpBytes: 0 }

export function openHttpUpstream(url: URL, options: HttpUpstreamOptions): Upstream {
  return new HttpUpstream(url, options)
}

class HttpUpstream implements Upstream {
  readonly name: string
  readonly #url: string
  readonly #origin: string
  readonly #base: string
  readonly #authorization: string | undefined
  readonly #options: HttpUpstreamOptions
  readonly #stall: StallRule
  readonly #tuner: Tuner
  readonly #rhythm: Rhythm
  readonly #idle: Lane[] = []
  readonly #all = new Set<Lane>()
  readonly #waiting: ((lane: Lane) => void)[] = []
  readonly #urgent: ((lane: Lane) => void)[] = []
  readonly #wire = { bytesDown: 0, bytesUp: 0, requests: 0, connections: 0 }
  #cost: RequestCost
  #ranges = true
  #hasSampledPart = false

  constructor(url: URL, options: HttpUpstreamOptions) {
    this.#url = url.href
    this.#origin = url.origin
    this.#base = url.pathname.endsWith('/') ? url.pathname : `${url.pathname}/`
    this.name = `${url.origin}${this.#base === '/' ? '' : this.#base.slice(0, -1)}`
    const credentials = `${decodeURIComponent(url.username)}:${decodeURIComponent(url.password)}`
    this.#authorization = url.username ? `Basic ${Buffer.from(credentials).toString('base64')}` : undefined
    this.#options = options
    this.#stall = options.stall ?? STALL
    this.#tuner = new Tuner(options.connectionsMax ?? CONNECTIONS_MAX)
    this.#rhythm = new Rhythm(options.connectionsMax ?? CONNECTIONS_MAX)
    this.#cost = { ...GUESS, connectionsMax: options.connectionsMax ?? CONNECTIONS_MAX }
  }

  get wire() {
    return { ...this.#wire }
  }

  get elsewhere(): Elsewhere {
    const { onWire, pace, ...settings } = this.#options
    return {
      settings: { ...settings, url: this.#url },
      pace,
      moved: (record, connections) => {
        count(this.#wire, record, connections)
        onWire(record)
      },
    }
  }

  get cost() {
    return this.#cost
  }

  get isLossy() {
    return this.#tuner.tuning.pieceBytes !== Infinity
  }

  get pieceBytes() {
    return Math.min(this.#tuner.tuning.pieceBytes, this.#options.pace?.flow?.pieceBytes ?? Infinity)
  }

  get ranges() {
    return this.#ranges
  }

  async *readSpan(path: string, span: Span, options: SpanOptions): AsyncGenerator<Uint8Array> {
    if (span.length === 0) return
    const { offset, length } = span
    const firstBytes = this.#rhythm.firstBytesOf(length)
    using _running = this.#rhythm.begin()
    yield* this.#readPart(path, { offset, length: firstBytes }, options)
    if (firstBytes === length) return
    const rest = { offset: offset + firstBytes, length: length - firstBytes }
    yield* this.#readPart(path, rest, { ...options, urgent: true })
  }

  #readPart(path: string, span: Span, options: SpanOptions): AsyncGenerator<Uint8Array> {
    return this.#exchange(path, span, options, (answer, body) => {
      if (answer.statusCode === 206) return this.#partial(path, span, answer, body)
      this.#ranges = false
      if (span.offset > (options.skipBytesMax ?? Infinity))
        throw new EdgeError('UPSTREAM_REFUSED', `${this.name}: serves no ranges`)
      return wholeAsPart(path, span, answer, body)
    })
  }

  async *readWhole(path: string, options: WholeOptions): AsyncGenerator<Uint8Array> {
    yield* this.#exchange(path, undefined, options, (answer, body) => {
      const claimed = lengthOf(answer)
      if (answer.statusCode === 206) throw new EdgeError('UPSTREAM_LIED', `${path}: a part, unasked`)
      if (claimed !== undefined && claimed > options.maxBytes) throw tooLong(path, options.maxBytes)
      return atMost(body, options.maxBytes, path)
    })
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await Promise.all([...this.#all].map(lane => lane.client.destroy()))
  }

  /** One request, its body as `shape` admits it, and the account of what it cost. */
  async *#exchange(
    path: string,
    span: Span | undefined,
    options: ReadOptions,
    shape: (answer: Answer, body: AsyncIterable<Uint8Array>) => AsyncIterable<Uint8Array>,
  ): AsyncGenerator<Uint8Array> {
    const { signal } = options
    const what = `${this.name}/${path}`
    const lane = await this.#acquire(signal, options.urgent ?? false)
    const stop = new AbortController()
    const account = new Account(options.purpose, lane, this.#wire, this.#options.onWire)
    let answer: Answer | undefined
    try {
      answer = await this.#send(lane, path, span, AbortSignal.any([signal, stop.signal]), account)
      yield* shape(answer, this.#paced(answer, account, signal, what))
      this.#tuner.ended(false)
    } catch (error) {
      const translated = this.#translated(error, signal, what)
      if (isEdgeError(translated, 'UPSTREAM_STALLED')) this.#tuner.ended(true)
      throw translated
    } finally {
      const isWhole = answer?.body.readableEnded ?? false
      if (!isWhole) stop.abort() // a connection with unwanted bytes on it is of no use
      account.report()
      this.#learnConnect(account, answer)
      if (answer && isWhole && account.connectDown + account.connectUp === 0)
        this.#learn(path, span, answer, account)
      this.#release(lane)
    }
  }

  async *#paced(
    answer: Answer,
    account: Account,
    signal: AbortSignal,
    what: string,
  ): AsyncGenerator<Uint8Array> {
    for await (const part of stallGuarded(
      answer.body,
      { silenceMs: this.#tuner.tuning.silenceMs, ...this.#stall },
      what,
    )) {
      account.received(part.length)
      await this.#options.pace?.spend(part.length, signal)
      signal.throwIfAborted()
      yield part
    }
  }

  async #send(
    lane: Lane,
    path: string,
    span: Span | undefined,
    signal: AbortSignal,
    account: Account,
  ): Promise<Answer> {
    const headers = {
      ...(span ? { range: `bytes=${span.offset}-${span.offset + span.length - 1}` } : {}),
      ...(this.#authorization ? { authorization: this.#authorization } : {}),
    }
    let target = this.#base + encodedPath(path)
    for (let hops = 0; ; hops++) {
      const answer = await this.#request(lane, target, headers, signal, account)
      const { statusCode } = answer
      if (statusCode === 206 || statusCode === 200) {
        const encoding = answer.headers['content-encoding']
        if (encoding && encoding !== 'identity')
          throw new EdgeError('UPSTREAM_LIED', `${path}: compressed, unasked`)
        return answer
      }
      await answer.body.dump({ limit: 16 * 1024, signal }).catch(() => undefined)
      if (statusCode === 404 || statusCode === 410 || statusCode === 403)
        throw new EdgeError('NOT_FOUND', `${this.name}/${path}: ${statusCode}`)
      if (statusCode === 416)
        throw new EdgeError('UPSTREAM_LIED', `${this.name}/${path}: shorter than signed (416)`)
      if (statusCode < 300 || statusCode >= 400)
        throw new EdgeError('UPSTREAM_REFUSED', `${this.name}/${path}: answers ${statusCode}`)
      target = this.#sameOrigin(answer, target, path, hops)
    }
  }

  /** A kept-alive connection may have been closed just before: one silent retry on a new one. */
  async #request(
    lane: Lane,
    target: string,
    headers: Record<string, string>,
    signal: AbortSignal,
    account: Account,
  ): Promise<Answer> {
    for (let attempt = 0; ; attempt++) {
      const stalled = new AbortController()
      const since = performance.now()
      account.asked()
      try {
        const answer = lane.client.request({
          method: 'GET',
          path: target,
          headers,
          signal: AbortSignal.any([signal, stalled.signal]),
        })
        const what = `${this.#origin}${target}`
        const ms = Math.min(this.#stall.ms, this.#tuner.tuning.silenceMs)
        const answered = await withDeadline(answer, ms, what)
        this.#rhythm.answered(performance.now() - since)
        return answered
      } catch (error) {
        stalled.abort()
        const closed =
          error instanceof Error &&
          'code' in error &&
          (error.code === 'UND_ERR_SOCKET' || error.code === 'ECONNRESET')
        if (!closed || attempt > 0 || signal.aborted) throw error
      }
    }
  }

  #sameOrigin(answer: Answer, target: string, path: string, hops: number): string {
    const location = String(answer.headers.location ?? '')
    const url = URL.canParse(location, this.#origin + target)
      ? new URL(location, this.#origin + target)
      : undefined
    if (hops >= REDIRECTS_MAX || url?.origin !== this.#origin) {
      throw new EdgeError('UPSTREAM_REFUSED', `${this.name}/${path}: redirects away, which is refused`)
    }
    return url.pathname + url.search
  }

  #partial(
    path: string,
    span: Span,
    answer: Answer,
    body: AsyncIterable<Uint8Array>,
  ): AsyncIterable<Uint8Array> {
    const range = /^bytes (\d+)-(\d+)\/(\d+|\*)$/.exec(String(answer.headers['content-range'] ?? ''))
    const claimed = lengthOf(answer)
    const isRight =
      range && Number(range[1]) === span.offset && Number(range[2]) === span.offset + span.length - 1
    if (!isRight || (claimed !== undefined && claimed !== span.length)) {
      throw new EdgeError('UPSTREAM_LIED', `${this.name}/${path}: not the range asked for`)
    }
    // with a length, the HTTP parser vouches for it, and the connection stays usable
    return claimed === undefined ? exactly(body, span.length, `${this.name}/${path}`) : body
  }

  #translated(error: unknown, signal: AbortSignal, what: string): unknown {
    if (signal.aborted) return signal.reason
    if (isEdgeError(error)) return error
    return new EdgeError(
      'UPSTREAM_UNREACHABLE',
      `${what}: ${error instanceof Error ? error.message : 'failed'}`,
      { cause: error },
    )
  }

  /** What a server sends after the handshake (session tickets of TLS 1.3) comes with the first answer. */
  #learnConnect({ connections, connectDown, connectUp, down, requests }: Account, answer?: Answer): void {
    if (connections === 0) return
    const length = answer && requests === 1 && connections === 1 ? (lengthOf(answer) ?? Infinity) : Infinity
    const late = connectDown > 0 ? Math.max(0, down - connectDown - length - this.#cost.downBytes) : 0
    const connectDownBytes = Math.round(connectDown / connections) + late
    this.#cost = { ...this.#cost, connectDownBytes, connectUpBytes: Math.round(connectUp / connections) }
  }

  /** Of a request without a handshake: whatever is not body and not a varying number. */
  #learn(path: string, span: Span | undefined, answer: Answer, { down, up, body, requests }: Account): void {
    if (lengthOf(answer) !== body || requests !== 1) return
    const part = span !== undefined && answer.statusCode === 206
    if (!part && (span || this.#hasSampledPart)) return
    const ends = part ? digits(span.offset) + digits(span.offset + span.length - 1) : 0
    const total = /\/(\d+)$/.exec(String(answer.headers['content-range'] ?? ''))?.[1]?.length ?? 0
    const downBytes = down - body - digits(body) - ends - total + (part ? 0 : PART_EXTRA_DOWN)
    const upBytes = up - encodedPath(path).length - ends + (part ? 0 : PART_EXTRA_UP)
    this.#hasSampledPart ||= part
    if (downBytes > 0 && upBytes > 0) this.#cost = { ...this.#cost, downBytes, upBytes }
  }

  /** In the order of asking, the urgent ones first: nobody takes what somebody waits for. */
  async #acquire(signal: AbortSignal, urgent: boolean): Promise<Lane> {
    signal.throwIfAborted()
    const isFirst = this.#urgent.length === 0 && (urgent || this.#waiting.length === 0)
    return (isFirst && this.#freeLane()) || (await this.#turn(signal, urgent))
  }

  #freeLane(): Lane | undefined {
    const { tuning } = this.#tuner
    // where much is lost there is no queue to keep short, and one stream dies
    const flowing = this.isLossy ? undefined : this.#options.pace?.flow?.connections
    const connections = Math.min(tuning.connections, flowing ?? Infinity)
    if (this.#all.size - this.#idle.length >= connections) return undefined
    const idle = this.#idle.pop()
    if (idle) return idle
    const connectMs = () => this.#tuner.tuning.connectMs
    const { readBytes } = this.#options.pace?.flow ?? {}
    const lane = new Lane(this.#origin, { ...this.#options, connectMs, ...(readBytes && { readBytes }) })
    this.#all.add(lane)
    return lane
  }

  #turn(signal: AbortSignal, urgent: boolean): Promise<Lane> {
    const { promise, resolve, reject } = Promise.withResolvers<Lane>()
    const line = urgent ? this.#urgent : this.#waiting
    const leave = () => {
      line.splice(line.indexOf(take), 1)
      reject(signal.reason as Error)
    }
    const take = (lane: Lane) => {
      signal.removeEventListener('abort', leave)
      resolve(lane)
    }
    line.push(take)
    signal.addEventListener('abort', leave, { once: true })
    return promise
  }

  #release(lane: Lane): void {
    this.#idle.push(lane)
    for (let line = this.#line; line; line = this.#line) {
      const free = this.#freeLane()
      if (!free) return
      line.shift()!(free)
    }
  }

  get #line() {
    return [this.#urgent, this.#waiting].find(({ length }) => length > 0)
  }
}

/** `content-range: bytes -/` with its line end, and `206 Partial Content` for `200 OK`. */
const PART_EXTRA_DOWN = 'content-range: bytes -/\r\n'.length + 'Partial Content'.length - 'OK'.length
const PART_EXTRA_UP = 'range: bytes=-\r\n'.length

function lengthOf(answer: Answer): number | undefined {
  const length = answer.headers['content-length']
  return typeof length === 'string' && /^\d+$/.test(length) ? Number(length) : undefined
}

async function* wholeAsPart(
  path: string,
  span: Span,
  answer: Answer,
  body: AsyncIterable<Uint8Array>,
): AsyncGenerator<Uint8Array> {
  const claimed = lengthOf(answer)
  if (claimed !== undefined && claimed < span.offset + span.length) {
    throw new EdgeError('UPSTREAM_LIED', `${path}: ${claimed} bytes, shorter than signed`)
  }
  yield* exactly(skipping(body, span.offset), span.length, path)
}

async function* skipping(parts: AsyncIterable<Uint8Array>, bytes: number): AsyncGenerator<Uint8Array> {
  let left = bytes
  for await (const part of parts) {
    const skipped = Math.min(left, part.length)
    left -= skipped
    if (skipped < part.length) yield part.subarray(skipped)
  }
}

async function* atMost(
  parts: AsyncIterable<Uint8Array>,
  bytes: number,
  path: string,
): AsyncGenerator<Uint8Array> {
  let seen = 0
  for await (const part of parts) {
    seen += part.length
    if (seen > bytes) throw tooLong(path, bytes)
    yield part
  }
}

function tooLong(path: string, bytes: number): EdgeError {
  return new EdgeError('UPSTREAM_LIED', `${path}: longer than the ${bytes} bytes expected`)
}
