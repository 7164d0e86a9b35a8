/**
 * Proves the store again and again while the node serves, slowly enough that nobody notices: at the
 * rate that brings every byte round in half the days promised. Damage is healed as it is found.
 * Stops while the battery is low; where it was is remembered by the store.
 */
import { setTimeout as sleep } from 'node:timers/promises'
import type { Abortable } from '../manifests/extent.ts'
import type { ContentStore } from './store/store.ts'

export interface ScrubReport {
  readonly state: 'running' | 'resting' | 'battery is low'
  /** Every byte is proven within so many days. */
  readonly days: number
  readonly bytesPerSecond: number
  /** Of the round under way, or of the last one. */
  readonly extents: number
  readonly extentsTotal: number
  readonly bytes: number
  /** Since the start. */
  readonly rounds: number
  readonly damaged: number
  readonly healed: number
  /** The oldest proof of anything that is here; ISO 8601, null when something was never proven. */
  readonly verifiedSince: string | null
}

export interface ScrubbingParts {
  readonly store: Pick<ContentStore, 'verify' | 'usage' | 'settled'>
  readonly days: number
  readonly isAllowed: () => boolean
  /** Between two rounds; a small store does not spin. */
  readonly restMs?: number
  readonly lookMs?: number
}

const REST_MS = 3600_000
const LOOK_MS = 15_000
const DAY_SECONDS = 86_400
const RATE_MIN = 1024 * 1024

export class Scrubbing {
  readonly #parts: ScrubbingParts
  #state: ScrubReport['state'] = 'resting'
  #bytesPerSecond = 0
  #round = { extents: 0, extentsTotal: 0, bytes: 0 }
  #rounds = 0
  #damaged = 0
  #healed = 0

  constructor(parts: ScrubbingParts) {
    this.#parts = parts
  }

  get report(): ScrubReport {
    const { verifiedSince } = this.#parts.store.usage()
    return {
      state: this.#state,
      days: this.#parts.days,
      bytesPerSecond: this.#bytesPerSecond,
      ...this.#round,
      rounds: this.#rounds,
      damaged: this.#damaged,
      healed: this.#healed,
      verifiedSince: verifiedSince === undefined ? null : new Date(verifiedSince).toISOString(),
    }
  }

  /** Returns when the signal aborts. */
  async run({ signal }: Abortable): Promise<void> {
    const { store, isAllowed, restMs = REST_MS, lookMs = LOOK_MS } = this.#parts
    await store.settled()
    while (!signal.aborted) {
      if (!isAllowed()) {
        this.#state = 'battery is low'
        await pause(lookMs, signal)
        continue
      }
      this.#state = 'running'
      const ended = await this.#roundUntil(signal)
      if (!ended) continue
      this.#rounds++
      this.#state = 'resting'
      await pause(restMs, signal)
    }
  }

  /** @returns whether the round came to its end. */
  async #roundUntil(signal: AbortSignal): Promise<boolean> {
    const { store, days, isAllowed } = this.#parts
    const stop = new AbortController()
    const { hotBytes, warmBytes } = store.usage()
    this.#bytesPerSecond = Math.max(RATE_MIN, Math.ceil((hotBytes + warmBytes) / ((days * DAY_SECONDS) / 2)))
    let before = { damaged: 0, healed: 0 }
    const options = { heal: true, rateBytesPerSecond: this.#bytesPerSecond }
    for await (const progress of store.verify({
      ...options,
      signal: AbortSignal.any([signal, stop.signal]),
    })) {
      const { extents, extentsTotal, bytes, damaged, healed } = progress
      this.#round = { extents, extentsTotal, bytes }
      this.#damaged += damaged - before.damaged
      this.#healed += healed - before.healed
      before = { damaged, healed }
      if (!isAllowed()) stop.abort()
    }
    return !signal.aborted && !stop.signal.aborted
  }
}

async function pause(ms: number, signal: AbortSignal): Promise<void> {
  await sleep(ms, undefined, { signal }).catch(() => undefined)
}
