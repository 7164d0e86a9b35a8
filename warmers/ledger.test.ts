import { join } from 'node:path'
import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { openLedger } from './ledger.ts'
import { temporaryFolder } from './testing.ts'

const row = {
  link: 'fibre',
  window: '',
  dataset: 'health/who',
  source: 'http://o',
  reason: 'frame',
  bytesDown: 10,
  bytesUp: 1,
  requests: 1,
}

describe('the ledger', () => {
  it('adds up to what was told, however it is grouped', () => {
    const text = fc.constantFrom('a', 'b', 'c')
    const some = fc.array(
      fc.record({
        link: text,
        window: text,
        dataset: text,
        source: text,
        reason: text,
        bytesDown: fc.nat(),
        bytesUp: fc.nat(),
        requests: fc.nat(9),
        at: fc.nat(1e8),
      }),
    )
    fc.assert(
      fc.property(some, rows => {
        let now = 0
        using ledger = openLedger(':memory:', () => now)
        for (const { at, ...record } of rows) {
          now = at
          ledger.add(record)
        }
        const bytesDown = rows.reduce((sum, { bytesDown }) => sum + bytesDown, 0)
        expect(ledger.totals().bytesDown).toBe(bytesDown)
        for (const field of ['link', 'window', 'dataset', 'source', 'reason'] as const) {
          expect(ledger.totalsBy(field).reduce((sum, total) => sum + total.bytesDown, 0)).toBe(bytesDown)
        }
        expect(ledger.totals({ link: 'a', reason: 'b' }).bytesUp).toBe(
          rows
            .filter(({ link, reason }) => link === 'a' && reason === 'b')
            .reduce((sum, { bytesUp }) => sum + bytesUp, 0),
        )
      }),
      { numRuns: 50 },
    )
  })

  it('is kept, and counts on after reopening', async () => {
    await using folder = await temporaryFolder()
    for (let i = 0; i < 2; i++) {
      using ledger = openLedger(join(folder.path, 'ledger.db'), () => 7_200_000)
      ledger.add(row)
    }
    using ledger = openLedger(join(folder.path, 'ledger.db'))
    expect(ledger.rows({}, 10)).toEqual([
      { since: '1970-01-01T02:00:00.000Z', ...row, bytesDown: 20, bytesUp: 2, requests: 2 },
    ])
  })

  it('answers for a stretch of time', () => {
    let now = 0
    using ledger = openLedger(':memory:', () => now)
    for (now = 0; now < 86_400_000; now += 3_600_000) ledger.add(row)
    expect(ledger.totals({ sinceMs: 3_600_000 * 5, untilMs: 3_600_000 * 7 }).requests).toBe(2)
  })
})
