/**
 * A pin target behind a breaker: opened when first needed, opened again after a failure (a server
 * that was emptied lacks its bucket), and left alone for a while after three failures in a row, so
 * that a heal does not wait for a server that is known to be away (I6).
 */
import { BrokenCircuitError, circuitBreaker, CircuitState, ConsecutiveBreaker, handleWhen } from 'cockatiel'
import { EdgeError, isEdgeError } from '../manifests/errors.ts'
import type { Abortable } from '../manifests/extent.ts'
import type { PinTarget } from './pin-target.ts'

const FAILURES_MAX = 3
const REST_MS = 5000

export interface GuardedTarget {
  readonly name: string
  readonly kind: 'ipfs' | 's3'
  /** False while the breaker is open: calls fail at once. */
  readonly isUp: boolean
  /** @throws EdgeError `PIN_TARGET_DOWN`, at once while the breaker is open; whatever the call throws. */
  use<T>(call: (target: PinTarget) => Promise<T>, options: Abortable): Promise<T>
}

export function guardedTarget(
  { name, kind }: Pick<GuardedTarget, 'name' | 'kind'>,
  open: (options: Abortable) => Promise<PinTarget>,
): GuardedTarget {
  const breaker = circuitBreaker(
    handleWhen(error => isEdgeError(error, 'PIN_TARGET_DOWN')),
    { halfOpenAfter: REST_MS, breaker: new ConsecutiveBreaker(FAILURES_MAX) },
  )
  let opened: Promise<PinTarget> | undefined

  return {
    name,
    kind,
    get isUp() {
      return breaker.state !== CircuitState.Open
    },
    async use(call, options) {
      try {
        return await breaker.execute(async () => {
          opened ??= open(options)
          const mine = opened
          try {
            return await call(await mine)
          } catch (error) {
            if (isEdgeError(error, 'PIN_TARGET_DOWN') || options.signal.aborted) {
              if (opened === mine) opened = undefined
            }
            throw error
          }
        })
      } catch (error) {
        if (!(error instanceof BrokenCircuitError)) throw error
        throw new EdgeError(
          'PIN_TARGET_DOWN',
          `${name} failed ${FAILURES_MAX} times in a row: it rests for a while`,
        )
      }
    },
  }
}
