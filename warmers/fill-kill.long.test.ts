import { it } from 'vitest'
import { killFills } from './kill-fills.ts'

it('a fill killed with -9 at 50 moments: nothing wrong, at most 256 KiB per connection fetched twice', async () => {
  const { wastedBytes } = await killFills(7, 50, 100 * 1024 * 1024, 8)
  console.log(JSON.stringify({ kills: 50, wastedBytes, perKill: Math.round(wastedBytes / 50) }))
}, 600_000)
