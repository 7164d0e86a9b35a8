/**
 * Links at work: an upstream per link and URL, whose every byte goes into the ledger under the
 * link and the window it was spent in, and a signal that ends what runs when the window does.
 */
import { setTimeout as sleep } from 'node:timers/promises'
import { EdgeError } from '../manifests/errors.ts'
import type { Abortable } from '../manifests/extent.ts'
import { openFileUpstream } from './file-upstream.ts'
import { openHttpUpstream, type Pace } from './http-upstream.ts'
import type { Ledger } from './ledger.ts'
import type { LinkSettings } from './link-settings.ts'
import { LinkChooser, probeLink, type LinkState } from './links.ts'
import { openPace, type LinkPace } from './pace.ts'
import type { StallRule } from './stall.ts'
import type { Upstream, WireRecord } from './upstream.ts'
import type { ContactWindow } from './windows.ts'

export interface LinksOptions {
  readonly links: readonly LinkSettings[]
  /** Repositories, best first; `file:` ones need no link. */
  readonly urls: readonly URL[]
  readonly ledger: Ledger
  readonly connectionsMax: number
  readonly now?: () => number
  readonly stall?: StallRule
  /** Holds transfers back beside each link's own pace. */
  readonly courtesy?: Pace
}

/** A window that is open on a link that is up. */
export interface OpenWindow extends Disposable {
  readonly link: string
  readonly window: ContactWindow
  /** Down and up, that may still be spent; Infinity without caps. */
  readonly bytesLeft: number
  readonly upstreams: readonly Upstream[]
  /** Aborts with `WINDOW_CLOSED` at the window's end, or as soon as its bytes are used up. */
  readonly signal: AbortSignal
  /** Ends it early. */
  close(why: string): void
}

export interface OpenLinks extends AsyncDisposable {
  /** Of the link that was chosen last; the first link's to begin with. */
  readonly upstreams: readonly Upstream[]
  states(): LinkState[]
  /** Probes every link whose window is open. */
  probe(options: Abortable): Promise<void>
  /** A window to work in, on the best link; undefined when there is none now. */
  open(): OpenWindow | undefined
  /** What would be chosen now: to leave a link for a better one. */
  best(): string | undefined
  /** The transfer failed because of the link, or went well. */
  report(link: string, isUp: boolean): void
  /** Bytes per second, as transfers went of late; what was set or is usual for a link nobody has used. */
  rateOf(link: string): number
  /** What may still be spent in a window, down and up. */
  bytesLeftIn(window: ContactWindow): number
}

/** 2 Mbit/s: of a link that nobody has used yet. */
const RATE_USUAL = 250_000
/** Records further apart than this had a rest between them. */
const REST_MS = 2000
/** About so much transfer time counts. */
const RATE_MEMORY_MS = 60_000

const PROBE_MS = 5000
/** How often a shared link's delay is measured while it is used, and for how many bytes at least (a handshake has 0.3 KB). */
const DELAY_LOOK_MS = 1000
const DELAY_LOOK_BYTES = 16 * 1024
/** setTimeout's longest. */
const TIMER_MS_MAX = 2 ** 31 - 1

export function openLinks(options: LinksOptions): OpenLinks {
  return new Links(options)
}

class Links implements OpenLinks {
  readonly #options: LinksOptions
  readonly #now: () => number
  readonly #chooser: LinkChooser
  readonly #lines: ReadonlyMap<string, Line>
  #chosen: string

