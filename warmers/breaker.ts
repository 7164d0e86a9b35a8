/**
 * A breaker per upstream: one that failed three times in a row, or lied once, is asked last for a
 * while, which doubles each time. It is never left out altogether: the last resort stays one. A folder
 * that lacks a file is not ill: asking it costs nothing.
 */
import type { Upstream } from './upstream.ts'

const FAILURES_MAX = 3
const PAUSE_MS = 15_000
const PAUSE_MS_MAX = 600_000

interface Health {
  failures: number
  pauseMs: number
  until: number
}

const HEALTH = new WeakMap<Upstream, Health>()

/** Those that work first, each group in its own order. */
export function byHealth(upstreams: readonly Upstream[]): Upstream[] {
  const now = performance.now()
  const isResting = (upstream: Upstream) => (HEALTH.get(placeOf(upstream))?.until ?? 0) > now
  return upstreams.toSorted((a, b) => Number(isResting(a)) - Number(isResting(b)))
}

export function reportUpstream(upstream: Upstream, what: 'served' | 'failed' | 'lied'): void {
  const place = placeOf(upstream)
  const health = HEALTH.get(place) ?? { failures: 0, pauseMs: PAUSE_MS, until: 0 }
  HEALTH.set(place, health)
  if (what === 'served') {
    health.failures = 0
    health.pauseMs = PAUSE_MS
    return
  }
  if (what === 'failed' && place.cost.downBytes === 0) return
  health.failures++
  if (what === 'failed' && health.failures < FAILURES_MAX) return
  health.failures = 0
  health.until = performance.now() + health.pauseMs
  health.pauseMs = Math.min(health.pauseMs * 2, PAUSE_MS_MAX)
}

function placeOf(upstream: Upstream): Upstream {
  return upstream.base ? placeOf(upstream.base) : upstream
}
