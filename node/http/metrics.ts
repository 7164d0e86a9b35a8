/**
 * What the HTTP part measures, for Prometheus (`GET /metrics`).
 *
 * Latency is counted by tier and status class in plain arrays, because the hot path pays for it on
 * every answer: prom-client's own histogram hashes its labels each time (about 1 µs). No label
 * ever holds an address, a path or a client (T9).
 */
import type { Server } from 'node:http'
import { monitorEventLoopDelay } from 'node:perf_hooks'
import { Counter, Gauge, type Metric, Registry } from 'prom-client'
import { isEdgeError } from '../../manifests/errors.ts'
import type { AnswerSource } from './item-headers.ts'
import { MergedMetrics } from './merged-metrics.ts'
import { Reads } from './reads.ts'

/** The histogram counts the pause between its own ticks, this long when nothing delays them. */
const DELAY_TICK_MS = 20
const BOUNDS_S = [0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.1, 0.5, 2.5, 10] as const

/** One series: how many answers up to each bound, and their sum. */
interface Series {
  readonly tier: AnswerSource
  readonly status: string
  readonly counts: Float64Array
  sumSeconds: number
  bytes: number
}

export class HttpMetrics implements Disposable {
  readonly registry: Registry
  /** Of the node's other processes. */
  readonly others = new MergedMetrics()
  readonly reads: Reads
  readonly #series = new Map<string, Series>()
  readonly #recent: { tier?: string; status?: number; series?: Series } = {}
  readonly #faults: Counter<'code'>
  readonly #encoded: Counter<'coding'>
  readonly #saved: Counter<'coding'>
  readonly #delay: ReturnType<typeof monitorEventLoopDelay>

