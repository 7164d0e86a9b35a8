import { expect, it } from 'vitest'
import { openTestStore, temporaryFolder } from './store/testing.ts'
import { rawCidOf } from '../manifests/cid.ts'
import { sha256Of } from '../manifests/digest.ts'
import { bytesOf } from './store/testing.ts'
import { Scrubbing } from './scrubbing.ts'

it('proves everything, rests, and stops while the battery is low', async () => {
  await using folder = await temporaryFolder()
  await using store = await openTestStore(folder.path)
  for (let n = 0; n < 5; n++) {
    const bytes = bytesOf(`block ${n}`, 50_000)
    await store.admitExtent(rawCidOf(sha256Of(bytes)), bytes, 'fastcdc-v1', 'test')
  }
  let isAllowed = false
  const stop = new AbortController()
  const scrubbing = new Scrubbing({ store, days: 7, isAllowed: () => isAllowed, restMs: 60_000, lookMs: 10 })
  const running = scrubbing.run(stop)
  const until = async (isSo: () => boolean) => {
    while (!isSo()) await new Promise(resolve => setTimeout(resolve, 5)) // polling a report
  }
  await until(() => scrubbing.report.state === 'battery is low')
  expect(scrubbing.report).toMatchObject({ rounds: 0, bytes: 0, days: 7 })
  isAllowed = true
  await until(() => scrubbing.report.rounds === 1)
  expect(scrubbing.report).toMatchObject({ state: 'resting', extents: 5, bytes: 250_000, damaged: 0 })
  stop.abort()
  await running
})
