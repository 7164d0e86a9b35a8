import { afterAll, beforeAll, describe, it } from 'vitest'
import { type Fragile, nodeRounds, openFragile, originRounds } from './test-damage.ts'

const ROUNDS = 125
let fragile: Fragile
beforeAll(async () => {
  fragile = await openFragile()
}, 60_000)
afterAll(() => fragile[Symbol.asyncDispose]())

describe('one flipped bit', { timeout: 1_800_000 }, () => {
  it('in a node is never served, and mended by the next fill', () => nodeRounds(fragile, ROUNDS, 'long node'))

  it('in an origin is never believed, and the next fill from a whole one finishes', () =>
    originRounds(fragile, ROUNDS, 'long origin'))
})