  constructor(registry = new Registry(), now: () => number = Date.now) {
    this.registry = registry
    this.reads = new Reads(now)
    this.#delay = monitorEventLoopDelay({ resolution: DELAY_TICK_MS })
    this.#delay.enable()
    this.#faults = new Counter({
      name: 'tower_http_read_faults_total',
      help: 'Reads that failed their check or their disk, by error code; healed ones too.',
      labelNames: ['code'],
      registers: [registry],
    })
    this.#encoded = new Counter({
      name: 'tower_http_encoded_answers_total',
      help: 'Answers sent with a content coding.',
      labelNames: ['coding'],
      registers: [registry],
    })
    this.#saved = new Counter({
      name: 'tower_http_encoded_saved_bytes_total',
      help: 'Bytes that these were shorter than the items as they are.',
      labelNames: ['coding'],
      registers: [registry],
    })
    registry.registerMetric(this.#histogram())
    registry.registerMetric(this.#bytesSent())
    this.#readMetrics()
    this.#processGauges()
  }

  answered(status: number, tier: AnswerSource, bytes: number, seconds: number): void {
    const series = this.#seriesOf(tier, status)
    let bucket = 0
    while (bucket < BOUNDS_S.length && seconds > (BOUNDS_S[bucket] as number)) bucket++
    ;(series.counts[bucket] as number)++
    series.sumSeconds += seconds
    series.bytes += bytes
  }

  encoded(coding: string, savedBytes: number): void {
    this.#encoded.inc({ coding })
    this.#saved.inc({ coding }, Math.max(0, savedBytes))
  }

  fault(error: unknown): void {
    this.#faults.inc({ code: isEdgeError(error) ? error.code : 'INTERNAL' })
  }

  /** Gauges that have to ask: open connections, running transfers, the memory tier. */
  watch(
    server: Server,
    sizes: { readonly transfers: () => number; readonly memoryBytes: () => number },
  ): void {
    const { registry } = this
    gauge(registry, 'tower_http_connections', 'Open connections.', () => {
      return new Promise(resolve => server.getConnections((_, count) => resolve(count ?? 0)))
    })
    gauge(registry, 'tower_http_transfers', 'Bodies being sent through the queue.', () => sizes.transfers())
    gauge(registry, 'tower_memory_tier_bytes', 'Bytes in the memory tier.', () => sizes.memoryBytes())
  }

  /** Of all processes together, in the text format of Prometheus. */
  text(): Promise<string> {
    return this.others.text(this.registry)
  }

  [Symbol.dispose](): void {
    this.#delay.disable()
  }

  #seriesOf(tier: AnswerSource, status: number): Series {
    const recent = this.#recent
    if (recent.tier === tier && recent.status === status && recent.series) return recent.series
    const key = `${tier} ${status}`
    let series = this.#series.get(key)
    if (!series) {
      series = {
        tier,
        status: String(status),
        counts: new Float64Array(BOUNDS_S.length + 1),
        sumSeconds: 0,
        bytes: 0,
      }
      this.#series.set(key, series)
    }
    Object.assign(recent, { tier, status, series })
    return series
  }

  #histogram(): Metric {
    const name = 'tower_http_request_seconds'
    return collected(name, 'Time from the request to the last byte handed to the kernel.', 'histogram', () =>
      [...this.#series.values()].flatMap(({ tier, status, counts, sumSeconds }) => {
        let total = 0
        const buckets = [...counts].map((count, i) => {
          total += count
          const le = i < BOUNDS_S.length ? String(BOUNDS_S[i]) : '+Inf'
          return { labels: { tier, status, le }, value: total, metricName: `${name}_bucket` }
        })
        return [
          ...buckets,
          { labels: { tier, status }, value: sumSeconds, metricName: `${name}_sum` },
          { labels: { tier, status }, value: total, metricName: `${name}_count` },
        ]
      }),
    )
  }

  #bytesSent(): Metric {
    return collected('tower_http_sent_bytes_total', 'Bytes of bodies sent.', 'counter', () =>
      [...this.#series.values()].map(({ tier, status, bytes }) => ({
        labels: { tier, status },
        value: bytes,
      })),
    )
  }

  #readMetrics(): void {
    const counted = (what: 'requests' | 'bytes') => () =>
      [...this.reads.all].map(({ dataset, priority, outcome, [what]: value }) => ({
        labels: { outcome, dataset, class: `P${priority}` },
        value,
      }))
    const outcomes = 'memory, hot, warm: hits; fetched, absent: misses of content; unhealthy: of health.'
    const requests = collected(
      'tower_reads_total',
      `Requests for items. ${outcomes}`,
      'counter',
      counted('requests'),
    )
    const bytes = collected(
      'tower_read_bytes_total',
      `Bytes asked for. ${outcomes}`,
      'counter',
      counted('bytes'),
    )
    this.registry.registerMetric(requests)
    this.registry.registerMetric(bytes)
    const { registry, reads } = this
    gauge(
      registry,
      'tower_hit_ratio_recent',
      'Share of requests that were hits, last hours.',
      () => reads.drift.recent,
    )
    gauge(registry, 'tower_hit_ratio_baseline', 'The same, last weeks.', () => reads.drift.baseline)
    gauge(
      registry,
      'tower_hit_ratio_drift_alert',
      '1 when the last hours are well below the last weeks.',
      () => (reads.drift.alert ? 1 : 0),
    )
  }

  #processGauges(): void {
    const delay = this.#delay
    const loopDelay = new Gauge({
      name: 'tower_event_loop_delay_seconds',
      help: 'Delay of the event loop since the last scrape.',
      labelNames: ['quantile'],
      registers: [],
      aggregator: 'max',
      collect() {
        for (const percent of [50, 99, 100]) {
          const ns = delay.percentile(percent)
          this.set({ quantile: String(percent / 100) }, Math.max(0, ns / 1e9 - DELAY_TICK_MS / 1000))
        }
        delay.reset()
      },
    })
    this.registry.registerMetric(loopDelay)
    gauge(this.registry, 'process_resident_memory_bytes', 'Resident memory.', () => process.memoryUsage.rss())
    const cpu = collected('process_cpu_seconds_total', 'CPU used since the start.', 'counter', () => {
      const { user, system } = process.cpuUsage()
      return [{ labels: {}, value: (user + system) / 1e6 }]
    })
    this.registry.registerMetric(cpu)
  }
}

function gauge(registry: Registry, name: string, help: string, ask: () => number | Promise<number>): void {
  const metric = new Gauge({
    name,
    help,
    registers: [],
    async collect() {
      this.set(await ask())
    },
  })
  registry.registerMetric(metric)
}

interface Sample {
  readonly labels: Readonly<Record<string, string>>
  readonly value: number
  readonly metricName?: string
}

/** A metric that is put together at the scrape: the part of prom-client's interface that a registry calls. */
function collected(name: string, help: string, type: string, values: () => Sample[]): Metric {
  const metric = {
    name,
    help,
    type,
    aggregator: 'sum',
    get: async () => ({ name, help, type, values: values(), aggregator: 'sum' }),
    reset: () => {},
  }
  return metric as unknown as Metric
}
