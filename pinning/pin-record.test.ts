import { describe, expect, it } from 'vitest'
import { rawCidOf } from '../manifests/cid.ts'
import { sha256Of } from '../manifests/digest.ts'
import { openPinRecord, type PinRow } from './pin-record.ts'

const pinned = (target: string, name: string): PinRow => ({
  target,
  root: rawCidOf(sha256Of(name)),
  sizeBytes: 10,
  why: 'a test',
  status: 'pinned',
  attempts: 0,
  retryAtMs: 0,
  error: null,
  provedAtMs: null,
})

describe('the record of pins', () => {
  it('forgets targets that were taken out of the settings, and nothing of the others', async () => {
    using record = openPinRecord(':memory:')
    const [kept, other] = [pinned('kubo 10.0.0.2:5001', 'a'), pinned('s3', 'a')]
    await record.put([kept, other, pinned('kubo 10.0.0.3:5001', 'a'), pinned('kubo', 'b')])
    record.retain([kept.target, other.target])
    expect(record.summary().map(({ target, pins }) => [target, pins])).toEqual([
      [kept.target, 1],
      [other.target, 1],
    ])
    expect([...(await record.known(kept.target)).values()]).toEqual([kept])
  })
})
