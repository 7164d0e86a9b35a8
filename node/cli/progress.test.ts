import { describe, expect, it } from 'vitest'
import { barLine, openProgress } from './progress.ts'

const MiB = 1024 ** 2

function openScreen(isTTY: boolean) {
  const screen = {
    isTTY,
    columns: 60,
    text: '',
    write(text: string | Uint8Array) {
      screen.text += String(text)
      return true
    },
  }
  return screen
}

describe('a bar', () => {
  it('says how far, how fast and how long', () => {
    const line = barLine(
      { label: 'fill', doneBytes: 12 * MiB, totalBytes: 24 * MiB, detail: 'health/water' },
      3 * MiB,
    )
    expect(line).toBe(
      'fill  ━━━━━━━━━━━━────────────  50 %  12.0 MiB of 24.0 MiB  3.00 MiB/s  4 s  health/water',
    )
  })

  it.each([
    [{ label: 'x', doneBytes: 0, totalBytes: 0 }, /100 %/],
    [{ label: 'x', doneBytes: 5, totalBytes: 4 }, /100 %/],
    [{ label: 'x', doneBytes: 5 }, /^x {2}5 B$/],
  ])('of %j is sane', (bar, text) => {
    expect(barLine(bar, 0)).toMatch(text)
  })
})

describe('progress', () => {
  it('redraws one line on a terminal, at most ten times a second, and draws the end', () => {
    const screen = openScreen(true)
    let nowMs = 0
    {
      using progress = openProgress({ json: false, screen, now: () => nowMs })
      for (nowMs = 0; nowMs <= 1_000; nowMs++)
        progress.show({ label: 'fill', doneBytes: nowMs, totalBytes: 1_000 })
      progress.note('health/water is whole')
    }
    const drawn = screen.text.split('\r').length - 1
    expect(drawn).toBeGreaterThan(8)
    expect(drawn).toBeLessThan(15)
    expect(screen.text).toContain('health/water is whole\n')
    expect(screen.text.split('\n').at(-2)).toContain('100 %')
    for (const line of screen.text.split(/[\r\n]/))
      expect(line.replace('\u001B[K', '').length).toBeLessThan(60)
  })

  it('writes a line every ten seconds elsewhere, and the last one', () => {
    const screen = openScreen(false)
    let nowMs = 0
    {
      using progress = openProgress({ json: false, screen, now: () => nowMs })
      for (nowMs = 0; nowMs <= 25_000; nowMs += 100) {
        progress.show({ label: 'fill', doneBytes: nowMs, totalBytes: 25_000 })
      }
    }
    expect(screen.text.trimEnd().split('\n')).toHaveLength(3)
    expect(screen.text).not.toContain('\r')
    expect(screen.text).toMatch(/100 %.*\n$/)
  })

  it('leaves no line of what was over at once', () => {
    const screen = openScreen(false)
    {
      using progress = openProgress({ json: false, screen, now: () => 0 })
      progress.show({ label: 'hashing', doneBytes: 1 })
      progress.show({ label: 'packing', doneBytes: 2 })
    }
    expect(screen.text).toBe('')
  })

  it('is silent for programs', () => {
    const screen = openScreen(true)
    {
      using progress = openProgress({ json: true, screen })
      progress.show({ label: 'fill', doneBytes: 1, totalBytes: 2 })
      progress.note('x')
    }
    expect(screen.text).toBe('')
  })
})
