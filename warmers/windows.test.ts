import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { DEFAULT_LINK, parseLinks, type LinkSettings } from './link-settings.ts'
import { nextChangeMs, windowAt, windowsFrom } from './windows.ts'

const link = (more: Partial<LinkSettings>): LinkSettings => ({ ...DEFAULT_LINK, name: 'lte', ...more })
const night = link({
  windows: [{ name: 'night', start: '01:00', minutes: 240, timeZone: 'Africa/Nairobi', bytesMax: 500 }],
})
const at = (text: string) => Date.parse(text)

describe('a contact window', () => {
  it('is open from its start, in its zone, until its length is over', () => {
    // Nairobi is UTC+3 all year
    expect(windowAt(night, at('2026-11-19T21:59:59.999Z'))).toBeUndefined()
    expect(windowAt(night, at('2026-11-19T22:00:00.000Z'))).toEqual({
      id: 'night 2026-11-19T22:00:00.000Z',
      link: 'lte',
      startMs: at('2026-11-19T22:00:00Z'),
      endMs: at('2026-11-20T02:00:00Z'),
      bytesMax: 500,
    })
    expect(windowAt(night, at('2026-11-20T01:59:59.999Z'))).toBeDefined()
    expect(windowAt(night, at('2026-11-20T02:00:00.000Z'))).toBeUndefined()
  })

  it('may be on some days only, and reach into the next', () => {
    const weekend = link({ windows: [{ days: ['sat'], start: '23:00', minutes: 120, timeZone: 'UTC' }] })
    expect(windowAt(weekend, at('2026-11-22T00:30:00Z'))).toMatchObject({
      startMs: at('2026-11-21T23:00:00Z'),
    }) // a Sunday
    expect(windowAt(weekend, at('2026-11-20T23:30:00Z'))).toBeUndefined() // a Friday
    expect(windowsFrom([weekend], at('2026-11-22T01:30:00Z'), 2).map(({ startMs }) => startMs)).toEqual([
      at('2026-11-28T23:00:00Z'),
      at('2026-12-05T23:00:00Z'),
    ])
  })

  it('keeps its length when clocks change', () => {
    const rome = link({ windows: [{ start: '01:30', minutes: 120, timeZone: 'Europe/Rome' }] })
    for (const day of ['2026-03-29', '2026-10-25', '2026-07-01']) {
      const [window] = windowsFrom([rome], at(`${day}T00:00:00Z`) - 4 * 3_600_000, 1)
      expect(window!.endMs - window!.startMs).toBe(7_200_000)
      expect(windowAt(rome, window!.startMs + 7_199_000)).toEqual(window)
    }
  })

  it('that names no time is always open', () => {
    expect(windowAt(DEFAULT_LINK, 0)).toEqual({
      id: '',
      link: 'default',
      startMs: -Infinity,
      endMs: Infinity,
      bytesMax: Infinity,
    })
    expect(nextChangeMs([DEFAULT_LINK], 0)).toBe(Infinity)
  })

  it('is either open now or opens at the next change', () => {
    fc.assert(
      fc.property(
        fc.integer({ min: at('2026-01-01'), max: at('2027-01-01') }),
        fc.nat(23),
        fc.integer({ min: 1, max: 3000 }),
        (now, hour, minutes) => {
          const some = link({
            windows: [{ start: `${String(hour).padStart(2, '0')}:15`, minutes, timeZone: 'America/Lima' }],
          })
          const change = nextChangeMs([some], now)
          expect(change).toBeGreaterThan(now)
          const isOpen = windowAt(some, now) !== undefined
          if (minutes < 1440) expect(windowAt(some, change) !== undefined).toBe(!isOpen)
          expect(windowAt(some, change - 1) !== undefined).toBe(isOpen)
        },
      ),
      { numRuns: 60 },
    )
  })
})

describe('settings of links', () => {
  it('are defaulted', () => {
    expect(parseLinks(undefined)).toEqual([DEFAULT_LINK])
    expect(parseLinks([{ name: 'fibre' }])).toEqual([{ name: 'fibre', costPerGiB: 0, shared: true }])
  })

  it.each([
    [[{ name: 'a', speed: 3 }], 'links.0: '],
    [[{ name: 'a' }, { name: 'a' }], 'same name'],
    [
      [{ name: 'a', windows: [{ start: '25:00', minutes: 1, timeZone: 'UTC' }] }],
      'links.0.windows.0.start: HH:MM',
    ],
    [[{ name: 'a', windows: [{ start: '05:00', minutes: 1, timeZone: 'Mars' }] }], 'not a time zone'],
    [[], 'links.'],
  ])('that make no sense are refused: %j', (value, message) => {
    expect(() => parseLinks(value)).toThrow(message)
  })
})
