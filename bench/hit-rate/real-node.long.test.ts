import { expect, it } from 'vitest'
import type { Trace } from '../trace.ts'
import { catalogOf, contactWindows, randomOf } from './link-model.ts'
import { runRealNode } from './real-node.ts'

/** A day of requests for items of 2 to 80 KB, some of them asked for far more often than others. */
function day(requests: number, objects: number): Trace {
  const random = randomOf(24)
  const key = Uint32Array.from({ length: requests }, () => Math.floor(objects * random() ** 3))
  const sizeOf = (item: number) => 2000 + ((item * 7919) % 78_000)
  return {
    name: 'edu-a-day',
    seconds: Float64Array.from({ length: requests }, (_, n) => (n * 86_400) / requests),
    key,
    size: Float64Array.from(key, sizeOf),
    objects,
    footprintBytes: Array.from({ length: objects }, (_, item) => sizeOf(item)).reduce((a, b) => a + b, 0),
  }
}

it('24 hours of virtual time: memory is flat, no handle is left open, the disk stays within its marks', async () => {
  const trace = day(20_000, 800)
  const random = randomOf(1)
  const catalog = catalogOf(trace, random)
  const windows = contactWindows(trace, 'nightly', random)
  const capacityBytes = Math.floor(trace.footprintBytes / 5)
  const { rssMb, openFiles, diskShareMax, objectHit } = await runRealNode({
    trace,
    capacityBytes,
    windows,
    catalog,
  })
  console.log(JSON.stringify({ rssMb, openFiles, diskShareMax, objectHit }))
  expect(rssMb[1]).toBeLessThanOrEqual(rssMb[0] * 1.05)
  expect(openFiles[1]).toBeLessThanOrEqual(openFiles[0] + 8)
  expect(diskShareMax).toBeLessThanOrEqual(1)
  expect(objectHit).toBeGreaterThan(0.5)
})
