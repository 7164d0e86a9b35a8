import { expect, it } from 'vitest'
import { killRounds } from './testing-kills.ts'

it('1,000 kills lose nothing that was acknowledged and pinned', { timeout: 60 * 60_000 }, async () => {
  const { lost, wrong, openMsMax } = await killRounds(1000, 500)
  expect({ lost, wrong }).toEqual({ lost: 0, wrong: 0 })
  expect(openMsMax).toBeLessThan(3000)
})
