import { mkdir, mkdtempDisposable, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { expect, it, vi } from 'vitest'
import { readPower } from './power.ts'
import { openShedding } from './shedding.ts'

const WAIT = { timeout: 10_000 }

it('follows the battery down and up again', async () => {
  await using folder = await mkdtempDisposable(join(tmpdir(), 'towerlight-power-'))
  await mkdir(join(folder.path, 'BAT0'))
  const set = (name: string, text: string) => writeFile(join(folder.path, 'BAT0', name), `${text}\n`)
  await Promise.all([set('type', 'Battery'), set('status', 'Discharging'), set('capacity', '15')])
  const stop = new AbortController()
  const shedding = openShedding(() => readPower(folder.path), 2)
  expect(shedding.allows('pinning')).toBe(true) // nothing is known yet
  const running = shedding.run(stop)
  await vi.waitUntil(() => !shedding.allows('pinning') && !shedding.allows('scrub'), WAIT)
  expect(shedding.allows('warmP0')).toBe(true)
  await set('capacity', '30')
  await vi.waitUntil(() => shedding.allows('pinning'), WAIT)
  expect(shedding.allows('scrub')).toBe(false)
  await set('status', 'Charging')
  await vi.waitUntil(() => shedding.allows('scrub'), WAIT)
  stop.abort()
  await running
})
