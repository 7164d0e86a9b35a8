/**
 * Kubo as a pin target: blocks go in as one CAR stream per batch, pinned recursively by our own
 * root CIDs, which Kubo computes the same way.
 *
 * Kubo writes without fsync and reads without hashing by default (docs/pinning.md sets both), so it
 * is a replica that can be rebuilt, never the authority. kubo-rpc-client ignores `timeout`: every
 * call here carries an AbortSignal of its own. Loaded lazily: the client costs 50 MB of memory.
 */
import type { KuboRPCClient } from 'kubo-rpc-client'
import { type Cid, parseCid } from '../manifests/cid.ts'
import { EdgeError } from '../manifests/errors.ts'
import type { Abortable, DagNode } from '../manifests/extent.ts'
import { carOf } from '../manifests/car.ts'
import { blocksOfCar } from '../manifests/car-reader.ts'
import type { PinItem, PinOutcome, PinTarget } from './pin-target.ts'

export interface KuboOptions {
  /** `http://127.0.0.1:5001` */
  readonly apiUrl: string
  /** A call that moves no content must answer within this. */
  readonly callMs: number
  /** Per batch of pins; long, since content moves. */
  readonly importMs: number
}

const PIECE_BYTES = 256 * 1024

export async function openKuboTarget(options: KuboOptions): Promise<PinTarget> {
  const [{ create }, { CID }] = await Promise.all([import('kubo-rpc-client'), import('multiformats/cid')])
  const client = create({ url: options.apiUrl })
  const { callMs, importMs } = options

  return {
    name: 'kubo',

    async pin(items, options) {
      const outcomes = new Map<Cid, PinOutcome>()
      let left = items
      while (left.length > 0) {
        for (const outcome of await importBatch(client, left, importMs, options))
          outcomes.set(outcome.root, outcome)
        const before = left.length
        left = left.filter(({ root }) => !outcomes.has(root))
        if (left.length === before) throw down(new Error('it confirmed no pin'))
      }
      return items.map(({ root }) => outcomes.get(root) ?? { root })
    },

    async unpin(root, { signal }) {
      try {
        await client.pin.rm(CID.parse(root), { recursive: true, signal: within(signal, callMs) })
      } catch (cause) {
        if (!/not pinned/.test(String(cause))) throw down(cause)
      }
    },

    async *list({ signal }) {
      try {
        for await (const { cid } of client.pin.ls({ type: 'recursive', signal: within(signal, importMs) })) {
          const root = ourCid(cid.toString())
          if (root) yield root
        }
      } catch (cause) {
        throw down(cause)
      }
    },

    async prove({ root }, { signal }) {
      let bytesRead = 0
      const missing = new Set<Cid>([root])
      const seen = new Set<Cid>()
      const { parseNode } = await import('../manifests/unixfs.ts')
      for await (const block of blocksOfCar(exportedDag(client, CID.parse(root), signal, importMs))) {
        bytesRead += block.bytes.length
        missing.delete(block.cid)
        seen.add(block.cid)
        if (!block.cid.startsWith('bafk')) {
          for (const { cid } of parseNode(block.bytes).links) if (!seen.has(cid)) missing.add(cid)
        }
      }
      if (missing.size > 0)
        throw new EdgeError('CHUNK_ABSENT', `Kubo lacks ${missing.size} blocks of ${root}`)
      return { bytesRead }
    },

    async roomBytes({ signal }) {
      try {
        const { repoSize, storageMax } = await client.repo.stat({ signal: within(signal, callMs) })
        return Math.max(0, Number(storageMax) - Number(repoSize))
      } catch (cause) {
        throw down(cause)
      }
    },

    async fetchExtent({ cid, sizeBytes }, { signal }) {
      const content = client.cat(CID.parse(cid), { signal: within(signal, callMs) })
      return collected(content, sizeBytes)
    },

    async fetchNode(cid, { signal }) {
      try {
        return await client.block.get(CID.parse(cid), { signal: within(signal, callMs) })
      } catch (cause) {
        throw down(cause)
      }
    },
  }
}

