/**
 * What share of requests, and of bytes, does the node answer from what it keeps?
 *
 *     node bench/hit-rate.ts --trace FILE [--capacity 0.1] [--links always|nightly|harsh]
 *       [--policy NAME] [--alpha A] [--seeds N] [--neighbours N] [--rivals] [--http] [--svg FOLDER]
 *       [--requests N]
 *
 * The workload is a trace of real requests (`bench/trace.ts`); `--capacity` is a share of the bytes
 * that it asks for, all tiers together. Always-on: every request counts, from a cold start. With
 * windows: `bench/hit-rate/link-model.ts`. Beside ours: LRU, what an offline cache could reach
 * (`bound` cannot be exceeded, `feasible` can be reached; with windows `forecast` knows 14 days, and
 * `gapClosed` says how far ours has come from LRU towards it), and with `--rivals` real NGINX and
 * Varnish given the same. Prints one JSON line; ratios are medians of the seeds: those of the policy's
 * sampling, with windows also those of the link. `--http` drives the node itself
 * (`bench/hit-rate/real-node.ts`); `--svg` writes plots, on a link that is always up; `--requests`
 * takes the beginning of the trace only.
 */
import { availableParallelism, cpus } from 'node:os'
import { parseArgs } from 'node:util'
import { POLICIES, replay } from './hit-rate/always.ts'
import {
  runBound,
  runForecast,
  runLru,
  runOurs,
  type LinkResult,
  type World,
} from './hit-rate/intermittent.ts'
import { catalogOf, contactWindows, neighbourRequests, randomOf, type Links } from './hit-rate/link-model.ts'
import { offlineLimits } from './hit-rate/offline.ts'
import { publishedTogether, runRealNode } from './hit-rate/real-node.ts'
import { writePlots } from './hit-rate/plots.ts'
import { runRival } from './hit-rate/real-rivals.ts'
import { median, medianRatios, rounded } from './hit-rate/tally.ts'
import { beginningOf, loadTrace, withoutUnlogged } from './trace.ts'

const { values } = parseArgs({
  options: {
    trace: { type: 'string' },
    capacity: { type: 'string', default: '0.1' },
    links: { type: 'string', default: 'always' },
    policy: { type: 'string', default: 'learned' },
    alpha: { type: 'string', default: '1' },
    seeds: { type: 'string', default: '5' },
    neighbours: { type: 'string', default: '0' },
    rivals: { type: 'boolean', default: false },
    http: { type: 'boolean', default: false },
    svg: { type: 'string' },
    requests: { type: 'string', default: 'Infinity' },
  },
})
if (values.trace === undefined) throw new Error('--trace FILE is missing')
const trace = beginningOf(loadTrace(values.trace), Number(values.requests))
const capacity = Number(values.capacity)
const capacityBytes = Math.floor(trace.footprintBytes * capacity)
const seeds = Array.from({ length: Number(values.seeds) }, (_, n) => n + 1)

const links: Links | undefined =
  values.links === 'always' ? undefined : values.links === 'nightly' ? 'nightly' : 'harsh'
if (values.svg !== undefined) await writePlots(trace, capacity, values.svg, values.rivals)
const result = values.http ? await overHttp() : links ? windows(links) : alwaysOn()
console.log(
  JSON.stringify({
    bench: 'hit',
    trace: trace.name,
    capacity,
    requests: trace.key.length,
    links: values.links,
    ...result,
    ...(values.rivals && { rivals: await realRivals() }),
    seeds: seeds.length,
    cpu: cpus()[0]?.model,
    cores: availableParallelism(),
    node: process.version,
  }),
)

