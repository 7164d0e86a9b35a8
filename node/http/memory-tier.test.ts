import { expect, it } from 'vitest'
import { BufferPool } from './buffer-pool.ts'
import { MemoryTier } from './memory-tier.ts'
import { sha256Of } from '../../manifests/digest.ts'

it('a pool gives back the buffer given last, by size, and keeps no more than allowed', () => {
  const pool = new BufferPool(200 * 1024)
  const [small, large] = [pool.take(1), pool.take(220 * 1024)]
  expect([small.length, large.length]).toEqual([32 * 1024, 224 * 1024])
  pool.give(large) // over the bound
  pool.give(small)
  expect(pool.keptBytes).toBe(32 * 1024)
  expect(pool.take(32 * 1024)).toBe(small)
  expect(pool.take(224 * 1024)).not.toBe(large)
  const oversized = pool.take(300 * 1024)
  expect(oversized.length).toBe(320 * 1024)
  pool.give(oversized)
  expect(pool.keptBytes).toBe(0)
})

it('the memory tier admits at the second read and stays within its bytes', () => {
  const memory = new MemoryTier(100_000)
  const bytes = (i: number): Buffer => Buffer.alloc(10_000, i)
  for (let round = 0; round < 2; round++) {
    for (let i = 0; i < 20; i++)
      memory.offer(sha256Of(bytes(i)), [bytes(i).subarray(0, 4_000), bytes(i).subarray(4_000)], 10_000)
    if (round === 0) expect(memory.items).toBe(0)
  }
  expect(memory.bytes).toBeLessThanOrEqual(100_000)
  expect(memory.get(sha256Of(bytes(19)))?.equals(bytes(19))).toBe(true)
  expect(memory.get(sha256Of(bytes(0)))).toBeUndefined()
  memory.evict(sha256Of(bytes(19)))
  expect(memory.get(sha256Of(bytes(19)))).toBeUndefined()
})
