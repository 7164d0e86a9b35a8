/**
 * Keeps a node warm: waits for a window on a link that is up, fills within it, and looks again.
 *
 * Who decides: links and windows say when and how much, the battery which classes, the planner in
 * which order. Whatever goes wrong is told and tried again later, with pauses that grow; nothing
 * that happens here ends the loop but its signal.
 */
import { setTimeout as sleep } from 'node:timers/promises'
import { isEdgeError } from '../manifests/errors.ts'
import type { Abortable } from '../manifests/extent.ts'
import type { FillEvent } from './fill-once.ts'
import type { FillLimits } from './fill-limits.ts'
import { failureOf, type Failure } from './fill-run.ts'
import type { LinkSettings } from './link-settings.ts'
import type { LinkState } from './links.ts'
import type { OpenLinks, OpenWindow } from './open-links.ts'
import { planShedding, priorityAllowed, type PowerState, type Sheddable } from './power.ts'
import { nextChangeMs } from './windows.ts'
import type { Upstream } from './upstream.ts'

/** One fill in one window. */
export interface WindowWork extends Abortable {
  readonly upstreams: readonly Upstream[]
  readonly window: string
  readonly limits: FillLimits
}

export interface WarmerTools {
  readonly links: OpenLinks
  readonly settings: readonly LinkSettings[]
  /** `fillOnce` with everything that is not the window's. */
  fill(work: WindowWork): AsyncGenerator<FillEvent>
  readPower(): Promise<PowerState>
  /** Between two looks for new releases, in an open window. */
  readonly refreshMs: number
  readonly now?: () => number
  /** Between two looks at links and battery. */
  readonly lookMs?: number
  /** After the first failure in a row; it doubles. */
  readonly pauseMs?: number
}

export type WarmerEvent =
  | FillEvent
  | {
      readonly type: 'window-opened'
      readonly link: string
      readonly window: string
      readonly endMs: number
      readonly bytesLeft: number
    }
  | {
      readonly type: 'window-closed'
      readonly link: string
      readonly window: string
      readonly message: string
    }
  | { readonly type: 'waiting'; readonly message: string; readonly untilMs: number }
  | { readonly type: 'shedding'; readonly shed: readonly Sheddable[]; readonly percent: number | undefined }

const LOOK_MS = 15_000
const PAUSE_MS = 5000
const PAUSE_MS_MAX = 300_000

export interface Warmer {
  /** Ends only when the signal aborts; then returns. */
  run(options: Abortable): AsyncGenerator<WarmerEvent>
  /** Do not wait: somebody wants something, or settings have changed. */
  wake(): void
  /** What the battery lets go: asked by the scrubber and by renditions, too. */
  readonly shed: ReadonlySet<Sheddable>
}

export function openWarmer(tools: WarmerTools): Warmer {
  return new WarmerLoop(tools)
}

class WarmerLoop implements Warmer {
  readonly #tools: WarmerTools
  readonly #now: () => number
  readonly #lookMs: number
  #wake = new AbortController()
  #shed: ReadonlySet<Sheddable> = new Set()

  constructor(tools: WarmerTools) {
    this.#tools = tools
    this.#now = tools.now ?? Date.now
    this.#lookMs = tools.lookMs ?? LOOK_MS
  }

  get shed() {
    return this.#shed
  }

  wake(): void {
    this.#wake.abort()
  }