  constructor(options: LinksOptions) {
    const { links, ledger, now = Date.now } = options
    this.#options = options
    this.#now = now
    this.#chosen = links[0]!.name
    this.#chooser = new LinkChooser(links, {
      inWindow: ({ id, link }) => (id === '' ? 0 : bytesOf(ledger.totals({ window: id, link }))),
      inMonth: (link, nowMs) => bytesOf(ledger.totals({ link, sinceMs: monthStart(nowMs) })),
    })
    this.#lines = new Map(links.map(link => [link.name, openLine(link, options, now)]))
  }

  get upstreams() {
    return this.#lines.get(this.#chosen)!.upstreams
  }

  states() {
    return this.#chooser.states(this.#now())
  }

  async probe(options: Abortable): Promise<void> {
    await Promise.all(
      this.states()
        .filter(({ window }) => window !== undefined)
        .map(async ({ link }) => {
          try {
            const ms = await this.#probeOne(link, options)
            this.#lines.get(link.name)!.pace.delayed(ms)
            this.report(link.name, true)
          } catch {
            options.signal.throwIfAborted()
            this.report(link.name, false)
          }
        }),
    )
  }

  open(): OpenWindow | undefined {
    const state = this.#chooser.choose(this.#now())
    if (!state) return undefined
    const { link, window, bytesLeft } = state
    this.#chosen = link.name
    const line = this.#lines.get(link.name)!
    const ended = new AbortController()
    const close = (why: string) => ended.abort(new EdgeError('WINDOW_CLOSED', why))
    let left = bytesLeft
    line.window = window.id
    const spent = (bytes: number) => {
      left -= bytes
      if (left <= 0) close(`${link.name}: the bytes of this window or month are used up`)
    }
    line.spenders.add(spent)
    const looking =
      link.shared && setInterval(() => void this.#lookAtDelay(line, link, ended.signal), DELAY_LOOK_MS)
    const endMs = window.endMs - this.#now()
    const timer =
      endMs < TIMER_MS_MAX
        ? setTimeout(() => close(`${link.name}: the window ${window.id} has ended`), endMs)
        : undefined
    return {
      link: link.name,
      window,
      bytesLeft,
      upstreams: line.upstreams,
      signal: ended.signal,
      close,
      [Symbol.dispose]() {
        clearTimeout(timer)
        if (looking) clearInterval(looking)
        line.spenders.delete(spent)
      },
    }
  }

  best(): string | undefined {
    return this.#chooser.choose(this.#now())?.link.name
  }

  report(link: string, isUp: boolean): void {
    this.#chooser.report(link, isUp, this.#now())
  }

  rateOf(link: string): number {
    const line = this.#lines.get(link)
    const limit = this.#options.links.find(({ name }) => name === link)?.bytesPerSecondMax ?? Infinity
    return Math.min(limit, line?.rate() ?? (limit === Infinity ? RATE_USUAL : limit))
  }

  bytesLeftIn(window: ContactWindow): number {
    const { ledger, links } = this.#options
    const month = links.find(({ name }) => name === window.link)?.bytesPerMonthMax ?? Infinity
    const inMonth =
      month === Infinity
        ? Infinity
        : month - bytesOf(ledger.totals({ link: window.link, sinceMs: monthStart(window.startMs) }))
    const inWindow = window.id === '' ? 0 : bytesOf(ledger.totals({ window: window.id, link: window.link }))
    return Math.max(0, Math.min(window.bytesMax - inWindow, inMonth))
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await Promise.all(
      [...this.#lines.values()].flatMap(({ upstreams }) =>
        upstreams.map(upstream => upstream[Symbol.asyncDispose]()),
      ),
    )
  }

  /** So that the rate follows within seconds: grows to what the link has, yields to whoever else needs it. */
  async #lookAtDelay(line: Line, link: LinkSettings, signal: AbortSignal): Promise<void> {
    const { pace } = line
    if (line.isLooking || pace.movedBytes < DELAY_LOOK_BYTES) return
    line.isLooking = true
    try {
      pace.delayed(await this.#probeOne(link, { signal }))
    } catch {
      // whether it is up is seen by its transfers
    } finally {
      line.isLooking = false
    }
  }

  /** A link is up when somebody at the other end answers. A folder is always there to be asked. */
  async #probeOne(link: LinkSettings, options: Abortable): Promise<number> {
    const urls = link.probeUrl ? [new URL(link.probeUrl)] : this.#options.urls
    if (urls.some(({ protocol }) => protocol === 'file:') || urls.length === 0) return 0
    const through = link.proxyUrl ? [new URL(link.proxyUrl)] : urls
    return await Promise.any(through.map(url => probeLink(url, link, PROBE_MS, options)))
  }
}

interface Line {
  readonly upstreams: readonly Upstream[]
  readonly pace: LinkPace
  /** The open window's id, for the ledger. */
  window: string
  /** Who counts what is spent: a fill, and who fetches on demand beside it. */
  readonly spenders: Set<(bytes: number) => void>
  /** A probe is under way. */
  isLooking: boolean
  /** Undefined before the first transfer. */
  rate(): number | undefined
}

function openLine(
  link: LinkSettings,
  { urls, ledger, connectionsMax, stall, courtesy }: LinksOptions,
  nowMs: () => number,
): Line {
  const pace = openPace({
    bytesPerSecondMax: link.bytesPerSecondMax ?? Infinity,
    shared: link.shared,
    nowMs,
    wait: (ms, signal) => sleep(ms, undefined, { signal }),
  })
  const busy = { bytes: 0, ms: 0, lastMs: -Infinity }
  const onWire = (source: () => string) => (record: WireRecord) => {
    const restMs = nowMs() - busy.lastMs
    if (restMs < REST_MS) {
      const kept = Math.max(0, 1 - restMs / RATE_MEMORY_MS)
      busy.bytes = busy.bytes * kept + record.bytesDown + record.bytesUp
      busy.ms = busy.ms * kept + restMs
    }
    busy.lastMs = nowMs()
    ledger.add({ ...record, link: link.name, window: line.window, source: source() })
    for (const spent of line.spenders) spent(record.bytesDown + record.bytesUp)
  }
  const upstreams = urls.map(url => {
    const upstream: Upstream =
      url.protocol === 'file:'
        ? openFileUpstream(
            url,
            onWire(() => upstream.name),
          )
        : openHttpUpstream(url, {
            onWire: onWire(() => upstream.name),
            connectionsMax,
            pace: courtesy ? inTurn(pace, courtesy) : pace,
            ...(link.localAddress ? { localAddress: link.localAddress } : {}),
            ...(link.proxyUrl ? { proxyUrl: link.proxyUrl } : {}),
            ...(stall ? { stall } : {}),
          })
    return upstream
  })
  const rate = () => (busy.ms > 100 ? (busy.bytes * 1000) / busy.ms : undefined)
  const line: Line = { upstreams, pace, window: '', spenders: new Set(), isLooking: false, rate }
  return line
}

function inTurn(first: LinkPace, second: Pace): Pace {
  return {
    get flow() {
      return first.flow
    },
    async spend(bytes, signal) {
      await first.spend(bytes, signal)
      await second.spend(bytes, signal)
    },
  }
}

function bytesOf({ bytesDown, bytesUp }: { readonly bytesDown: number; readonly bytesUp: number }): number {
  return bytesDown + bytesUp
}

function monthStart(nowMs: number): number {
  const now = new Date(nowMs)
  return Date.UTC(now.getUTCFullYear(), now.getUTCMonth())
}
