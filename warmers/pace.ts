/**
 * How fast a fill may go: a token bucket per link, whose rate yields to the people on it.
 *
 * The rate follows measured delay as LEDBAT does (RFC 6817 §2.4): while the queueing delay that we
 * add is below the target the rate grows, above it shrinks, in proportion; a loss of the delay
 * signal leaves it where it is. The base delay is the least of the last ten minutes.
 *
 * And it keeps the queue short (`Flow`): few requests at a time, each of some tenths of a second, read
 * in small pieces. Else the bytes that a sender may send at once fill the queue again and again: people's
 * packets are lost, and the delay says nothing (`shared-link.long.test.ts`).
 * Pure but for the clock and the timer, which are handed in.
 */
import type { Pace } from './http-upstream.ts'

export interface PaceOptions {
  /** Never faster; Infinity for no limit. */
  readonly bytesPerSecondMax: number
  /** Whether to yield to others. */
  readonly shared: boolean
  /** How much: as on a link, when absent. */
  readonly yielding?: Yielding
  readonly nowMs: () => number
  /** Resolves after `ms`, or rejects with the signal's reason. */
  readonly wait: (ms: number, signal: AbortSignal) => Promise<void>
}

export interface Yielding {
  /** The delay that is added at most, about. */
  readonly targetMs: number
  /** Bytes per second: never slower, whatever the delay. */
  readonly rateMin: number
  /** Before anything was measured. */
  readonly rateStart: number
  /** Of time that was not used, or in which this process was held up, so much counts. */
  readonly burstMs: number
  /** What is measured when nobody waits; the least of the last ten minutes, when absent. */
  readonly baseMs?: number
}

export interface LinkPace extends Pace {
  /** A round trip was measured: a small request's time to its first byte, or a probe's. */
  delayed(ms: number): void
  readonly bytesPerSecond: number
  readonly queueingMs: number
  /** Since the last measurement. */
  readonly movedBytes: number
}

/** RFC 6817: no more than 100 ms. With what a request brings at once, a link of 2 Mbit/s has 20 by itself. */
const LINK: Yielding = { targetMs: 40, rateMin: 16 * 1024, rateStart: 256 * 1024, burstMs: 100 }
/** The most that is added per measurement, as a share, and the most that is taken away. */
const GAIN = 0.15
const LESS = 0.3
const BASE_MS = 10 * 60_000
/** Of a shared link's requests. */
const PIECE_MS = 120
const PIECE_BYTES_MIN = 32 * 1024
const READ_BYTES = 16 * 1024

export function openPace(options: PaceOptions): LinkPace {
  const { bytesPerSecondMax: max, shared, nowMs, wait, yielding = LINK } = options
  const { targetMs, rateMin, rateStart, burstMs, baseMs } = yielding
  let rate = shared ? Math.min(rateStart, max) : max
  /** All that was moved, and all that the rate has allowed for so far. */
  let spent = 0
  let allowed = 0
  let filledAtMs = nowMs()
  let base: number | undefined
  let queueingMs = 0
  let moved = 0
  let movedSince = nowMs()
  let delays: { atMs: number; ms: number }[] = []

  const fill = () => {
    const now = nowMs()
    if (rate < Infinity) allowed = Math.min(spent + burst(), allowed + (rate * (now - filledAtMs)) / 1000)
    filledAtMs = now
  }
  const burst = () => Math.max((rate * burstMs) / 1000, 16 * 1024)

  return {
    async spend(bytes, signal) {
      moved += bytes
      if (rate === Infinity) return
      fill()
      spent += bytes
      // what has arrived has been spent already: so it is waited off afterwards, in the order of arrival
      const due = spent
      // oxlint-disable-next-line no-unmodified-loop-condition -- `fill` adds to it
      while (allowed < due) {
        await wait(Math.min(Math.max(((due - allowed) / rate) * 1000, 1), 1000), signal)
        fill()
      }
    },
    delayed(ms) {
      const now = nowMs()
      delays = [...delays.filter(({ atMs }) => atMs > now - BASE_MS), { atMs: now, ms }].slice(-1000)
      base = baseMs ?? Math.min(...delays.map(delay => delay.ms))
      // the lesser of the last two: one late packet is no queue
      queueingMs = Math.min(...delays.slice(-2).map(delay => delay.ms)) - base
      if (!shared) return
      fill()
      const offTarget = Math.max(-1, Math.min(1, (targetMs - queueingMs) / targetMs))
      const elapsed = Math.max(now - movedSince, 1)
      const used = (moved * 1000) / elapsed
      moved = 0
      movedSince = now
      // growing is only earned by using what there is
      if (offTarget > 0 && used < rate / 2) return
      // what is not used cannot be given away; but a pause says nothing about what may be used
      const next =
        offTarget > 0
          ? rate * (1 + GAIN * offTarget)
          : Math.min(rate, Math.max(used, rate / 2)) * (1 + LESS * offTarget)
      rate = Math.min(max, Math.max(rateMin, next))
    },
    get bytesPerSecond() {
      return rate
    },
    get queueingMs() {
      return queueingMs
    },
    get flow() {
      if (!shared || base === undefined) return undefined
      const pieceBytes = Math.max(PIECE_BYTES_MIN, Math.round((rate * PIECE_MS) / 1000))
      return {
        connections: Math.max(2, Math.ceil((base + PIECE_MS) / PIECE_MS)),
        pieceBytes,
        readBytes: READ_BYTES,
      }
    },
    get movedBytes() {
      return moved
    },
  }
}
