/**
 * Which link to use: the cheapest of those that are up, in a window, and within their caps.
 *
 * The chooser is pure: probes' results, time and what was spent are handed in. It leaves a link at
 * its second failure in a row and comes back to a better one only after that has been up for a
 * minute, so that a link that comes and goes does not take the fill with it each time.
 */
import { connect } from 'node:net'
import type { Abortable } from '../manifests/extent.ts'
import type { LinkSettings } from './link-settings.ts'
import { windowAt, type ContactWindow } from './windows.ts'

export interface LinkState {
  readonly link: LinkSettings
  readonly up: boolean
  /** Since when it has been up, or down; ms since 1970. */
  readonly sinceMs: number
  readonly window: ContactWindow | undefined
  /** Down and up, that may still be spent in this window; Infinity without caps. */
  readonly bytesLeft: number
  readonly usable: boolean
  /** Why not, for people. */
  readonly why: string
}

/** Bytes down and up. */
export interface Spent {
  inWindow(window: ContactWindow): number
  inMonth(link: string, nowMs: number): number
}

const FAILURES_MAX = 2
export const RETURN_MS = 60_000

export class LinkChooser {
  readonly #links: readonly LinkSettings[]
  readonly #spent: Spent
  readonly #health = new Map<string, { up: boolean; sinceMs: number; failures: number }>()
  #chosen: string | undefined

  constructor(links: readonly LinkSettings[], spent: Spent) {
    this.#links = links
    this.#spent = spent
  }

  /** A probe or a transfer succeeded, or failed because of the link. */
  report(link: string, isUp: boolean, nowMs: number): void {
    const known = this.#health.get(link)
    const failures = isUp ? 0 : (known?.failures ?? 0) + 1
    const up = isUp || (known?.up === true && failures < FAILURES_MAX)
    this.#health.set(link, { up, failures, sinceMs: known && known.up === up ? known.sinceMs : nowMs })
  }

  states(nowMs: number): LinkState[] {
    return this.#links.map(link => {
      const health = this.#health.get(link.name) ?? { up: false, sinceMs: nowMs, failures: 0 }
      const window = windowAt(link, nowMs)
      const inWindow = window ? window.bytesMax - this.#spent.inWindow(window) : 0
      const inMonth =
        link.bytesPerMonthMax === undefined
          ? Infinity
          : link.bytesPerMonthMax - this.#spent.inMonth(link.name, nowMs)
      const bytesLeft = Math.max(0, Math.min(inWindow, inMonth))
      const why = !window
        ? 'outside its windows'
        : !health.up
          ? 'does not answer'
          : inWindow <= 0
            ? "the window's bytes are used up"
            : inMonth <= 0
              ? "the month's bytes are used up"
              : ''
      return { link, up: health.up, sinceMs: health.sinceMs, window, bytesLeft, usable: why === '', why }
    })
  }

  /** The link to use from now on; the same as before unless there is a reason. */
  choose(nowMs: number): (LinkState & { readonly window: ContactWindow }) | undefined {
    const usable = this.states(nowMs).filter(state => state.usable)
    const before = usable.find(({ link }) => link.name === this.#chosen)
    const better = usable.filter(
      ({ link, sinceMs }) =>
        !before || (link.costPerGiB < before.link.costPerGiB && nowMs - sinceMs >= RETURN_MS),
    )
    const best = better.reduce(
      (found, state) => (state.link.costPerGiB < found.link.costPerGiB ? state : found),
      before ?? better[0]!,
    )
    this.#chosen = best?.link.name
    return best as (LinkState & { window: ContactWindow }) | undefined
  }
}

/**
 * Milliseconds until the host accepts a connection by this link: costs no payload at all.
 * @throws the socket's error; when it takes longer than `timeoutMs`
 */
export async function probeLink(
  url: URL,
  { localAddress }: Pick<LinkSettings, 'localAddress'>,
  timeoutMs: number,
  { signal }: Abortable,
): Promise<number> {
  signal.throwIfAborted()
  const port = Number(url.port) || (url.protocol === 'https:' ? 443 : 80)
  const { promise, resolve, reject } = Promise.withResolvers<void>()
  const since = performance.now()
  const socket = connect({
    host: url.hostname.replace(/^\[|\]$/g, ''),
    port,
    ...(localAddress ? { localAddress } : {}),
  })
  const timer = setTimeout(() => reject(new Error(`no answer in ${timeoutMs} ms`)), timeoutMs)
  const abort = () => reject(signal.reason as Error)
  signal.addEventListener('abort', abort, { once: true })
  socket.once('connect', resolve).once('error', reject)
  try {
    await promise
    return performance.now() - since
  } finally {
    clearTimeout(timer)
    signal.removeEventListener('abort', abort)
    socket.on('error', () => undefined).destroy()
  }
}
