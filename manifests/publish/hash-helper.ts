/**
 * The second thread of hashing: while the first one looks for chunk ends in a segment, this one
 * runs the item's SHA-256 over it; then both take the segment's chunks, one at a time, until all
 * are hashed. So two cores share the work evenly whatever their speed (bench/chunk-hash.ts).
 *
 * Segments lie in shared memory and a few shared numbers tell each thread what the other one has
 * done. This file is the helper's thread and the memory's layout.
 */
import { createHash, hash } from 'node:crypto'
import { isMainThread, workerData } from 'node:worker_threads'

export const SEGMENT_BYTES = 4 * 1024 * 1024
/** Before each segment: what the previous one left uncut, less than the largest chunk. */
export const HEADROOM_BYTES = 256 * 1024
export const SLOTS = 2
const SLOT_BYTES = HEADROOM_BYTES + SEGMENT_BYTES
/** Chunks that can end in one slot: the smallest have 16 KiB, but for an item's last. */
const CHUNKS_MAX = SLOT_BYTES / (16 * 1024) + 1
const DIGEST_BYTES = 32

/** Places in `control`. */
export const AT = { command: 0, slot: 1, to: 2, isFirst: 3, isLast: 4, cuts: 5, nextCut: 6, done: 7 } as const
const CONTROL_LENGTH = 8
const NOT_CUT = -1
export const QUIT = -1

export interface HashMemory {
  readonly control: Int32Array<SharedArrayBuffer>
  /** Where each chunk of the segment ends in its slot; the first begins at `ends[0]`. */
  readonly ends: Int32Array<SharedArrayBuffer>
  /** 32 bytes for each chunk, then the item's. */
  readonly digests: Uint8Array<SharedArrayBuffer>
  readonly slots: readonly Uint8Array<SharedArrayBuffer>[]
}

export const ITEM_DIGEST_AT = CHUNKS_MAX * DIGEST_BYTES

export function newHashMemory(): HashMemory {
  return {
    control: new Int32Array(new SharedArrayBuffer(CONTROL_LENGTH * 4)),
    ends: new Int32Array(new SharedArrayBuffer((CHUNKS_MAX + 1) * 4)),
    digests: new Uint8Array(new SharedArrayBuffer((CHUNKS_MAX + 1) * DIGEST_BYTES)),
    slots: Array.from({ length: SLOTS }, () => new Uint8Array(new SharedArrayBuffer(SLOT_BYTES))),
  }
}

/** Hashes chunks of the current segment that no thread has taken yet, until there are none. */
export function hashChunks({ control, ends, digests }: HashMemory, slot: Uint8Array): void {
  const cuts = Atomics.load(control, AT.cuts)
  for (let at = Atomics.add(control, AT.nextCut, 1); at < cuts; at = Atomics.add(control, AT.nextCut, 1)) {
    digests.set(hash('sha256', slot.subarray(ends[at], ends[at + 1]), 'buffer'), at * DIGEST_BYTES)
  }
}

/** To be called before the helper is told of a segment, and then with the number of its chunks. */
export function announceCuts({ control }: HashMemory, cuts?: number): void {
  if (cuts === undefined) Atomics.store(control, AT.nextCut, 0)
  Atomics.store(control, AT.cuts, cuts ?? NOT_CUT)
  Atomics.notify(control, AT.cuts)
}

function serve(memory: HashMemory): void {
  const { control, digests, slots } = memory
  let item = createHash('sha256')
  for (let command = 1; ; command++) {
    Atomics.wait(control, AT.command, command - 1)
    if (control[AT.slot] === QUIT) return
    const slot = slots[control[AT.slot]!]!
    if (control[AT.isFirst] === 1) item = createHash('sha256')
    item.update(slot.subarray(HEADROOM_BYTES, control[AT.to]))
    if (control[AT.isLast] === 1) digests.set(item.digest(), ITEM_DIGEST_AT)
    Atomics.wait(control, AT.cuts, NOT_CUT)
    hashChunks(memory, slot)
    Atomics.store(control, AT.done, command)
    Atomics.notify(control, AT.done)
  }
}

if (!isMainThread && (workerData as { hashMemory?: HashMemory } | null)?.hashMemory) {
  serve((workerData as { hashMemory: HashMemory }).hashMemory)
}