  async *run({ signal }: Abortable): AsyncGenerator<WarmerEvent> {
    const { links, settings, refreshMs, pauseMs } = this.#tools
    let failures = 0
    let said = ''
    while (!signal.aborted) {
      yield* this.#lookAtPower()
      await links.probe({ signal }).catch(() => undefined)
      if (signal.aborted) return
      const priorityMax = priorityAllowed(this.#shed)
      using open = priorityMax < 0 ? undefined : links.open()
      if (!open) {
        const message = priorityMax < 0 ? 'the battery is low' : whyNot(links.states())
        const untilMs = Math.min(nextChangeMs(settings, this.#now()), this.#now() + this.#lookMs)
        if (message !== said) yield { type: 'waiting', message, untilMs }
        said = message
        await this.#sleep(untilMs - this.#now(), signal)
        continue
      }
      said = ''
      const { link, window } = open
      yield { type: 'window-opened', link, window: window.id, endMs: window.endMs, bytesLeft: open.bytesLeft }
      const ended: { failure?: Failure; hasFailed: boolean } = { hasFailed: false }
      yield* this.#fillIn(open, priorityMax, signal, ended)
      failures = ended.hasFailed ? failures + 1 : 0
      if (ended.failure?.code === 'WINDOW_CLOSED') {
        yield { type: 'window-closed', link, window: window.id, message: ended.failure.message }
        continue
      }
      const restMs =
        failures > 0 ? Math.min((pauseMs ?? PAUSE_MS) * 2 ** (failures - 1), PAUSE_MS_MAX) : refreshMs
      await this.#sleep(Math.min(restMs, Math.max(0, window.endMs - this.#now())), signal)
    }
  }

  /** One fill, left when a better link has come up or the battery lets less. */
  async *#fillIn(
    open: OpenWindow,
    priorityMax: NonNullable<FillLimits['priorityMax']>,
    stop: AbortSignal,
    ended: { failure?: Failure; hasFailed: boolean },
  ): AsyncGenerator<WarmerEvent> {
    const { links, fill } = this.#tools
    const signal = AbortSignal.any([stop, open.signal])
    const timer = setInterval(() => void this.#watch(open, priorityMax, signal), this.#lookMs)
    try {
      const limits = { priorityMax, wireBytesMax: open.bytesLeft }
      for await (const event of fill({ upstreams: open.upstreams, window: open.window.id, limits, signal })) {
        if (event.type === 'failed') ended.hasFailed = true
        if (event.type === 'retry' || event.type === 'failed') this.#blame(open.link, event.code)
        if (event.type === 'refreshed') links.report(open.link, true)
        yield event
      }
    } catch (error) {
      if (stop.aborted) return
      ended.hasFailed = !isEdgeError(error, 'WINDOW_CLOSED')
      ended.failure = failureOf('', open.signal.aborted ? open.signal.reason : error)
      this.#blame(open.link, ended.failure.code)
      if (ended.hasFailed) yield { type: 'failed', ...ended.failure }
    } finally {
      clearInterval(timer)
    }
  }

  async #watch(open: OpenWindow, priorityMax: number, signal: AbortSignal): Promise<void> {
    const { links, readPower } = this.#tools
    await links.probe({ signal }).catch(() => undefined)
    if (signal.aborted) return
    const best = links.best()
    if (best !== undefined && best !== open.link) open.close(`${open.link}: ${best} is better now`)
    this.#shed = planShedding(await readPower(), this.#shed)
    if (priorityAllowed(this.#shed) < priorityMax) open.close('the battery is low')
  }

  async *#lookAtPower(): AsyncGenerator<WarmerEvent> {
    const power = await this.#tools.readPower()
    const shed = planShedding(power, this.#shed)
    const changed = shed.symmetricDifference(this.#shed).size > 0
    this.#shed = shed
    if (changed) yield { type: 'shedding', shed: [...shed], percent: power.percent }
  }

  #blame(link: string, code: string): void {
    if (code === 'UPSTREAM_UNREACHABLE' || code === 'UPSTREAM_STALLED') this.#tools.links.report(link, false)
  }

  async #sleep(ms: number, signal: AbortSignal): Promise<void> {
    await sleep(Math.max(0, Math.min(ms, 2 ** 31 - 1)), undefined, {
      signal: AbortSignal.any([signal, this.#wake.signal]),
    }).catch(() => undefined)
    if (this.#wake.signal.aborted) this.#wake = new AbortController()
  }
}

function whyNot(states: readonly LinkState[]): string {
  return states.map(({ link, why }) => `${link.name}: ${why || 'usable'}`).join('; ')
}
