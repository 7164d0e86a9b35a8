/**
 * What the battery lets the node do beside serving, looked at for as long as it runs: a tower without
 * a link scrubs and pins, too.
 */
import { setTimeout as sleep } from 'node:timers/promises'
import type { Abortable } from '../manifests/extent.ts'
import { planShedding, type PowerState, type Sheddable } from './power.ts'

const LOOK_MS = 15_000

export interface Shedding {
  allows(what: Sheddable): boolean
  /** Once, now. */
  look(): Promise<void>
  /** Until the signal aborts. */
  run(options: Abortable): Promise<void>
}

export function openShedding(readPower: () => Promise<PowerState>, lookMs = LOOK_MS): Shedding {
  let shed: ReadonlySet<Sheddable> = new Set()
  const look = async () => {
    shed = planShedding(await readPower(), shed)
  }
  return {
    allows: what => !shed.has(what),
    look,
    async run({ signal }) {
      while (!signal.aborted) {
        await look()
        await sleep(lookMs, undefined, { signal }).catch(() => undefined)
      }
    },
  }
}
