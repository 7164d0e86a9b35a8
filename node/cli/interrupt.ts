/**
 * Ctrl-C and its relatives, once for the whole process. The first one aborts `interruption()`, and
 * the command winds down by itself; another one, later than a second, ends the process at once.
 *
 * Within that second repeats are the same wish: a terminal signals the whole process group, and
 * whoever started us (npm, the bootstrap) may pass its own signal on as well.
 */
import { constants } from 'node:os'
import type { Writable } from 'node:stream'

const SIGNALS = ['SIGINT', 'SIGTERM', 'SIGHUP'] as const
const SAME_WISH_MS = 1_000

let controller: AbortController | undefined
let received: { signal: (typeof SIGNALS)[number]; atMs: number } | undefined

/**
 * Aborted by SIGINT, SIGTERM and SIGHUP. Until it is asked for, they end the process as usual.
 *
 * @param endsWithinMs for commands that may be cut anywhere: the process ends then, ready or not.
 */
export function interruption({ endsWithinMs }: { readonly endsWithinMs?: number } = {}): AbortSignal {
  controller ??= listen()
  const { signal } = controller
  if (endsWithinMs !== undefined) {
    signal.addEventListener('abort', () => {
      setTimeout(() => process.exit(interruptedExitCode()), endsWithinMs).unref()
    })
  }
  return signal
}

function listen(): AbortController {
  const stop = new AbortController()
  for (const signal of SIGNALS) {
    process.on(signal, () => {
      const nowMs = performance.now()
      if (received && nowMs - received.atMs > SAME_WISH_MS) process.exit(exitCodeFor(signal))
      received ??= { signal, atMs: nowMs }
      stop.abort(new DOMException(`ended by ${signal}`, 'AbortError'))
    })
  }
  return stop
}

/** 130 after Ctrl-C, 143 after SIGTERM; undefined when nobody interrupted. */
export function interruptedExitCode(): number | undefined {
  return received && exitCodeFor(received.signal)
}

function exitCodeFor(signal: (typeof SIGNALS)[number]): number {
  return 128 + constants.signals[signal]
}

/** `tower status | head` is no error: whoever reads us has read enough. */
export function endsOnPipeClosed(stream: Writable): void {
  stream.on('error', (error: NodeJS.ErrnoException) => {
    if (error.code !== 'EPIPE') throw error
    process.exit(0)
  })
}
