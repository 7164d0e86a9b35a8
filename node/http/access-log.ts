/**
 * The access log: sampled, and silent about who asked (T9).
 *
 * Health content is read here, so an address is cut to its network before anything sees it: /16
 * for IPv4, /32 for IPv6, which still tells a flood from a classroom. Paths are logged for failures
 * of ours only (5xx), never for what somebody successfully read.
 */
import type { IncomingMessage } from 'node:http'
import type { Logger } from 'pino'
import type { AnswerSource } from './item-headers.ts'

export interface AccessLogOptions {
  /** One answer in this many is logged; failures of ours always, at most `failuresPerSecond`. */
  readonly oneIn: number
  readonly failuresPerSecond: number
}

export class AccessLog {
  readonly #log: Logger
  readonly #options: AccessLogOptions
  #count = 0
  #second = 0
  #failures = 0

  constructor(log: Logger, options: AccessLogOptions = { oneIn: 1_000, failuresPerSecond: 10 }) {
    this.#log = log
    this.#options = options
  }

  answered(req: IncomingMessage, status: number, source: AnswerSource, bytes: number, seconds: number): void {
    const failed = status >= 500
    if (!failed && ++this.#count < this.#options.oneIn) return
    if (failed && !this.#mayLogFailure()) return
    if (!failed) this.#count = 0
    this.#log.info(
      {
        method: req.method,
        status,
        source,
        bytes,
        ms: Math.round(seconds * 10_000) / 10,
        network: networkOf(req.socket.remoteAddress),
        ...(failed ? { path: (req.url ?? '').split('?', 1)[0]?.slice(0, 300) } : {}),
      },
      'answered',
    )
  }

  #mayLogFailure(): boolean {
    const second = Math.floor(performance.now() / 1000)
    if (second !== this.#second) {
      this.#second = second
      this.#failures = 0
    }
    return ++this.#failures <= this.#options.failuresPerSecond
  }
}

/** `192.168.0.0/16`, `2001:db8::/32`; loopback as it is. */
export function networkOf(address: string | undefined): string {
  if (address === undefined) return 'unknown'
  const plain = address.startsWith('::ffff:') ? address.slice(7) : address
  if (plain === '127.0.0.1' || plain === '::1') return 'loopback'
  if (plain.includes('.')) return `${plain.split('.', 2).join('.')}.0.0/16`
  const [first = '', second = ''] = plain.split(':')
  return `${first}:${second || '0'}::/32`
}
