import { describe, expect, it } from 'vitest'
import { Tuner } from './tuning.ts'

function tuner() {
  const clock = { ms: 0 }
  const tuned = new Tuner(6, () => clock.ms)
  const run = (seconds: number, stalledShare: number) => {
    for (let i = 0; i < seconds * 4; i++) {
      clock.ms += 250
      tuned.ended((i * 7919) % 100 < stalledShare * 100)
    }
    return tuned.tuning.pieceBytes
  }
  return { tuned, run }
}

describe('tuning', () => {
  it('leaves a good link as it was configured', () => {
    const { tuned, run } = tuner()
    expect(run(600, 0.01)).toBe(Infinity)
    expect(tuned.tuning.connections).toBe(6)
  })

  it('makes requests small and many within seconds when they stall', () => {
    const { tuned, run } = tuner()
    expect(run(10, 0.6)).toBe(8192)
    expect(tuned.tuning).toMatchObject({ connections: 64, silenceMs: 4000 })
  })

  it('makes them larger again when the link is good for a while, and hesitates more each time', () => {
    const { run } = tuner()
    run(10, 0.6)
    expect(run(30, 0)).toBe(8192)
    expect(run(40, 0)).toBe(32 * 1024)
    expect(run(60, 0)).toBe(32 * 1024)
    expect(run(120, 0)).toBe(Infinity)
  })

  it('stays at it while some still stall', () => {
    const { run } = tuner()
    run(10, 0.6)
    expect(run(300, 0.15)).toBe(8192)
  })
})
