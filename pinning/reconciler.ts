/**
 * Brings a pin target from what it keeps to what is wished, and says how far it got. Safe to run
 * again at any time: it begins by asking the target. One round is bounded in what it moves at once;
 * a target that is down ends the round, and the next begins where this one stopped.
 */
import { EdgeError, isEdgeError } from '../manifests/errors.ts'
import type { Cid } from '../manifests/cid.ts'
import type { Abortable } from '../manifests/extent.ts'
import type { PinRecord, PinRow } from './pin-record.ts'
import type { PinItem, PinTarget } from './pin-target.ts'
import { planPins, type PinStatus, retryDelayMs, shortfallBytes, type WantedPin } from './plan-pins.ts'

/** Where wishes and content come from; the composition root joins it to the library. */
export interface PinSource {
  wanted(): AsyncIterable<WantedPin>
  /** Undefined while the item is not whole here: it is pinned in a later round. */
  item(root: Cid): PinItem | undefined
}

export interface RoundReport {
  readonly target: string
  readonly pinned: number
  readonly failed: number
  readonly unpinned: number
  readonly lost: number
  /** Wished but not here yet, or backing off. */
  readonly waiting: number
  readonly bytes: number
}

export interface RoundProgress {
  readonly target: string
  readonly done: number
  readonly total: number
  readonly bytes: number
}

/** One batch is one request to Kubo: large enough to amortise it, small enough to show progress. */
const BATCH_ITEMS = 256
const BATCH_BYTES = 64 * 1024 * 1024

/**
 * @throws EdgeError `PIN_TARGET_DOWN`; `PIN_REFUSED` with the shortfall, before anything moves.
 */
export async function reconcile(
  {
    target,
    source,
    record,
    nowMs,
    onProgress,
  }: {
    readonly target: PinTarget
    readonly source: PinSource
    readonly record: PinRecord
    readonly nowMs: () => number
    readonly onProgress?: (progress: RoundProgress) => void
  },
  options: Abortable,
): Promise<RoundReport> {
  const observed = new Set(await Array.fromAsync(target.list(options)))
  const wanted = await Array.fromAsync(source.wanted())
  const known = record.known(target.name)
  const plan = planPins(wanted, observed, known, nowMs())

  const rowOf = (pin: WantedPin, status: PinStatus, error: string | null = null): PinRow => {
    const before = known.get(pin.root)
    const attempts = status === 'failed' ? (before?.attempts ?? 0) + 1 : 0
    const retryAtMs = status === 'failed' ? nowMs() + retryDelayMs(attempts) : 0
    const provedAtMs = before?.provedAtMs ?? null
    return { ...pin, target: target.name, status, attempts, retryAtMs, error, provedAtMs }
  }

  const short = shortfallBytes(plan.pin, plan.pin.length > 0 ? await target.roomBytes(options) : undefined)
  if (short > 0) {
    throw new EdgeError(
      'PIN_REFUSED',
      `${target.name} is ${short} bytes short of room for ${plan.pin.length} pins`,
    )
  }
  record.put(plan.kept.map(pin => rowOf(pin, 'pinned')))
  const lost = new Set(plan.lost)
  record.put(plan.pin.map(pin => rowOf(pin, lost.has(pin.root) ? 'unexpectedly-unpinned' : 'queued')))

  let bytes = 0
  let pinned = 0
  let failed = 0
  let absent = 0
  for (const batch of batchesOf(plan.pin)) {
    options.signal.throwIfAborted()
    const items = batch.flatMap(pin => source.item(pin.root) ?? [])
    absent += batch.length - items.length
    const wishOf = new Map(batch.map(pin => [pin.root, pin]))
    record.put(items.map(item => rowOf(wishOf.get(item.root) as WantedPin, 'pinning')))
    const outcomes = items.length > 0 ? await target.pin(items, options) : []
    record.put(
      outcomes.map(({ root, error }) =>
        rowOf(wishOf.get(root) as WantedPin, error ? 'failed' : 'pinned', error?.message),
      ),
    )
    for (const { root, error } of outcomes) {
      if (error) failed++
      else {
        pinned++
        bytes += wishOf.get(root)?.sizeBytes ?? 0
      }
    }
    onProgress?.({ target: target.name, done: pinned + failed + absent, total: plan.pin.length, bytes })
  }

  for (const root of plan.unpin) if (observed.has(root)) await target.unpin(root, options)
  record.forget(target.name, plan.unpin)
  return {
    target: target.name,
    pinned,
    failed,
    unpinned: plan.unpin.length,
    lost: plan.lost.length,
    waiting: absent + plan.waiting.length,
    bytes,
  }
}

/** A round's failure that the next round may not have: the target was away. */
export function isPassing(error: unknown): error is EdgeError {
  return isEdgeError(error, 'PIN_TARGET_DOWN')
}

function* batchesOf(pins: readonly WantedPin[]): Generator<WantedPin[]> {
  let batch: WantedPin[] = []
  let bytes = 0
  for (const pin of pins) {
    if (batch.length === BATCH_ITEMS || (batch.length > 0 && bytes + pin.sizeBytes > BATCH_BYTES)) {
      yield batch
      batch = []
      bytes = 0
    }
    batch.push(pin)
    bytes += pin.sizeBytes
  }
  if (batch.length > 0) yield batch
}
