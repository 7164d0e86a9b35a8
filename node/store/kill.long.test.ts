import { describe, expect, it } from 'vitest'
import { killRounds, powerCutRounds } from './testing-kills.ts'

const mayMount = process.getuid?.() === 0 && process.platform === 'linux'

describe('nothing that was acknowledged and pinned is lost', () => {
  it('by 1,000 kills', { timeout: 60 * 60_000 }, async () => {
    const { lost, wrong, openMsMax } = await killRounds(1000, 500)
    expect({ lost, wrong }).toEqual({ lost: 0, wrong: 0 })
    expect(openMsMax).toBeLessThan(3000)
  })

  it.skipIf(!mayMount)('by 200 power cuts on ext4', { timeout: 60 * 60_000 }, async () => {
    const { lost, wrong, openMsMax } = await powerCutRounds(200, 500)
    expect({ lost, wrong }).toEqual({ lost: 0, wrong: 0 })
    expect(openMsMax).toBeLessThan(3000)
  })
})
