import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { rawCidOf } from '../manifests/cid.ts'
import { sha256Of } from '../manifests/digest.ts'
import { DEFAULT_LINK, type LinkSettings } from './link-settings.ts'
import type { Batch } from './plan-fill.ts'
import { scheduleFill, type ScheduleInput } from './schedule.ts'

const at = (text: string) => Date.parse(text)
const HOUR = 3_600_000

const batch = (n: number, bytes: number, dataset = 'health/who'): Batch => ({
  id: `b${n}`,
  dataset,
  revision: 1,
  priority: 1,
  step: 0,
  path: 'p',
  fileBytes: 1,
  requests: [],
  wire: { down: bytes, up: 0 },
  contentBytes: bytes * 2,
  reason: 'frame',
  steps: [
    {
      source: undefined as never,
      index: n,
      span: { offset: 0, length: 0 },
      wants: [
        {
          cid: rawCidOf(sha256Of(`${n}`)),
          sizeBytes: 1,
          rule: 'fastcdc-v1',
          priority: 1,
          step: 0,
          order: n,
          why: `item ${n}`,
        },
      ],
    },
  ],
})

const night: LinkSettings = {
  ...DEFAULT_LINK,
  name: 'lte',
  costPerGiB: 5,
  windows: [{ name: 'night', start: '01:00', minutes: 60, timeZone: 'UTC' }],
}
const satellite: LinkSettings = {
  ...DEFAULT_LINK,
  name: 'sat',
  costPerGiB: 60,
  windows: [{ name: 'sat', start: '00:30', minutes: 60, timeZone: 'UTC', bytesMax: 1000 }],
}

const input = (
  batches: readonly Batch[],
  links: readonly LinkSettings[],
  more: Partial<ScheduleInput> = {},
): ScheduleInput => ({
  batches,
  links,
  rateOf: () => 1,
  bytesLeftIn: ({ bytesMax }) => bytesMax,
  refreshBytes: 0,
  nowMs: at('2026-11-20T00:00:00Z'),
  untilMs: at('2026-11-24T00:00:00Z'),
  ...more,
})

describe('a schedule', () => {
  it('flows over windows, and goes on where the last one ended', () => {
    const { windows, complete, later, etaMs } = scheduleFill(
      input([batch(0, 3000), batch(1, 3000), batch(2, 100)], [night]),
    )
    expect(windows.map(({ start, wireBytes, contentBytes }) => [start, wireBytes, contentBytes])).toEqual([
      ['2026-11-20T01:00:00.000Z', 3600, 6000],
      ['2026-11-21T01:00:00.000Z', 2500, 6200],
    ])
    expect(complete).toBe('2026-11-21T01:41:40.000Z')
    expect(later).toEqual({ wireBytes: 0, contentBytes: 0 })
    expect(etaMs('health/who', 'item 0')).toBe(at('2026-11-20T01:50:00Z'))
    expect(etaMs('health/who', 'item 1')).toBe(at('2026-11-21T01:40:00Z'))
    expect(etaMs('health/who', 'no such')).toBeUndefined()
  })

  it('takes the cheaper link while both are open, and keeps to caps', () => {
    const { windows } = scheduleFill(
      input([batch(0, 10_000)], [satellite, night], { untilMs: at('2026-11-20T03:00:00Z') }),
    )
    expect(windows.map(({ link, start, wireBytes }) => [link, start, wireBytes])).toEqual([
      ['sat', '2026-11-20T00:30:00.000Z', 1000],
      ['lte', '2026-11-20T01:00:00.000Z', 3600],
    ])
  })

  it('asks what is new in each window first', () => {
    const { windows, complete } = scheduleFill(input([batch(0, 3000)], [night], { refreshBytes: 600 }))
    expect(windows).toHaveLength(1)
    expect(complete).toBe('2026-11-20T02:00:00.000Z')
  })

  it('says what is not within sight', () => {
    const { later, complete, etaMs } = scheduleFill(input([batch(0, 10_000), batch(1, 90_000)], [night]))
    expect(later).toEqual({ wireBytes: 100_000 - 4 * 3600, contentBytes: 180_000 })
    expect(complete).toBeNull()
    expect(etaMs('health/who', 'item 1')).toBe(Infinity)
  })

  it('that is always up begins now', () => {
    const { windows } = scheduleFill(input([batch(0, 500, 'a/b'), batch(1, 500, 'c/d')], [DEFAULT_LINK]))
    expect(windows).toMatchObject([
      {
        window: '',
        start: '2026-11-20T00:00:00.000Z',
        end: '2026-11-20T00:16:40.000Z',
        datasets: [{ dataset: 'a/b' }, { dataset: 'c/d' }],
      },
    ])
  })

  it('loses no byte, and needs no more than a window has', () => {
    const some = fc.array(fc.nat(20_000), { maxLength: 20 })
    fc.assert(
      fc.property(some, fc.integer({ min: 1, max: 5 }), (sizes, rate) => {
        const { windows, later } = scheduleFill(
          input(
            sizes.map((size, n) => batch(n, size)),
            [night, satellite],
            { rateOf: () => rate },
          ),
        )
        const arrives = windows.reduce((sum, { wireBytes }) => sum + wireBytes, 0)
        expect(arrives + later.wireBytes).toBe(sizes.reduce((sum, size) => sum + size, 0))
        for (const { start, end, wireBytes } of windows) {
          expect(wireBytes).toBeLessThanOrEqual(((at(end) - at(start)) / 1000) * rate + 1)
          expect(at(end) - at(start)).toBeLessThanOrEqual(HOUR)
        }
      }),
    )
  })
})
