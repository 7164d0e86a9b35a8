/**
 * Progress on stderr: on a terminal one bar that is drawn again and again, elsewhere a line now and
 * then, with `--json` nothing. Results go to stdout and are never mixed with it.
 */
import type { WriteStream } from 'node:tty'
import { formatByteSize } from '../byte-size.ts'

export interface Bar {
  readonly label: string
  readonly doneBytes: number
  /** Absent while nobody knows. */
  readonly totalBytes?: number
  /** What is at work, at the end of the line. */
  readonly detail?: string
}

export interface Progress extends Disposable {
  show(bar: Bar): void
  /** A line that stays, above the bar. */
  note(text: string): void
}

interface Screen extends Pick<WriteStream, 'write'> {
  readonly isTTY?: boolean
  readonly columns?: number
}

const DRAW_MS = 100
const LINE_MS = 10_000
const CLEAR_LINE = '\r\u001B[K'
const BAR_CELLS = 24

export function openProgress(options: {
  readonly json: boolean | undefined
  readonly screen?: Screen
  readonly now?: () => number
}): Progress {
  const { json, screen = process.stderr, now = () => performance.now() } = options
  if (json) return { show() {}, note() {}, [Symbol.dispose]() {} }
  return screen.isTTY ? openBar(screen, now) : openLines(screen, now)
}

function openBar(screen: Screen, now: () => number): Progress {
  const rate = openRate(now)
  let bar: Bar | undefined
  let drawnMs = -Infinity
  const draw = () => {
    if (bar) screen.write(CLEAR_LINE + barLine(bar, rate.of(bar)).slice(0, (screen.columns ?? 80) - 1))
    drawnMs = now()
  }
  const finish = () => {
    if (!bar) return
    draw()
    screen.write('\n')
    bar = undefined
  }
  return {
    show(next) {
      if (bar && bar.label !== next.label) finish()
      bar = next
      if (now() - drawnMs >= DRAW_MS) draw()
    },
    note(text) {
      screen.write(`${CLEAR_LINE}${text}\n`)
      draw()
    },
    [Symbol.dispose]: finish,
  }
}

/** What is over within ten seconds leaves no line. */
function openLines(screen: Screen, now: () => number): Progress {
  const rate = openRate(now)
  let bar: Bar | undefined
  let sinceMs = now()
  let isLong = false
  const write = () => {
    if (bar) screen.write(`${barLine(bar, rate.of(bar))}\n`)
    sinceMs = now()
    isLong = true
  }
  const finish = () => {
    if (isLong) write()
    isLong = false
    bar = undefined
  }
  return {
    show(next) {
      if (bar?.label !== next.label) {
        finish()
        sinceMs = now()
      }
      bar = next
      rate.of(next)
      if (now() - sinceMs >= LINE_MS) write()
    },
    note(text) {
      screen.write(`${text}\n`)
    },
    [Symbol.dispose]: finish,
  }
}

/** Bytes per second since the label was first shown. */
function openRate(now: () => number): { of(bar: Bar): number } {
  let since: { label: string; doneBytes: number; atMs: number } | undefined
  return {
    of({ label, doneBytes }) {
      if (since?.label !== label) since = { label, doneBytes, atMs: now() }
      const elapsedMs = now() - since.atMs
      return elapsedMs > 0 ? ((doneBytes - since.doneBytes) * 1000) / elapsedMs : 0
    },
  }
}

/** `fill  ━━━━━━────  48 %  12.0 of 25.0 MiB  3.10 MiB/s  4 s  education/optics` */
export function barLine({ label, doneBytes, totalBytes, detail = '' }: Bar, bytesPerSecond: number): string {
  const parts = [label]
  if (totalBytes === undefined) {
    parts.push(formatByteSize(doneBytes))
  } else {
    const share = totalBytes > 0 ? Math.min(doneBytes / totalBytes, 1) : 1
    const cells = Math.floor(share * BAR_CELLS)
    parts.push(`${'━'.repeat(cells)}${'─'.repeat(BAR_CELLS - cells)}`, `${Math.floor(share * 100)} %`)
    parts.push(`${formatByteSize(doneBytes)} of ${formatByteSize(totalBytes)}`)
  }
  if (bytesPerSecond > 0) {
    parts.push(`${formatByteSize(bytesPerSecond)}/s`)
    if (totalBytes !== undefined && totalBytes > doneBytes) {
      parts.push(durationText((totalBytes - doneBytes) / bytesPerSecond))
    }
  }
  return [...parts, detail].filter(Boolean).join('  ')
}

function durationText(seconds: number): string {
  if (seconds < 90) return `${Math.ceil(seconds)} s`
  if (seconds < 90 * 60) return `${Math.round(seconds / 60)} min`
  return `${Math.round(seconds / 3600)} h`
}
