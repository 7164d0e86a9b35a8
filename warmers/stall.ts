/**
 * Ends a transfer that crawls: fewer than `bytesMin` in `ms` of waiting for the other side.
 *
 * Only time spent waiting counts, so a consumer that is slow on purpose (a rate limit) does not
 * make its source look stalled. A server that sends one byte a second is caught like one that
 * sends nothing.
 */
import { EdgeError } from '../manifests/errors.ts'

export interface StallRule {
  readonly bytesMin: number
  readonly ms: number
  /** Without a single byte for so long it ends, too. */
  readonly silenceMs?: number
}

/** 1 KiB/s over 30 s: slower is no better than silent. */
export const STALL: StallRule = { bytesMin: 30 * 1024, ms: 30_000 }

/** @throws EdgeError `UPSTREAM_STALLED`; the source is closed then. */
export async function* stallGuarded(
  source: AsyncIterable<Uint8Array>,
  rule: StallRule,
  what: string,
): AsyncGenerator<Uint8Array> {
  const iterator = source[Symbol.asyncIterator]()
  let waitedMs = 0
  let bytes = 0
  try {
    for (;;) {
      const since = performance.now()
      const next = await withDeadline(
        iterator.next(),
        Math.min(rule.ms - waitedMs, rule.silenceMs ?? Infinity),
        what,
      )
      if (next.done) return
      waitedMs += performance.now() - since
      bytes += next.value.length
      if (bytes >= rule.bytesMin) {
        waitedMs = 0
        bytes = 0
      } else if (waitedMs >= rule.ms) throw stalled(what)
      yield next.value
    }
  } finally {
    void iterator.return?.()?.catch(() => undefined)
  }
}

/** @throws EdgeError `UPSTREAM_STALLED` when `promise` takes longer than `ms`. */
export async function withDeadline<T>(promise: Promise<T>, ms: number, what: string): Promise<T> {
  let timer: NodeJS.Timeout | undefined
  const late = new Promise<never>((_, reject) => {
    timer = setTimeout(() => reject(stalled(what)), Math.max(Math.min(ms, 2 ** 31 - 1), 1))
  })
  try {
    return await Promise.race([promise, late])
  } finally {
    clearTimeout(timer)
    promise.catch(() => undefined)
  }
}

function stalled(what: string): EdgeError {
  return new EdgeError('UPSTREAM_STALLED', `${what}: too slow to go on waiting`)
}
