/**
 * How to ask, on a link as bad as it happens to be.
 *
 * One TCP stream dies at heavy loss: at 50 % each way it gives 0.16 KiB/s and then nothing, while many
 * short requests that are given up early still get 11 KiB/s (measured with netem-like loss by nftables). So when requests
 * stall, they become smaller, more at once, and are left sooner; when none stalls for a while, they
 * become larger again. Pure: outcomes and the time are handed in.
 */
export interface Tuning {
  /** Connections at once. */
  readonly connections: number
  /** At most so much per request. */
  readonly pieceBytes: number
  /** Without a single byte for so long a request is given up. */
  readonly silenceMs: number
  readonly connectMs: number
}

const KIB = 1024
/** From a good link to one that loses every other packet. The first is as configured. */
const LEVELS: readonly Tuning[] = [
  { connections: 0, pieceBytes: Infinity, silenceMs: 10_000, connectMs: 10_000 },
  { connections: 24, pieceBytes: 32 * KIB, silenceMs: 6000, connectMs: 4000 },
  { connections: 64, pieceBytes: 8 * KIB, silenceMs: 4000, connectMs: 2500 },
]
/** Outcomes that are looked at. */
const MEMORY_MS = 20_000
const OUTCOMES_MAX = 200
const STALLS_MIN = 3
const STALLED_SHARE = 0.2
/** Calm for so long, and it is tried with larger requests; longer each time that was wrong. */
const CALM_MS = 45_000
const CALM_MS_MAX = 600_000

export class Tuner {
  readonly #connections: number
  readonly #now: () => number
  #level = 0
  #since: number
  #calmMs = CALM_MS
  readonly #outcomes: { readonly atMs: number; readonly stalled: boolean }[] = []

  constructor(connections: number, now: () => number = () => performance.now()) {
    this.#connections = connections
    this.#now = now
    this.#since = now()
  }

  get tuning(): Tuning {
    const level = LEVELS[this.#level]!
    return { ...level, connections: Math.max(level.connections, this.#connections) }
  }

  /** A request ended: with all it asked for, or because nothing came any more. */
  ended(stalled: boolean): void {
    const now = this.#now()
    this.#outcomes.push({ atMs: now, stalled })
    while (this.#outcomes.length > OUTCOMES_MAX || this.#outcomes[0]!.atMs <= now - MEMORY_MS)
      this.#outcomes.shift()
    if (this.#level === 0 && !stalled) return
    const recent = this.#outcomes.filter(({ atMs }) => atMs >= this.#since)
    const stalls = recent.filter(outcome => outcome.stalled).length
    if (stalls >= STALLS_MIN && stalls > recent.length * STALLED_SHARE) {
      if (this.#level < LEVELS.length - 1) this.#move(1, now)
      else this.#since = now
    } else if (this.#level > 0 && stalls === 0 && now - this.#since > this.#calmMs) {
      this.#move(-1, now)
      this.#calmMs = Math.min(this.#calmMs * 2, CALM_MS_MAX)
    } else if (stalls > 0 && this.#level > 0 && stalls > recent.length * 0.02)
      this.#since = Math.max(this.#since, now - MEMORY_MS)
  }

  #move(by: 1 | -1, now: number): void {
    this.#level += by
    this.#since = now
  }
}
