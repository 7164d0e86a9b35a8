import { Counter, Gauge, Registry } from 'prom-client'
import { expect, it } from 'vitest'
import { MergedMetrics } from './merged-metrics.ts'

function processWith(answers: number, connections: number): Registry {
  const registry = new Registry()
  const registers = [registry]
  new Counter({ name: 'answers_total', help: 'x', labelNames: ['tier'], registers }).inc(
    { tier: 'hot' },
    answers,
  )
  new Gauge({ name: 'connections', help: 'x', registers }).set(connections)
  new Gauge({ name: 'delay', help: 'x', registers, aggregator: 'max' }).set(answers)
  return registry
}

it('processes are counted together; what one has counted outlives it, its moments do not', async () => {
  const merged = new MergedMetrics()
  const own = processWith(10, 1)
  new Counter({ name: 'only_here_total', help: 'x', registers: [own] }).inc(7)
  const read = async () =>
    Object.fromEntries(
      (await merged.text(own))
        .split('\n')
        .filter(line => line !== '' && !line.startsWith('#'))
        .map(line => line.split(' ')),
    )
  const name = 'answers_total{tier="hot"}'
  expect(await read()).toEqual({ [name]: '10', connections: '1', delay: '10', only_here_total: '7' })

  merged.note(1, await processWith(1, 2).getMetricsAsJSON())
  merged.note(1, await processWith(5, 3).getMetricsAsJSON())
  merged.note(2, await processWith(100, 4).getMetricsAsJSON())
  expect(await read()).toEqual({ [name]: '115', connections: '8', delay: '100', only_here_total: '7' })

  await merged.ended(2)
  await merged.ended(3)
  expect(await read()).toMatchObject({ [name]: '115', connections: '4', delay: '10' })
  merged.note(4, await processWith(1, 1).getMetricsAsJSON())
  await merged.ended(4)
  expect(await read()).toMatchObject({ [name]: '116', connections: '4' })
})