/**
 * One CAR with all items' blocks, pinned by their roots. An item that cannot be read spoils its
 * archive: then the answer is about that item alone, and the others go again without it.
 */
async function importBatch(
  client: KuboRPCClient,
  items: readonly PinItem[],
  importMs: number,
  { signal }: Abortable,
): Promise<readonly PinOutcome[]> {
  const unreadable = new Map<Cid, Error>()
  const roots = items.map(({ root }) => root)
  const archive = inLargePieces(carOf(roots, blocksOf(items, unreadable, { signal })))
  const outcomes: PinOutcome[] = []
  try {
    const answers = client.dag.import([archive], { pinRoots: true, signal: within(signal, importMs) })
    for await (const {
      root: { cid, pinErrorMsg },
    } of answers) {
      const root = parseCid(cid.toString())
      outcomes.push(pinErrorMsg ? { root, error: new Error(pinErrorMsg) } : { root })
    }
    return outcomes
  } catch (cause) {
    signal.throwIfAborted()
    if (unreadable.size === 0) throw down(cause)
    return [...unreadable].map(([root, error]) => ({ root, error }))
  }
}

/** Small blocks would each cost a turn through fetch's streams: twice the time for 2,000 small items. */
async function* inLargePieces(pieces: AsyncIterable<Uint8Array>): AsyncGenerator<Uint8Array> {
  let gathered: Uint8Array[] = []
  let sizeBytes = 0
  for await (const piece of pieces) {
    gathered.push(piece)
    sizeBytes += piece.length
    if (sizeBytes < PIECE_BYTES) continue
    yield Buffer.concat(gathered)
    gathered = []
    sizeBytes = 0
  }
  if (sizeBytes > 0) yield Buffer.concat(gathered)
}

/**
 * All blocks of all items, each once. An item that cannot be read is noted, and ends the stream: a
 * CAR that lacks blocks must not be imported as if it were whole.
 */
async function* blocksOf(
  items: readonly PinItem[],
  failed: Map<Cid, Error>,
  options: Abortable,
): AsyncGenerator<DagNode> {
  const { cutIntoBlocks } = await import('./item-blocks.ts')
  const sent = new Set<Cid>()
  for (const item of items) {
    try {
      for await (const block of cutIntoBlocks(item, options)) {
        if (sent.has(block.cid)) continue
        sent.add(block.cid)
        yield block
      }
    } catch (error) {
      failed.set(item.root, error instanceof Error ? error : new Error(String(error)))
      throw error
    }
  }
}

async function* exportedDag(
  client: KuboRPCClient,
  root: Parameters<KuboRPCClient['dag']['export']>[0],
  signal: AbortSignal,
  importMs: number,
): AsyncGenerator<Uint8Array> {
  try {
    yield* client.dag.export(root, { signal: within(signal, importMs) })
  } catch (cause) {
    throw down(cause)
  }
}

/** At most `sizeBytes`; undefined when there are fewer. */
async function collected(
  content: AsyncIterable<Uint8Array>,
  sizeBytes: number,
): Promise<Uint8Array | undefined> {
  const pieces: Uint8Array[] = []
  let length = 0
  try {
    for await (const piece of content) {
      length += piece.length
      if (length > sizeBytes) return undefined
      pieces.push(piece)
    }
  } catch (cause) {
    throw down(cause)
  }
  return length === sizeBytes ? Buffer.concat(pieces) : undefined
}

function within(signal: AbortSignal, ms: number): AbortSignal {
  return AbortSignal.any([signal, AbortSignal.timeout(ms)])
}

/** Kubo may hold pins of others, with CIDs that are not of our form. */
function ourCid(text: string): Cid | undefined {
  try {
    return parseCid(text)
  } catch {
    return undefined
  }
}

function down(cause: unknown): EdgeError {
  const reason = cause instanceof Error ? cause.message : String(cause)
  return new EdgeError('PIN_TARGET_DOWN', `Kubo did not answer: ${reason}`, { cause })
}
