import { expect, it } from 'vitest'
import { killRounds } from './testing-kills.ts'

it('a writer killed with -9 at any moment loses nothing that was acknowledged and pinned', {
  timeout: 120_000,
}, async () => {
  const { acknowledged, lost, wrong, openMsMax } = await killRounds(5, 600)
  expect({ lost, wrong }).toEqual({ lost: 0, wrong: 0 })
  expect(acknowledged).toBeGreaterThan(20)
  expect(openMsMax).toBeLessThan(1000)
})
