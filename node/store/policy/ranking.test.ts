import { expect, it } from 'vitest'
import type { Demand } from './demand.ts'
import { Queues } from './queues.ts'
import { Ranking } from './ranking.ts'
import { Slots } from './slots.ts'

/** A ranking of residents with given sizes and rates. */
function rankingOf(residents: readonly { readonly sizeBytes: number; readonly rate: number }[]): Ranking {
  const slots = new Slots()
  const queues = new Queues(slots)
  queues.open() // that of the ghosts
  const demand = { now: 100, logRate: (slot: number) => Math.log2(residents[slot]!.rate) }
  const ranking = new Ranking(slots, demand as unknown as Demand, queues, 1, 1)
  for (const [key, { sizeBytes }] of residents.entries()) {
    const slot = slots.add(key, sizeBytes)
    slots.count[slot] = 1
    ranking.enqueue(slot)
  }
  return ranking
}

it('names those that are worth least per byte, as long as the newcomer is worth more than their sum', () => {
  const ranking = rankingOf([
    { sizeBytes: 10, rate: 0.5 },
    { sizeBytes: 10, rate: 0.1 },
    { sizeBytes: 40, rate: 0.2 },
  ])
  expect(ranking.victims(10, 0.19, 0.019)).toBeUndefined()
  expect(ranking.victims(10, 0.21, 0.021)).toEqual([2])
  expect(ranking.victims(45, 0.29, 0.01)).toBeUndefined()
})

it('lets small newcomers replace a huge one together that none of them outweighs alone', () => {
  const ranking = rankingOf([{ sizeBytes: 1000, rate: 0.5 }])
  const verdicts = Array.from({ length: 5 }, () => ranking.victims(1, 0.12, 0.12))
  expect(verdicts).toEqual([undefined, undefined, undefined, undefined, [0]])
})

it('keeps a huge one that is worth more per byte than all who come', () => {
  const ranking = rankingOf([{ sizeBytes: 1000, rate: 500 }])
  for (let n = 0; n < 5000; n++) expect(ranking.victims(1, 0.2, 0.2)).toBeUndefined()
})

it('finds one inside a queue that is worth less than the oldest there', () => {
  const ranking = rankingOf([
    { sizeBytes: 10, rate: 0.2 },
    { sizeBytes: 10, rate: 0.1 },
    { sizeBytes: 10, rate: 0.3 },
  ])
  expect(ranking.victims(10, 1, 0.1)).toEqual([1])
  expect(ranking.victims(30, 1, 0.1)).toEqual([1, 0, 2])
})
