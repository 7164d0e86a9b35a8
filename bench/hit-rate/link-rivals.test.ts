import { expect, it } from 'vitest'
import { runBound, runForecast, runLru, type World } from './intermittent.ts'

const HOUR = 3600

/** Items of one byte; each request as [hour, item]; two windows of an hour at a byte a second. */
function worldOf(
  requests: readonly (readonly [hour: number, item: number])[],
  published: readonly number[],
): World {
  return {
    trace: {
      name: 'made-up',
      seconds: Float64Array.from(requests, ([hour]) => hour * HOUR),
      key: Uint32Array.from(requests, ([, item]) => item),
      size: new Float64Array(requests.length).fill(1),
      objects: published.length,
      footprintBytes: published.length,
    },
    catalog: {
      wanted: published.length,
      sizeBytes: new Float64Array(published.length).fill(1),
      publishedSeconds: Float64Array.from(published, hour => hour * HOUR),
      weight: new Float64Array(published.length).fill(1),
    },
    windows: [10, 20].map(hour => ({
      fromSeconds: hour * HOUR,
      toSeconds: (hour + 1) * HOUR,
      bytesPerSecond: 1,
    })),
    capacityBytes: 1,
  }
}

it('counts as within reach what a window could have brought since it was published, or somebody asked for in one', () => {
  // item 0 from the first window on, item 1 from the second, item 2 because it was asked for there
  const world = worldOf(
    [
      [0, 0],
      [9, 0],
      [12, 0],
      [12, 1],
      [20.5, 2],
      [22, 0],
      [22, 1],
      [22, 2],
    ],
    [0, 11, 20.2],
  )
  // of seven that count: not the two before a window, and not the one inside
  expect(runBound(world).objectHit).toBeCloseTo(4 / 7, 4)
  expect(runForecast(world).objectHit).toBeLessThan(runBound(world).objectHit)
  expect(runLru(world).objectHit).toBeCloseTo(1 / 7, 4)
})
