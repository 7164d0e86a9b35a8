import { expect, it, vi } from 'vitest'
import { byHealth, reportUpstream } from './breaker.ts'
import { FREE, type Upstream } from './upstream.ts'

const named = (name: string, downBytes = 240) => ({ name, cost: { ...FREE, downBytes } }) as Upstream

it('three failures in a row, or one lie, put an upstream last for a while', () => {
  vi.useFakeTimers({ toFake: ['performance'] })
  try {
    const [a, b, c] = [named('a'), named('b'), named('c')]
    const order = () =>
      byHealth([a, b, c])
        .map(({ name }) => name)
        .join('')
    for (let i = 0; i < 2; i++) reportUpstream(a, 'failed')
    reportUpstream(a, 'served')
    for (let i = 0; i < 2; i++) reportUpstream(a, 'failed')
    expect(order()).toBe('abc')
    reportUpstream(a, 'failed')
    expect(order()).toBe('bca')
    reportUpstream(b, 'lied')
    expect(order()).toBe('cab')
    vi.advanceTimersByTime(15_001)
    expect(order()).toBe('abc')
    reportUpstream(b, 'lied') // again: for twice as long
    vi.advanceTimersByTime(15_001)
    expect(order()).toBe('acb')
    vi.advanceTimersByTime(15_001)
    expect(order()).toBe('abc')
  } finally {
    vi.useRealTimers()
  }
})

it('a folder that lacks files is asked first all the same', () => {
  const [folder, far] = [named('folder', 0), named('far')]
  for (let i = 0; i < 3; i++) reportUpstream(folder, 'failed')
  expect(byHealth([folder, far])).toEqual([folder, far])
  reportUpstream(folder, 'lied')
  expect(byHealth([folder, far])).toEqual([far, folder])
})
