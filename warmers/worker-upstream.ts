/**
 * Reading through a worker process: the same upstream, by connections of that process. What it
 * receives comes over the socket between the two, in the order of its bytes, and is staged, proven
 * and stored here, as if it had been received here: a worker is believed no more than an upstream.
 *
 * At most `AHEAD_BYTES` of a read wait on the way, so that the link's pace, which is kept here, holds
 * back the connection there. When the worker dies, what it was reading fails once and is then read
 * by this process, from where it ended.
 */
import { EdgeError, isEdgeError, type EdgeErrorCode } from '../manifests/errors.ts'
import { Channel } from './channel.ts'
import type { JobData, JobEnd } from './bull-job.ts'
import type {
  Elsewhere,
  Purpose,
  RemoteSettings,
  Span,
  SpanOptions,
  Upstream,
  WireRecord,
} from './upstream.ts'
import { UpstreamView } from './upstream-view.ts'

export type ToWorker =
  | { readonly type: 'ran'; readonly id: number; readonly end: JobEnd }
  | {
      readonly type: 'read'
      readonly id: number
      readonly from: RemoteSettings
      readonly path: string
      readonly span: Span
      readonly purpose: Purpose
      readonly urgent?: boolean | undefined
      readonly skipBytesMax?: number | undefined
    }
  /** So much of a read was used: more may come. */
  | { readonly type: 'took'; readonly id: number; readonly bytes: number }
  | { readonly type: 'stop'; readonly id: number }

export type FromWorker =
  | { readonly type: 'ready' }
  | { readonly type: 'take'; readonly id: number; readonly job: JobData }
  | { readonly type: 'part'; readonly id: number; readonly bytes: Uint8Array }
  | {
      readonly type: 'wire'
      readonly id: number
      readonly record: WireRecord
      readonly connections: number
    }
  | {
      readonly type: 'end'
      readonly id: number
      readonly pieceBytes: number
      readonly error?: { readonly code: EdgeErrorCode; readonly message: string } | undefined
    }

export const AHEAD_BYTES = 256 * 1024

/** The owner's end of the socket to one worker. */
export class WorkerReads {
  readonly #send: (message: ToWorker) => void
  readonly #reads = new Map<number, { channel: Channel<Uint8Array>; account: Elsewhere; error?: EdgeError }>()
  #lastId = 0
  #alive = true
  /** As the worker found the link last; Infinity: whole requests. */
  pieceBytes = Infinity

  constructor(send: (message: ToWorker) => void) {
    this.#send = send
  }

  get alive(): boolean {
    return this.#alive
  }

  hear(message: FromWorker): void {
    const read = 'id' in message ? this.#reads.get(message.id) : undefined
    if (!read) return
    if (message.type === 'part') read.channel.push(message.bytes)
    if (message.type === 'wire') read.account.moved(message.record, message.connections)
    if (message.type !== 'end') return
    this.pieceBytes = message.pieceBytes
    if (message.error) read.error = new EdgeError(message.error.code, message.error.message)
    this.#reads.delete(message.id)
    read.channel.end()
  }

  died(): void {
    this.#alive = false
    for (const read of this.#reads.values()) {
      read.error = new EdgeError('UPSTREAM_UNREACHABLE', 'the worker that was reading has died')
      read.channel.end()
    }
    this.#reads.clear()
  }

  async *read(
    account: Elsewhere,
    path: string,
    span: Span,
    { signal, purpose, urgent, skipBytesMax }: SpanOptions,
  ): AsyncGenerator<Uint8Array> {
    signal.throwIfAborted()
    const id = ++this.#lastId
    const channel = new Channel<Uint8Array>()
    const read: { channel: Channel<Uint8Array>; account: Elsewhere; error?: EdgeError } = { channel, account }
    this.#reads.set(id, read)
    const leave = () => channel.end()
    signal.addEventListener('abort', leave, { once: true })
    let left = span.length
    try {
      this.#send({ type: 'read', id, from: account.settings, path, span, purpose, urgent, skipBytesMax })
      for await (const bytes of channel) {
        await account.pace?.spend(bytes.length, signal)
        signal.throwIfAborted()
        left -= bytes.length
        yield bytes
        this.#send({ type: 'took', id, bytes: bytes.length })
      }
      signal.throwIfAborted()
      if (read.error) throw read.error
    } finally {
      signal.removeEventListener('abort', leave)
      // what it cost until it stops is still accounted for: it is forgotten at its `end`
      if (this.#reads.has(id)) this.#send({ type: 'stop', id })
    }
    if (left !== 0) throw new EdgeError('UPSTREAM_LIED', `${path}: ${left} bytes are lacking`)
  }
}

export function throughWorker(base: Upstream, worker: WorkerReads): Upstream {
  return new WorkerUpstream(base, worker)
}

class WorkerUpstream extends UpstreamView {
  readonly #worker: WorkerReads

  constructor(base: Upstream, worker: WorkerReads) {
    super(base)
    this.#worker = worker
  }

  override get isLossy() {
    return this.base.isLossy || this.#worker.pieceBytes !== Infinity
  }

  override get pieceBytes() {
    return Math.min(this.base.pieceBytes, this.#worker.pieceBytes)
  }

  async *readSpan(path: string, span: Span, options: SpanOptions): AsyncGenerator<Uint8Array> {
    const { elsewhere, ranges } = this.base
    if (elsewhere && ranges && this.#worker.alive) {
      let came = false
      try {
        for await (const bytes of this.#worker.read(elsewhere, path, span, options)) {
          came = true
          yield bytes
        }
        return
      } catch (error) {
        // a server without ranges, perhaps: what then is to be done is known where all reads are known
        if (came || !isEdgeError(error, 'UPSTREAM_REFUSED')) throw error
      }
    }
    yield* this.base.readSpan(path, span, options)
  }
}
