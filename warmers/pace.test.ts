import { describe, expect, it } from 'vitest'
import { openPace, type PaceOptions } from './pace.ts'

const signal = new AbortController().signal

/** A link of so many bytes a second with a queue, shared with others, in virtual time. */
function link(bytesPerSecond: number, options: Partial<PaceOptions> = {}) {
  const clock = { ms: 0 }
  const pace = openPace({
    bytesPerSecondMax: Infinity,
    shared: true,
    nowMs: () => clock.ms,
    wait: async ms => void (clock.ms += ms),
    ...options,
  })
  let queue = 0
  let last = 0
  /** Fills for so long, in steps, beside others that want so much. @returns bytes per second we got. */
  const run = async (seconds: number, others: number) => {
    const until = clock.ms + seconds * 1000
    let ours = 0
    while (clock.ms < until) {
      const bytes = 16_384
      await pace.spend(bytes, signal)
      if (clock.ms === last) clock.ms += (bytes / bytesPerSecond) * 1000
      queue = Math.max(0, queue + bytes + ((others - bytesPerSecond) * (clock.ms - last)) / 1000)
      last = clock.ms
      ours += bytes
      if (ours % (16_384 * 16) === 0) pace.delayed(40 + (queue / bytesPerSecond) * 1000)
    }
    return ours / seconds
  }
  return {
    pace,
    run,
    clock,
    get queueMs() {
      return (queue / bytesPerSecond) * 1000
    },
  }
}

describe('the pace of a link', () => {
  it('is the limit that was set, and no more', async () => {
    const at = link(1e7, { bytesPerSecondMax: 100_000, shared: false })
    for (let i = 0; i < 100; i++) await at.pace.spend(10_000, signal)
    expect(at.clock.ms).toBeGreaterThan(9000)
    expect(at.clock.ms).toBeLessThan(10_500)
  })

  it('without a limit and alone it waits for nothing', async () => {
    const at = link(1e7, { shared: false })
    for (let i = 0; i < 100; i++) await at.pace.spend(1e6, signal)
    expect(at.clock.ms).toBe(0)
  })

  it('grows to most of an idle link, with little queue', async () => {
    const at = link(1_000_000)
    await at.run(30, 0)
    expect(await at.run(30, 0)).toBeGreaterThan(800_000)
    expect(at.queueMs).toBeLessThan(200)
  })

  it('gives way when people need the link, and comes back', async () => {
    const at = link(1_000_000)
    await at.run(40, 0)
    await at.run(20, 700_000)
    expect(await at.run(20, 700_000)).toBeLessThan(400_000)
    await at.run(20, 0)
    expect(await at.run(20, 0)).toBeGreaterThan(800_000)
  })

  it('is paid for in the order of arrival', async () => {
    const at = link(1e7, { bytesPerSecondMax: 100_000, shared: false })
    const ended: number[] = []
    await Promise.all([3, 1, 2].map(async n => ended.push((await at.pace.spend(n * 10_000, signal), n))))
    expect(ended).toEqual([3, 1, 2])
  })

  it('asks of a shared link for what flows evenly: few requests on a near one, enough to fill a far one', () => {
    const near = link(1e6)
    expect(near.pace.flow).toBeUndefined()
    near.pace.delayed(5)
    expect(near.pace.flow).toMatchObject({ connections: 2, pieceBytes: 32_768 })
    const far = link(1e6)
    far.pace.delayed(600)
    expect(far.pace.flow).toMatchObject({ connections: 6 })
    const own = link(1e6, { shared: false })
    own.pace.delayed(5)
    expect(own.pace.flow).toBeUndefined()
  })

  it('ends a wait when told to', async () => {
    const stop = new AbortController()
    const pace = openPace({
      bytesPerSecondMax: 10,
      shared: false,
      nowMs: () => 0,
      wait: (_, waiting) =>
        new Promise((_resolve, reject) => waiting.addEventListener('abort', () => reject(waiting.reason))),
    })
    const spending = pace.spend(1000, stop.signal)
    stop.abort(new Error('closed'))
    await expect(spending).rejects.toThrow('closed')
  })
})
