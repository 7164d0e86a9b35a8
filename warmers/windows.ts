/**
 * Contact windows: when a link may be used. Pure: the time is handed in.
 *
 * A window begins at a wall-clock time in its zone and lasts so many real minutes, so that one
 * across a change of clocks is neither shortened nor doubled.
 */
import { Cron } from 'croner'
import type { LinkSettings, WindowSettings } from './link-settings.ts'

export interface ContactWindow {
  /** `night 2026-11-20T01:00:00.000Z`: names this one occurrence, in the ledger too; empty for "whenever up". */
  readonly id: string
  readonly link: string
  readonly startMs: number
  /** Infinity for "whenever up". */
  readonly endMs: number
  /** Down and up. */
  readonly bytesMax: number
}

/** The link's open window: of several the one that ends last. */
export function windowAt(link: LinkSettings, nowMs: number): ContactWindow | undefined {
  if (!link.windows) return wheneverUp(link)
  return link.windows
    .map(rule => occurrence(link, rule, lastStart(rule, nowMs)))
    .filter(window => window !== undefined)
    .filter(({ endMs }) => endMs > nowMs)
    .toSorted((a, b) => b.endMs - a.endMs)[0]
}

/** Windows of all links that are open or open next, by start, at most `count`. */
export function windowsFrom(links: readonly LinkSettings[], nowMs: number, count: number): ContactWindow[] {
  return links
    .flatMap(link => {
      if (!link.windows) return [wheneverUp(link)]
      const open = windowAt(link, nowMs)
      const next = link.windows.flatMap(rule =>
        cronOf(rule)
          .nextRuns(count, new Date(nowMs))
          .map(start => occurrence(link, rule, start.getTime())),
      )
      return [open, ...next].filter(window => window !== undefined)
    })
    .toSorted((a, b) => a.startMs - b.startMs)
    .slice(0, count)
}

/** When something opens or closes next, after `nowMs`; Infinity when nothing ever does. */
export function nextChangeMs(links: readonly LinkSettings[], nowMs: number): number {
  const edges = windowsFrom(links, nowMs, 8).flatMap(({ startMs, endMs }) => [startMs, endMs])
  return Math.min(Infinity, ...edges.filter(edge => edge > nowMs))
}

function wheneverUp({ name }: LinkSettings): ContactWindow {
  return { id: '', link: name, startMs: -Infinity, endMs: Infinity, bytesMax: Infinity }
}

function lastStart(rule: WindowSettings, nowMs: number): number | undefined {
  // croner counts whole seconds, and a run at this very second as not yet past
  return cronOf(rule)
    .previousRuns(1, new Date(nowMs + 1000))[0]
    ?.getTime()
}

function occurrence(
  link: LinkSettings,
  rule: WindowSettings,
  startMs: number | undefined,
): ContactWindow | undefined {
  if (startMs === undefined) return undefined
  return {
    id: `${rule.name ?? link.name} ${new Date(startMs).toISOString()}`,
    link: link.name,
    startMs,
    endMs: startMs + rule.minutes * 60_000,
    bytesMax: rule.bytesMax ?? Infinity,
  }
}

const CRONS = new WeakMap<WindowSettings, Cron>()

/** Of its beginnings: second, minute, hour, …; in the rule's time zone. */
export function cronPatternOf({ start, days }: WindowSettings): string {
  const [hour, minute] = start.split(':').map(Number)
  return `0 ${minute} ${hour} * * ${days?.join(',') ?? '*'}`
}

function cronOf(rule: WindowSettings): Cron {
  let cron = CRONS.get(rule)
  if (!cron) {
    cron = new Cron(cronPatternOf(rule), {
      timezone: rule.timeZone,
      paused: true,
    })
    CRONS.set(rule, cron)
  }
  return cron
}
