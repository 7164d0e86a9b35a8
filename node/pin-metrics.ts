/**
 * Pins, heals and the scrubber, for Prometheus. Asked at the scrape; counts come from memory or from
 * an index, so that a scrape costs nothing that a reader would notice.
 */
import { Gauge, type Registry } from 'prom-client'
import type { ScrubReport } from './scrubbing.ts'
import type { ContentStore } from './store/store.ts'

/** What of a pin service is measured. */
export interface MeasuredPins {
  report(): readonly {
    readonly target: string
    readonly state: string
    readonly provedBytes: number
    readonly disproved: number
    readonly lost: number
    readonly pins: readonly {
      readonly status: string
      readonly pins: number
      readonly bytes: number
      readonly provedAtMs: number | null
    }[]
  }[]
  replicas(): { readonly under: number | null } | undefined
}

export interface Measured {
  readonly store: Pick<ContentStore, 'usage'>
  readonly pins: MeasuredPins | undefined
}

export function registerPinMetrics(
  registry: Registry,
  { store, pins }: Measured,
  scrub: () => ScrubReport,
): void {
  const measure = <L extends string>(
    name: string,
    help: string,
    labelNames: readonly L[],
    samples: () => Iterable<readonly [labels: Record<L, string>, value: number]>,
  ) =>
    registry.registerMetric(
      new Gauge({
        name,
        help,
        labelNames,
        registers: [],
        collect() {
          this.reset()
          for (const [labels, value] of samples()) this.set(labels, value)
        },
      }),
    )
  const counts = () =>
    (pins?.report() ?? []).flatMap(({ target, pins }) => pins.map(count => ({ target, ...count })))

  measure('tower_pins', 'Pins by target and status.', ['target', 'status'], () =>
    counts().map(({ target, status, pins }) => [{ target, status }, pins] as const),
  )
  measure('tower_pin_bytes', 'Bytes of pinned items by target and status.', ['target', 'status'], () =>
    counts().map(({ target, status, bytes }) => [{ target, status }, bytes] as const),
  )
  measure('tower_pin_target_up', 'Whether the last round with the target ended well.', ['target'], () =>
    (pins?.report() ?? []).map(({ target, state }) => [{ target }, state === 'up' ? 1 : 0] as const),
  )
  measure(
    'tower_pin_proved_bytes',
    'Bytes read back from the target and proven since the start.',
    ['target'],
    () => (pins?.report() ?? []).map(({ target, provedBytes }) => [{ target }, provedBytes] as const),
  )
  measure('tower_pin_disproved', 'Pins whose proof failed since the start.', ['target'], () =>
    (pins?.report() ?? []).map(({ target, disproved }) => [{ target }, disproved] as const),
  )
  measure(
    'tower_pin_lost',
    'Pins found unexpectedly unpinned since the start, and pinned again.',
    ['target'],
    () => (pins?.report() ?? []).map(({ target, lost }) => [{ target }, lost] as const),
  )
  measure('tower_pin_under_replicated', 'Pins with fewer copies in Kubo than wished.', [], () => {
    const under = pins?.replicas()?.under
    return under === null || under === undefined ? [] : [[{}, under] as const]
  })
  measure(
    'tower_heals',
    'Damaged content that was healed, by what was wrong with it and where its bytes came from.',
    ['cause', 'source'],
    () => store.usage().heals.map(({ cause, source, heals }) => [{ cause, source }, heals] as const),
  )
  measure('tower_quarantined', 'Pieces that failed their proof and are not healed yet.', [], () => [
    [{}, store.usage().quarantined] as const,
  ])
  measure('tower_scrub_bytes', 'Bytes proven in the round under way.', [], () => [
    [{}, scrub().bytes] as const,
  ])
  measure('tower_scrub_rounds', 'Rounds over the whole store since the start.', [], () => [
    [{}, scrub().rounds] as const,
  ])
  measure(
    'tower_scrub_verified_since_seconds',
    'The oldest proof of anything that is here; Unix time.',
    [],
    () => {
      const { verifiedSince } = scrub()
      return verifiedSince === null ? [] : [[{}, Date.parse(verifiedSince) / 1000] as const]
    },
  )
}