function alwaysOn() {
  const make = POLICIES[values.policy]
  if (!make) throw new Error(`--policy: one of ${Object.keys(POLICIES).join(', ')}`)
  const alpha = Number(values.alpha)
  const run = (seed: number) => replay(trace, make({ capacityBytes, alpha, seed }))
  // the compiler's warm-up does not count
  for (let warm = 0; warm < 100_000; warm += trace.key.length) run(0)
  const runs = seeds.map(run)
  return {
    policy: values.policy,
    alpha,
    ...medianRatios(runs),
    hotShare: median(runs.map(one => one.hotShare)),
    lru: replay(trace, POLICIES['lru']!({ capacityBytes, alpha, seed: 1 })),
    ...offlineLimits(trace, capacityBytes),
    cpuUsPerRequest: median(runs.map(one => one.cpuUsPerRequest)),
  }
}

/** The node itself, on one seed's link, beside the same policy and planner in process on the same world. */
async function overHttp() {
  if (!links) {
    const { policy, alpha, lru, bound, feasible, ...inProcess } = alwaysOn()
    const real = await runRealNode({ trace, capacityBytes })
    return { policy, alpha, ...real, inProcess, lru, bound, feasible }
  }
  const cut = withoutUnlogged(trace)
  const random = randomOf(101)
  const catalog = publishedTogether(catalogOf(cut, random))
  const world: World = { trace: cut, catalog, windows: contactWindows(cut, links, random), capacityBytes }
  const inProcess = runOurs(world, { seed: 1, weighted: false, freshness: true, neighbours: [] })
  const real = await runRealNode(world)
  return { policy: 'learned', ...real, inProcess, lru: runLru(world), forecast: runForecast(world) }
}

/** On one seed's link: a run takes minutes. */
async function realRivals() {
  const cut = links ? withoutUnlogged(trace) : trace
  const open = links && contactWindows(cut, links, randomOf(101))
  return {
    nginx: await runRival('nginx', cut, capacityBytes, open),
    varnish: await runRival('varnish', cut, capacityBytes, open),
  }
}

function windows(links: Links) {
  const cut = withoutUnlogged(trace)
  const runs = seeds.map(seed => {
    const random = randomOf(seed * 101)
    const catalog = catalogOf(cut, random)
    const world: World = { trace: cut, catalog, windows: contactWindows(cut, links, random), capacityBytes }
    const neighbours = neighbourRequests(cut, catalog, Number(values.neighbours), random)
    const options = { seed, weighted: false, freshness: true, neighbours }
    const before = process.cpuUsage()
    const ours = runOurs(world, options)
    const { user, system } = process.cpuUsage(before)
    return {
      ours,
      ownCounts: runOurs(world, { ...options, freshness: false, neighbours: [] }),
      weighted: runOurs(world, { ...options, weighted: true }),
      lru: runLru(world),
      forecast: runForecast(world),
      bound: runBound(world),
      cpuUsPerRequest: (user + system) / cut.key.length,
    }
  })
  const of = (pick: (run: (typeof runs)[number]) => LinkResult) => summary(runs.map(pick))
  const ours = of(run => run.ours)
  const lru = of(run => run.lru)
  const forecast = of(run => run.forecast)
  return {
    policy: 'learned',
    ...ours,
    gapClosed: rounded((ours.objectHit - lru.objectHit) / (forecast.objectHit - lru.objectHit)),
    ownCounts: of(run => run.ownCounts),
    weighted: of(run => run.weighted),
    lru,
    forecast,
    bound: of(run => run.bound),
    neighbours: Number(values.neighbours),
    cpuUsPerRequest: median(runs.map(run => run.cpuUsPerRequest)),
  }
}

function summary(runs: readonly LinkResult[]) {
  return {
    ...medianRatios(runs),
    outside: medianRatios(runs.map(run => run.outside)),
    inside: medianRatios(runs.map(run => run.inside)),
    classes: runs[0]!.classes.map((_, n) => median(runs.map(run => run.classes[n]!))),
    fetchedBytesPerDay: median(runs.map(run => run.fetchedBytesPerDay)),
    unusedShare: median(runs.map(run => run.unusedShare)),
  }
}
