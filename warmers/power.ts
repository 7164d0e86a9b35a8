/**
 * What to leave undone as the battery empties; serving is never on the list.
 *
 * `planShedding` is pure, with hysteresis: a thing that was shed comes back when the charge is 5
 * points above where it left, or the mains are back. `readPower` reads what Linux says. A machine
 * without a battery, or one that says nothing, sheds nothing.
 */
import { readdir, readFile } from 'node:fs/promises'
import { join } from 'node:path'

export interface PowerState {
  /** Whether mains, solar or USB supply it now; undefined when nothing says so. */
  readonly mains: boolean | undefined
  /** Charge of the emptiest battery, 0 to 100; undefined without one. */
  readonly percent: number | undefined
}

/** In the order in which they go. */
export const LADDER = [
  { what: 'scrub', belowPercent: 60 },
  { what: 'renditions', belowPercent: 50 },
  { what: 'warmP3', belowPercent: 45 },
  { what: 'warmP2', belowPercent: 35 },
  { what: 'warmP1', belowPercent: 25 },
  { what: 'pinning', belowPercent: 20 },
  { what: 'warmP0', belowPercent: 12 },
] as const

export type Sheddable = (typeof LADDER)[number]['what']

const HYSTERESIS_PERCENT = 5

/** @param before what was shed until now. */
export function planShedding(
  { mains, percent }: PowerState,
  before: ReadonlySet<Sheddable>,
): ReadonlySet<Sheddable> {
  if (mains || percent === undefined) return new Set()
  return new Set(
    LADDER.filter(
      ({ what, belowPercent }) => percent < belowPercent + (before.has(what) ? HYSTERESIS_PERCENT : 0),
    ).map(({ what }) => what),
  )
}

/** The lowest class (largest number) that may be warmed; −1 for none. */
export function priorityAllowed(shed: ReadonlySet<Sheddable>): -1 | 0 | 1 | 2 | 3 {
  if (shed.has('warmP0')) return -1
  if (shed.has('warmP1')) return 0
  if (shed.has('warmP2')) return 1
  return shed.has('warmP3') ? 2 : 3
}

/** @param folder `/sys/class/power_supply`, or one like it. */
export async function readPower(folder: string): Promise<PowerState> {
  const names = await readdir(folder).catch(() => [])
  const supplies = await Promise.all(names.map(name => readSupply(join(folder, name))))
  const chargers = supplies.filter(({ type }) => type !== 'Battery' && type !== undefined)
  const batteries = supplies.filter(({ type, scope }) => type === 'Battery' && scope !== 'Device')
  const charges = batteries.map(({ percent }) => percent).filter(percent => percent !== undefined)
  const isCharging = batteries.some(({ status }) => status === 'Charging' || status === 'Full')
  const isOnline = chargers.some(({ online }) => online === '1')
  return {
    mains: chargers.length + batteries.length === 0 ? undefined : isOnline || isCharging,
    percent: charges.length > 0 ? Math.min(...charges) : undefined,
  }
}

async function readSupply(folder: string) {
  const read = (name: string) =>
    readFile(join(folder, name), 'utf8').then(
      text => text.trim(),
      () => undefined,
    )
  const [type, scope, capacity, status, online] = await Promise.all(
    ['type', 'scope', 'capacity', 'status', 'online'].map(read),
  )
  const percent =
    capacity !== undefined && /^\d{1,3}$/.test(capacity) ? Math.min(Number(capacity), 100) : undefined
  return { type, scope, percent, status, online }
}
