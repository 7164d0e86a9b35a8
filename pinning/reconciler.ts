/**
 * Brings a pin target from what it keeps to what is wished, and says how far it got. Safe to run
 * again at any time: it begins by asking the target. One round is bounded in what it moves at once;
 * a target that is down ends the round, and the next begins where this one stopped.
 */
import { EdgeError } from '../manifests/errors.ts'
import type { Abortable } from '../manifests/extent.ts'
import type { PinRecord, PinRow } from './pin-record.ts'
import type { PinItem, PinTarget } from './pin-target.ts'
import { planPins, type PinStatus, retryDelayMs, shortfallBytes, type WantedPin } from './plan-pins.ts'

/** Where wishes and content come from (`library-source.ts`). */
export interface PinSource {
  wanted(options: Abortable): Promise<Wishes>
  /** Undefined while the item is not whole here: it is pinned in a later round. */
  item(wish: Pick<WantedPin, 'root' | 'sizeBytes'>): PinItem | undefined
}

export interface Wishes {
  readonly pins: readonly WantedPin[]
  /** False when something could not be asked just now: then nothing is let go. */
  readonly complete: boolean
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
const BATCH_ITEMS = 128
const BATCH_BYTES = 16 * 1024 * 1024
/** While one batch is being pinned, which costs Kubo a sync of its disk for each, others travel. */
const BATCHES_AT_ONCE = 4

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
  const { pins: wanted, complete } = await source.wanted(options)
  const known = await record.known(target.name)
  const plan = planPins(wanted, observed, known, nowMs())

  const rowOf = (pin: WantedPin, status: PinStatus, error: string | null = null): PinRow => {
    const { root, sizeBytes, why } = pin
    const before = known.get(root)
    const attempts = status === 'failed' ? (before?.attempts ?? 0) + 1 : 0
    const retryAtMs = status === 'failed' ? nowMs() + retryDelayMs(attempts) : 0
    const provedAtMs = before?.provedAtMs ?? null
    return { target: target.name, root, sizeBytes, why, status, attempts, retryAtMs, error, provedAtMs }
  }
  const isNews = ({ root, why }: WantedPin) => {
    const before = known.get(root)
    return before?.status !== 'pinned' || before.why !== why
  }
  await record.put(plan.kept.filter(isNews).map(pin => rowOf(pin, 'pinned')))
  const lost = new Set(plan.lost)
  await record.put(
    plan.pin
      .filter(pin => lost.has(pin.root) || known.get(pin.root)?.status !== 'queued')
      .map(pin => rowOf(pin, lost.has(pin.root) ? 'unexpectedly-unpinned' : 'queued')),
  )

  // what is not whole here waits; the rest has to fit, all of it (I4)
  const ready = plan.pin.filter(pin => source.item(pin) !== undefined)
  const short = shortfallBytes(ready, ready.length > 0 ? await target.roomBytes(options) : undefined)
  if (short > 0) {
    throw new EdgeError(
      'PIN_REFUSED',
      `${target.name} is ${short} bytes short of room for ${ready.length} pins`,
    )
  }

  let bytes = 0
  let pinned = 0
  let failed = 0
  let gone = 0
  const pinBatch = async (batch: readonly WantedPin[]) => {
    const items = batch.flatMap(pin => source.item(pin) ?? [])
    gone += batch.length - items.length
    const wishOf = new Map(batch.map(pin => [pin.root, pin]))
    await record.put(items.map(item => rowOf(wishOf.get(item.root) as WantedPin, 'pinning')))
    const outcomes = items.length > 0 ? await target.pin(items, options) : []
    await record.put(
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
    onProgress?.({ target: target.name, done: pinned + failed + gone, total: ready.length, bytes })
  }
  await someAtOnce(batchesOf(ready), BATCHES_AT_ONCE, pinBatch, options)

  const unpin = complete ? plan.unpin : []
  const held = unpin.filter(root => observed.has(root))
  if (held.length > 0) await target.unpin(held, options)
  await record.forget(target.name, unpin)
  return {
    target: target.name,
    pinned,
    failed,
    unpinned: unpin.length,
    lost: plan.lost.length,
    waiting: plan.pin.length - ready.length + gone + plan.waiting.length,
    bytes,
  }
}

/** The first failure stops the rest; all that began has ended when this returns. */
async function someAtOnce<T>(
  all: Iterable<T>,
  atOnce: number,
  work: (one: T) => Promise<void>,
  { signal }: Abortable,
): Promise<void> {
  const left = all[Symbol.iterator]()
  let failure: { readonly error: unknown } | undefined
  const worker = async () => {
    for (let next = left.next(); !next.done && !failure; next = left.next()) {
      try {
        signal.throwIfAborted()
        await work(next.value)
      } catch (error) {
        failure ??= { error }
      }
    }
  }
  await Promise.all(Array.from({ length: atOnce }, worker))
  if (failure) throw failure.error
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
