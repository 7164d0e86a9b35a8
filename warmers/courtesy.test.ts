import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest'
import { openCourtesy } from './courtesy.ts'

const { signal } = new AbortController()
const BYTES = 256 * 1024

/** A fill that takes in what it may for so long, on a machine whose timers come late by so much. */
function world() {
  let lateMs = 0
  let shiftMs = 0
  const nowMs = () => Date.now() + shiftMs
  setInterval(() => (shiftMs += lateMs), 10) // the process is held up
  const wait = (ms: number) => vi.advanceTimersByTimeAsync(ms).then(() => undefined)
  const courtesy = openCourtesy({ nowMs, wait })
  return {
    courtesy,
    late: (ms: number) => (lateMs = ms),
    /** @returns bytes per second of a fill that could take in 100 MB/s. */
    async fill(ms: number, readers: boolean): Promise<number> {
      const until = nowMs() + ms
      let taken = 0
      while (nowMs() < until) {
        if (readers) courtesy.asked()
        await courtesy.spend(BYTES, signal)
        taken += BYTES
        await vi.advanceTimersByTimeAsync(2)
      }
      return taken / (ms / 1000)
    },
  }
}

describe('a fill on a machine with readers', () => {
  beforeEach(() => void vi.useFakeTimers())
  afterEach(() => void vi.useRealTimers())

  it('is as fast as can be while nobody reads, however late the machine is', async () => {
    const { courtesy, late, fill } = world()
    using _ends = courtesy
    late(30)
    expect(await fill(4000, false)).toBeGreaterThan(20e6)
  })

  it('gives way to readers who would wait, but never below what a slow link brings', async () => {
    const { courtesy, late, fill } = world()
    using _ends = courtesy
    late(30)
    await fill(4000, true)
    const slowed = await fill(4000, true)
    expect(slowed).toBeLessThan(3e6)
    expect(slowed).toBeGreaterThan(1.9e6)
  })

  it('takes more again when the machine keeps up, and all when the readers have gone', async () => {
    const { courtesy, late, fill } = world()
    using _ends = courtesy
    late(30)
    await fill(4000, true)
    late(0)
    await fill(4000, true)
    const recovered = await fill(2000, true)
    expect(recovered).toBeGreaterThan(10e6)
    await vi.advanceTimersByTimeAsync(2000)
    expect(await fill(2000, false)).toBeGreaterThan(50e6)
  })
})
