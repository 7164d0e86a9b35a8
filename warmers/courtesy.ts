/**
 * Leaves the machine to its readers: a fill as fast as a modest machine can would have them wait for
 * tens of milliseconds, each. While people ask for items, what a fill takes in is slowed down as long as
 * this process comes late to its own timers; but never below what a tower's link brings, so that no
 * window is lost to it.
 */
import type { Pace } from './http-upstream.ts'
import { openPace, type Yielding } from './pace.ts'

export interface Courtesy extends Pace, Disposable {
  /** Somebody asked for an item. */
  asked(): void
}

export interface CourtesyOptions {
  readonly nowMs: () => number
  /** Resolves after `ms`, or rejects with the signal's reason. */
  readonly wait: (ms: number, signal: AbortSignal) => Promise<void>
}

/** 2 MB/s: 16 Mbit/s, more than the links that this is about. */
const YIELDING: Yielding = { targetMs: 3, rateMin: 2e6, rateStart: 8e6, burstMs: 250, baseMs: 0 }
/** Readers are there for so long after a request. */
const READERS_MS = 1000
const TICK_MS = 5
/** The longest of so many ticks is what readers waited. */
const TICKS = 10

export function openCourtesy({ nowMs, wait }: CourtesyOptions): Courtesy {
  const pace = openPace({ bytesPerSecondMax: Infinity, shared: true, nowMs, wait, yielding: YIELDING })
  let askedAtMs = -Infinity
  let spentAtMs = -Infinity
  let ticking: NodeJS.Timeout | undefined
  let tickedAtMs = 0
  let ticks = 0
  let lateMs = 0

  const tick = () => {
    const now = nowMs()
    lateMs = Math.max(lateMs, now - tickedAtMs - TICK_MS)
    tickedAtMs = now
    if (++ticks < TICKS) return
    pace.delayed(lateMs)
    ticks = 0
    lateMs = 0
    if (now - spentAtMs < READERS_MS && areReaders(now)) return
    clearInterval(ticking)
    ticking = undefined
  }
  const areReaders = (now: number) => now - askedAtMs < READERS_MS

  return {
    asked() {
      askedAtMs = nowMs()
    },
    async spend(bytes, signal) {
      spentAtMs = nowMs()
      if (!areReaders(spentAtMs)) return
      if (!ticking) {
        tickedAtMs = spentAtMs
        ticking = setInterval(tick, TICK_MS).unref()
      }
      await pace.spend(bytes, signal)
    },
    [Symbol.dispose]() {
      clearInterval(ticking)
    },
  }
}
