/**
 * What several processes of one node count, as one: the owner's registry and what its workers told of
 * theirs. What a worker has counted stays when it dies; what it measured at a moment goes with it.
 */
import { AggregatorRegistry, type MetricObject, type Registry } from 'prom-client'

/** As `Registry.getMetricsAsJSON` gives them; plain JSON. */
export type Snapshot = readonly MetricObject[]

export class MergedMetrics {
  readonly #running = new Map<number, Snapshot>()
  /** Counters of those that have ended. */
  #ended: Snapshot = []

  /** @param snapshot replaces the last one of this process. */
  note(process: number, snapshot: Snapshot): void {
    this.#running.set(process, snapshot)
  }

  async ended(process: number): Promise<void> {
    const last = this.#running.get(process)
    this.#running.delete(process)
    if (last) this.#ended = await sumOf([this.#ended, last.filter(isCounted)]).getMetricsAsJSON()
  }

  /** In the text format of Prometheus. */
  async text(own: Registry): Promise<string> {
    if (this.#running.size === 0 && this.#ended.length === 0) return own.metrics()
    const all = [await own.getMetricsAsJSON(), this.#ended, ...this.#running.values()]
    return sumOf(all).metrics()
  }
}

function isCounted({ type }: MetricObject): boolean {
  return String(type) !== 'gauge'
}

function sumOf(snapshots: readonly Snapshot[]): Registry {
  return AggregatorRegistry.aggregate(snapshots as MetricObject[][])
}
