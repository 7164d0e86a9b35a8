/**
 * An item's digests in one pass over its bytes: SHA-256 of the whole, its chunks and their digests,
 * its extents and their nodes. Memory is fixed (about 10 MiB), whatever the item's size.
 *
 * With a second thread the work is shared (hash-helper.ts); without, the same steps are done here.
 */
import { createHash } from 'node:crypto'
import { Worker } from 'node:worker_threads'
import { sha256Of, type Sha256 } from '../digest.ts'
import type { ExtentRef } from '../extent.ts'
import { CHUNKING, nextCut } from '../fastcdc.ts'
import { ExtentCutter, type CutExtent } from '../unixfs.ts'
import {
  announceCuts,
  AT,
  hashChunks,
  HEADROOM_BYTES,
  ITEM_DIGEST_AT,
  newHashMemory,
  QUIT,
  SEGMENT_BYTES,
  SLOTS,
} from './hash-helper.ts'

export interface HashedItem {
  readonly sizeBytes: number
  readonly sha256: Sha256
  /** In order, at least one. */
  readonly extents: readonly ExtentRef[]
}

/** Fills the buffer from a position on; fewer bytes than it has room for mean the end. */
export type ReadInto = (buffer: Uint8Array, position: number) => Promise<number>

export interface ItemHasher extends AsyncDisposable {
  /** One item at a time. */
  hash(read: ReadInto): Promise<HashedItem>
}

/** @param threads 2 uses a second thread, which ends with `dispose`. */
export function openItemHasher(threads: 1 | 2): ItemHasher {
  const memory = newHashMemory()
  const helper = threads === 2 ? openHelper(memory) : inlineHelper(memory)

  return {
    async hash(read) {
      const extents = new ExtentRefs()
      let position = 0
      let leftover = 0
      let reading = read(memory.slots[0]!.subarray(HEADROOM_BYTES), 0)
      for (let segment = 0, isLast = false; !isLast; segment++) {
        const slot = memory.slots[segment % SLOTS]!
        const filled = await reading
        const to = HEADROOM_BYTES + filled
        position += filled
        isLast = filled < SEGMENT_BYTES
        const done = helper.begin(segment % SLOTS, to, segment === 0, isLast)
        const following = memory.slots[(segment + 1) % SLOTS]!
        if (!isLast) {
          reading = read(following.subarray(HEADROOM_BYTES), position)
          reading.catch(() => {}) // awaited above, in its turn
        }

        const { cuts, end } = cutSegment(slot, HEADROOM_BYTES - leftover, to, isLast, memory.ends)
        announceCuts(memory, cuts)
        hashChunks(memory, slot)
        await done()
        for (let at = 0; at < cuts; at++)
          extents.add(memory.ends[at + 1]! - memory.ends[at]!, hexAt(memory.digests, at * 32))
        leftover = to - end
        following.set(slot.subarray(end, to), HEADROOM_BYTES - leftover)
      }
      return { sizeBytes: position, sha256: hexAt(memory.digests, ITEM_DIGEST_AT), extents: extents.end() }
    },

    async [Symbol.asyncDispose]() {
      await helper.close()
    },
  }
}

/** Bytes at hand, without threads: for small items and for catalogs. */
export function hashSmallItem(bytes: Uint8Array): HashedItem {
  const extents = new ExtentRefs()
  const sha256 = sha256Of(bytes)
  for (let from = 0, to = 0; from < bytes.length; from = to) {
    to = nextCut(bytes, from, bytes.length, CHUNKING)
    extents.add(to - from, to - from === bytes.length ? sha256 : sha256Of(bytes.subarray(from, to)))
  }
  return { sizeBytes: bytes.length, sha256, extents: extents.end() }
}

class ExtentRefs {
  readonly #cutter = new ExtentCutter()
  readonly #extents: ExtentRef[] = []

  add(sizeBytes: number, digest: Sha256): void {
    this.#keep(this.#cutter.add({ digest, sizeBytes }))
  }

  end(): readonly ExtentRef[] {
    this.#keep(this.#cutter.end())
    return this.#extents
  }

  /** Without chunks: an item of 20 GB has 280,000. */
  #keep(cut: CutExtent | undefined): void {
    if (cut)
      this.#extents.push({
        cid: cut.extent.cid,
        sizeBytes: cut.extent.sizeBytes,
        dagBytes: cut.extent.dagBytes,
      })
  }
}

/** Writes where chunks end, as far as that is known: up to `end`. */
function cutSegment(
  slot: Uint8Array,
  from: number,
  to: number,
  isLast: boolean,
  ends: Int32Array,
): { cuts: number; end: number } {
  let cuts = 0
  let end = from
  ends[0] = from
  while (isLast ? end < to : to - end >= CHUNKING.maxBytes) {
    end = nextCut(slot, end, to, CHUNKING)
    ends[++cuts] = end
  }
  return { cuts, end }
}

function hexAt(bytes: Uint8Array, at: number): Sha256 {
  return Buffer.from(bytes.buffer, bytes.byteOffset + at, 32).toString('hex') as Sha256
}

interface Helper {
  /** Runs the item's digest over a segment. @returns what waits until that and all its chunks are hashed. */
  begin(slot: number, to: number, isFirst: boolean, isLast: boolean): () => Promise<void>
  close(): Promise<void>
}

type HashMemory = ReturnType<typeof newHashMemory>

function inlineHelper(memory: HashMemory): Helper {
  let item = createHash('sha256')
  return {
    begin(slot, to, isFirst, isLast) {
      if (isFirst) item = createHash('sha256')
      item.update(memory.slots[slot]!.subarray(HEADROOM_BYTES, to))
      if (isLast) memory.digests.set(item.digest(), ITEM_DIGEST_AT)
      announceCuts(memory)
      return async () => {}
    },
    async close() {},
  }
}

function openHelper(memory: HashMemory): Helper {
  const { control } = memory
  const worker = new Worker(new URL('./hash-helper.ts', import.meta.url), {
    workerData: { hashMemory: memory },
    execArgv: [], // flags of the main thread, `--eval` among them, are not meant for it
  })
  const ended = new Promise<void>(resolve => worker.once('exit', () => resolve()))
  const failed = new Promise<never>((_, reject) => worker.once('error', reject))
  failed.catch(() => {}) // told to whoever waits
  const gone = ended.then(() => Promise.reject(new Error('the thread that hashes has ended')))
  gone.catch(() => {})
  let command = 0
  const send = (slot: number) => {
    control[AT.slot] = slot
    Atomics.store(control, AT.command, ++command)
    Atomics.notify(control, AT.command)
  }
  return {
    begin(slot, to, isFirst, isLast) {
      control[AT.to] = to
      control[AT.isFirst] = Number(isFirst)
      control[AT.isLast] = Number(isLast)
      announceCuts(memory)
      send(slot)
      return async () => {
        const waiting = Atomics.waitAsync(control, AT.done, command - 1)
        if (waiting.async) await Promise.race([waiting.value, failed, gone])
      }
    },
    async close() {
      send(QUIT)
      await ended
    },
  }
}
