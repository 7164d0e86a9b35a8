import { mkdir, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { LADDER, planShedding, priorityAllowed, readPower, type Sheddable } from './power.ts'
import { temporaryFolder } from './testing.ts'

const none: ReadonlySet<Sheddable> = new Set()
const onBattery = (percent: number) => ({ mains: false, percent })

describe('the ladder', () => {
  it('sheds in order, and the more the emptier', () => {
    const sizes = Array.from({ length: 101 }, (_, percent) => planShedding(onBattery(percent), none).size)
    expect(sizes).toEqual(sizes.toSorted((a, b) => b - a))
    expect(sizes[0]).toBe(LADDER.length)
    expect(sizes[100]).toBe(0)
  })

  it('stops all fills at 10 %, and keeps P0 at 15 %', () => {
    expect(priorityAllowed(planShedding(onBattery(10), none))).toBe(-1)
    expect(priorityAllowed(planShedding(onBattery(15), none))).toBe(0)
    expect(priorityAllowed(planShedding(onBattery(40), none))).toBe(2)
    expect(priorityAllowed(none)).toBe(3)
  })

  it('does not flutter: a change of less than 5 points up brings nothing back', () => {
    fc.assert(
      fc.property(fc.nat(100), fc.nat(4), (percent, up) => {
        const shed = planShedding(onBattery(percent), none)
        expect(planShedding(onBattery(Math.min(100, percent + up)), shed).isSupersetOf(shed)).toBe(true)
      }),
    )
  })

  it('sheds nothing on mains, or when nobody knows', () => {
    expect(planShedding({ mains: true, percent: 3 }, new Set(['warmP0'])).size).toBe(0)
    expect(planShedding({ mains: undefined, percent: undefined }, none).size).toBe(0)
  })
})

describe('reading power supplies', () => {
  async function folderWith(supplies: Record<string, Record<string, string>>) {
    const folder = await temporaryFolder()
    for (const [name, files] of Object.entries(supplies)) {
      await mkdir(join(folder.path, name))
      for (const [file, text] of Object.entries(files))
        await writeFile(join(folder.path, name, file), `${text}\n`)
    }
    return folder
  }

  it('takes the emptiest battery, and not that of a mouse', async () => {
    await using folder = await folderWith({
      AC: { type: 'Mains', online: '0' },
      BAT0: { type: 'Battery', capacity: '80', status: 'Discharging' },
      BAT1: { type: 'Battery', capacity: '31', status: 'Discharging' },
      mouse: { type: 'Battery', capacity: '5', scope: 'Device' },
    })
    expect(await readPower(folder.path)).toEqual({ mains: false, percent: 31 })
  })

  it('knows mains by its supply or by a battery that charges', async () => {
    await using supply = await folderWith({
      AC: { type: 'Mains', online: '1' },
      B: { type: 'Battery', capacity: '8', status: 'Discharging' },
    })
    await using solar = await folderWith({ B: { type: 'Battery', capacity: '8', status: 'Charging' } })
    expect([await readPower(supply.path), await readPower(solar.path)].map(({ mains }) => mains)).toEqual([
      true,
      true,
    ])
  })

  it('says that it does not know', async () => {
    await using empty = await folderWith({})
    await using odd = await folderWith({ B: { type: 'Battery', capacity: 'lots' } })
    expect(await readPower(empty.path)).toEqual({ mains: undefined, percent: undefined })
    expect(await readPower('/nowhere')).toEqual({ mains: undefined, percent: undefined })
    expect((await readPower(odd.path)).percent).toBeUndefined()
  })
})
