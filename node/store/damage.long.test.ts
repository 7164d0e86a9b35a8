import { expect, it } from 'vitest'
import { flipRounds } from './testing-damage.ts'

it('one flipped bit anywhere in the store is never served: 2,000 places', async () => {
  const refused = await flipRounds(2000, 'long', (outcomes, where) =>
    expect(outcomes, where).not.toContain('wrong'),
  )
  expect(refused.filter(count => count > 10).length).toBeLessThan(200)
})
