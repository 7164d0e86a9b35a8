/**
 * All bodies of more than one small read, sent fairly: one queue for the whole process.
 *
 * Each turn of the event loop works off about 256 KiB, of one transfer after the other in rotation, so
 * that sixteen bulk downloads delay a small answer by at most one such turn. A transfer's chunks of a turn
 * leave in one write: its client is woken once, not four times (1 MiB: 820 µs against 940). (Resuming
 * inside the write callback starves everybody else; bench/read has the figures.)
 *
 * Bounds: a transfer has at most `backlogMax()` bytes, or one chunk, waiting in its socket and then sleeps until half
 * of them are gone; a client that takes nothing for `stallMs` is dropped. Bytes are verified before
 * each write (I1). A chunk that fails is first asked of `recover`; if that fails too, the client gets
 * a problem while nothing was sent yet, else the connection is aborted, never ended short.
 */
import type { ServerResponse } from 'node:http'
import { EdgeError } from '../../manifests/errors.ts'
import type { ChunkSlice, OpenItem } from '../library.ts'
import { type BufferPool, POOLED_BYTES_MAX } from './buffer-pool.ts'

const TURN_BYTES = 256 * 1024
const BACKLOG_BYTES_MAX = 1024 * 1024
/** Shared by all transfers; with very many of them, each has one chunk at a time. */
const BACKLOG_BYTES_TOTAL = 32 * 1024 * 1024

export interface SendJob {
  readonly res: ServerResponse
  readonly item: OpenItem
  /**
   * What to send, in order: slices to read and verify, ready bytes (multipart boundaries), and what is
   * yet to come: verified bytes, or nothing but the time for the next step.
   */
  readonly steps: Iterator<ChunkSlice | Buffer | Promise<Buffer | undefined>>
  /** Of all steps together: what the answer promises. */
  readonly lengthBytes: number
  /** Read on the thread pool, where the disk may be slow. */
  readonly offThread: boolean
  /** Writes the status line and fields; called once, right before the first byte. */
  head(): void
  /** Nothing was sent yet, and nothing can be: answer with a problem. */
  refuse(error: unknown): void
  /** Once, whatever happened. */
  done(outcome: 'sent' | 'aborted' | 'refused', sentBytes: number): void
}

interface Transfer extends SendJob {
  started: boolean
  ended: boolean
  /** In the ready queue, waiting for a read, or asleep until the socket drains. */
  state: 'ready' | 'reading' | 'asleep' | 'over'
  backlogBytes: number
  writtenBytes: number
  sentBytes: number
  progressAtMs: number
  abort: AbortController | undefined
}

export interface SendQueueOptions {
  readonly stallMs: number
  /** Hears of each failed read, also of those that were recovered. */
  onFault(error: unknown): void
}

export class SendQueue implements Disposable {
  readonly #pool: BufferPool
  readonly #options: SendQueueOptions
  readonly #active = new Set<Transfer>()
  readonly #sweep: NodeJS.Timeout
  #ready: Transfer[] = []
  #rotation: Transfer[] = []
  #scheduled = false

