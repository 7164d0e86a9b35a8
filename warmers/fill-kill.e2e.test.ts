import { expect, it } from 'vitest'
import { killFills } from './kill-fills.ts'

it('a fill killed with -9 goes on where it was: nothing wrong, little fetched twice', async () => {
  const { wastedBytes } = await killFills(1, 3, 6 * 1024 * 1024, 1)
  // the plan counts the headers of answers, too, so nothing wasted is a little below nothing
  expect(wastedBytes).toBeGreaterThan(-20_000)
}, 60_000)
