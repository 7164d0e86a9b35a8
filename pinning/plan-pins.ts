/**
 * What a reconciler has to do, decided from three lists and nothing else: what is wished, what the
 * target says it keeps, and what we remember of it.
 */
import type { Cid } from '../manifests/cid.ts'

export type PinStatus = 'queued' | 'pinning' | 'pinned' | 'failed' | 'unexpectedly-unpinned'

export interface WantedPin {
  readonly root: Cid
  readonly sizeBytes: number
  /** For people: which policy or operator wished it. */
  readonly why: string
}

export interface KnownPin {
  readonly root: Cid
  readonly status: PinStatus
  readonly attempts: number
  /** Unix time in ms before which a failed pin is not tried again. */
  readonly retryAtMs: number
}

export interface PinPlan {
  /** To pin now, in the order of the wishes. */
  readonly pin: readonly WantedPin[]
  /** Pinned before, gone now, without our doing: also in `pin`. */
  readonly lost: readonly Cid[]
  /** Already kept: only the record needs a touch. */
  readonly kept: readonly WantedPin[]
  /** Kept by our doing and no longer wished. What others pinned there is never touched. */
  readonly unpin: readonly Cid[]
  /** Wished, but waiting for its back-off. */
  readonly waiting: readonly Cid[]
}

export function planPins(
  wanted: readonly WantedPin[],
  observed: ReadonlySet<Cid>,
  known: ReadonlyMap<Cid, KnownPin>,
  nowMs: number,
): PinPlan {
  const wishes = new Map(wanted.map(pin => [pin.root, pin]))
  const pin: WantedPin[] = []
  const lost: Cid[] = []
  const kept: WantedPin[] = []
  const waiting: Cid[] = []
  for (const wish of wishes.values()) {
    const before = known.get(wish.root)
    if (observed.has(wish.root)) kept.push(wish)
    else if (before?.status === 'failed' && before.retryAtMs > nowMs) waiting.push(wish.root)
    else {
      pin.push(wish)
      if (before?.status === 'pinned') lost.push(wish.root)
    }
  }
  const unpin = [...known.keys()].filter(root => !wishes.has(root))
  return { pin, lost, kept, unpin, waiting }
}

/** Doubles from 1 s to 15 s: a target that returns has its pins again within half a minute. */
export function retryDelayMs(attempts: number): number {
  return Math.min(15_000, 1000 * 2 ** Math.min(attempts - 1, 10))
}

/**
 * Whether the wishes fit. `roomBytes` is what the target can still take, undefined when unknown.
 * @returns the shortfall in bytes, 0 when they fit. Shared blocks are counted once per item: the
 * answer errs on the safe side.
 */
export function shortfallBytes(pin: readonly WantedPin[], roomBytes: number | undefined): number {
  if (roomBytes === undefined) return 0
  return Math.max(0, pin.reduce((sum, { sizeBytes }) => sum + sizeBytes, 0) - roomBytes)
}