  constructor(pool: BufferPool, options: SendQueueOptions) {
    this.#pool = pool
    this.#options = options
    this.#sweep = setInterval(
      () => this.#dropStalled(options.stallMs),
      Math.min(5_000, options.stallMs / 2),
    ).unref()
  }

  get active(): number {
    return this.#active.size
  }

  /** Answers that are not over. */
  *answers(): Generator<ServerResponse> {
    for (const { res } of this.#active) yield res
  }

  start(job: SendJob): void {
    const transfer: Transfer = Object.assign(job, {
      started: false,
      ended: false,
      state: 'ready' as const,
      backlogBytes: 0,
      writtenBytes: 0,
      sentBytes: 0,
      progressAtMs: performance.now(),
      abort: undefined,
    })
    this.#active.add(transfer)
    job.res.once('close', () => this.#over(transfer, transfer.res.writableFinished ? 'sent' : 'aborted'))
    this.#enqueue(transfer)
  }

  [Symbol.dispose](): void {
    clearInterval(this.#sweep)
    for (const transfer of this.#active) transfer.res.destroy()
  }

  #enqueue(transfer: Transfer): void {
    transfer.state = 'ready'
    this.#ready.push(transfer)
    if (this.#scheduled) return
    this.#scheduled = true
    setImmediate(this.#turn)
  }

  readonly #turn = (): void => {
    let budget = TURN_BYTES
    while (budget > 0) {
      const transfer = this.#rotation.pop()
      if (transfer) {
        budget -= this.#work(transfer, budget)
      } else if (this.#ready.length > 0) {
        this.#rotation = this.#ready.toReversed()
        this.#ready = []
      } else {
        break
      }
    }
    this.#scheduled = this.#rotation.length > 0 || this.#ready.length > 0
    if (this.#scheduled) setImmediate(this.#turn)
  }

  /**
   * Sends chunks of one transfer until `budget` is used: they leave in one write, so that the client is
   * woken once. @returns bytes of work done on this thread.
   */
  #work(transfer: Transfer, budget: number): number {
    let done = 0
    while (transfer.state === 'ready' && done < budget) done += this.#step(transfer)
    if (transfer.state === 'ready') this.#ready.push(transfer)
    return done
  }

  /** Sends one chunk, or begins to. @returns as `#work`. */
  #step(transfer: Transfer): number {
    let slice: ChunkSlice
    try {
      const next = transfer.steps.next()
      if (next.done) throw new EdgeError('CHUNK_ABSENT', `${transfer.item.path} ended early`)
      if (Buffer.isBuffer(next.value)) {
        this.#write(transfer, next.value, undefined)
        this.#proceed(transfer)
        return next.value.length
      }
      if (next.value instanceof Promise) return this.#wait(transfer, next.value)
      slice = next.value
    } catch (error) {
      this.#fail(transfer, error)
      return 0
    }

    if (transfer.offThread) {
      this.#readOffThread(transfer, slice)
      return 0
    }
    const buffer = this.#pool.take(slice.sizeBytes)
    try {
      transfer.item.readInto(slice, buffer)
    } catch (error) {
      this.#recover(transfer, slice, error)
      return slice.sizeBytes
    }
    this.#write(transfer, buffer.subarray(slice.from, slice.to), buffer)
    this.#proceed(transfer)
    return slice.sizeBytes
  }

  #wait(transfer: Transfer, coming: Promise<Buffer | undefined>): number {
    transfer.state = 'reading'
    coming.then(
      bytes => {
        if (transfer.state !== 'reading') return
        if (bytes) this.#write(transfer, bytes, undefined)
        this.#resume(transfer)
      },
      error => this.#fail(transfer, error),
    )
    return 0
  }

  #readOffThread(transfer: Transfer, slice: ChunkSlice): void {
    transfer.state = 'reading'
    const buffer = this.#pool.take(slice.sizeBytes)
    transfer.item.read(slice, buffer, this.#signalOf(transfer)).then(
      () => {
        if (transfer.state !== 'reading') return this.#pool.give(buffer)
        this.#write(transfer, buffer.subarray(slice.from, slice.to), buffer)
        this.#resume(transfer)
      },
      error => this.#recover(transfer, slice, error),
    )
  }

  #recover(transfer: Transfer, slice: ChunkSlice, cause: unknown): void {
    if (transfer.state === 'over') return
    this.#options.onFault(cause)
    transfer.state = 'reading'
    transfer.item.recover(slice, this.#signalOf(transfer)).then(
      bytes => {
        if (transfer.state !== 'reading') return
        this.#write(transfer, bytes.subarray(slice.from, slice.to), undefined)
        this.#resume(transfer)
      },
      error => this.#fail(transfer, error),
    )
  }

  #write(transfer: Transfer, bytes: Buffer, pooled: Buffer | undefined): void {
    if (!transfer.started) {
      transfer.started = true
      transfer.progressAtMs = performance.now()
      transfer.head()
    }
    transfer.backlogBytes += bytes.length
    transfer.writtenBytes += bytes.length
    const taken = (error?: Error | null): void => {
      if (error) return
      if (pooled) this.#pool.give(pooled)
      transfer.backlogBytes -= bytes.length
      transfer.sentBytes += bytes.length
      transfer.progressAtMs = performance.now()
      if (transfer.state === 'asleep' && !transfer.ended && transfer.backlogBytes <= this.#backlogMax() / 2)
        this.#enqueue(transfer)
    }
    if (transfer.writtenBytes < transfer.lengthBytes) return void transfer.res.write(bytes, taken)
    // At once: a client that has all it was promised may close before another turn comes.
    transfer.ended = true
    transfer.res.end(bytes, taken)
  }

  /** Whether there is room for more; else it sleeps until its client has taken some. */
  #proceed(transfer: Transfer): void {
    if (transfer.state === 'over') return
    const { backlogBytes, ended } = transfer
    const room = !ended && (backlogBytes === 0 || backlogBytes + POOLED_BYTES_MAX <= this.#backlogMax())
    transfer.state = room ? 'ready' : 'asleep'
  }

  /** The same after something that was waited for. */
  #resume(transfer: Transfer): void {
    this.#proceed(transfer)
    if (transfer.state === 'ready') this.#enqueue(transfer)
  }

  #fail(transfer: Transfer, error: unknown): void {
    if (transfer.state === 'over') return
    this.#options.onFault(error)
    if (transfer.started) {
      this.#over(transfer, 'aborted') // now: `close` comes in a later turn
      transfer.res.destroy()
    } else {
      this.#over(transfer, 'refused')
      transfer.refuse(error)
    }
  }

  #over(transfer: Transfer, outcome: 'sent' | 'aborted' | 'refused'): void {
    if (transfer.state === 'over') return
    transfer.state = 'over'
    this.#active.delete(transfer)
    transfer.abort?.abort()
    transfer.steps.return?.()
    transfer.done(outcome, transfer.sentBytes)
  }

  #signalOf(transfer: Transfer): { signal: AbortSignal } {
    transfer.abort ??= new AbortController()
    return { signal: transfer.abort.signal }
  }

  #backlogMax(): number {
    return Math.min(BACKLOG_BYTES_MAX, BACKLOG_BYTES_TOTAL / Math.max(1, this.#active.size))
  }

  /** A pipelined answer has no socket yet and waits for the one before it, not for its client. */
  #dropStalled(stallMs: number): void {
    const before = performance.now() - stallMs
    for (const transfer of this.#active) {
      const waits = transfer.backlogBytes > 0 || transfer.ended
      if (waits && transfer.res.socket && transfer.progressAtMs < before) transfer.res.destroy()
    }
  }
}
