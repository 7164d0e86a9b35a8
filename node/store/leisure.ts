/**
 * For work that nobody waits for, in pieces of about a millisecond: it takes a fifth of the time, so
 * that a plan, a fill or a reader beside it is done nearly as soon as without it.
 */
import { setImmediate as nextTurn, setTimeout as sleep } from 'node:timers/promises'

const WORK_MS = 2
const REST_SHARE = 4
const REST_MS_MAX = 50

/** @returns to be awaited after each piece. */
export function atLeisure(): () => Promise<void> {
  let sinceMs = performance.now()
  return async () => {
    const tookMs = performance.now() - sinceMs
    if (tookMs < WORK_MS) return await nextTurn()
    await sleep(Math.min(tookMs * REST_SHARE, REST_MS_MAX))
    sinceMs = performance.now()
  }
}
