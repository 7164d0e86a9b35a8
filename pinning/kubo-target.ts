/**
 * Kubo as a pin target: blocks go in as one CAR stream per batch, pinned recursively by our own
 * root CIDs, which Kubo computes the same way. Small files lie in its mutable file system, which
 * garbage collection spares.
 *
 * Kubo writes without fsync and reads without hashing by default (docs/pinning.md sets both), so it
 * is a replica that can be rebuilt, never the authority. kubo-rpc-client ignores `timeout`: every
 * call here carries an AbortSignal of its own. Loaded lazily: the client costs 50 MB of memory.
 */
import type { KuboRPCClient } from 'kubo-rpc-client'
import pLimit from 'p-limit'
import { type Cid, parseCid } from '../manifests/cid.ts'
import { EdgeError } from '../manifests/errors.ts'
import type { Abortable, DagNode } from '../manifests/extent.ts'
import { carOf } from '../manifests/car.ts'
import { blocksOfCar } from '../manifests/car-reader.ts'
import { importCar } from './kubo-import.ts'
import { EXTENT_BYTES_MAX } from '../manifests/unixfs.ts'
import type { PinFiles, PinItem, PinOptions, PinOutcome, PinTarget } from './pin-target.ts'

export interface KuboOptions {
  /** `http://127.0.0.1:5001` */
  readonly apiUrl: string
  /** `kubo` when it is the only one. */
  readonly name?: string
  /** A call that moves no content must answer within this; a list of all pins within twice as long. */
  readonly callMs: number
  /** Per batch of pins; long, since content moves. */
  readonly importMs: number
}

/** Where our files are in Kubo's mutable file system. */
const FILES = '/towerlight'
const SETTLED = 'settled-v1'
/** Kubo must not look for blocks elsewhere: we know the other places ourselves. */
const HERE_ONLY = { offline: true }
/** What is in the database is had without waiting: others get their turn after so long. */
const TURN_MS = 1
/** Batches of so much hold whole extents, of up to 8 MiB each, in memory. */
const LARGE_BYTES = 8 * 1024 * 1024
const LARGE_AT_ONCE = 2
/** Calls under way together. */
const UNPINNED_AT_ONCE = 32

export async function openKuboTarget(options: KuboOptions): Promise<PinTarget> {
  const [{ create }, { CID }] = await Promise.all([import('kubo-rpc-client'), import('multiformats/cid')])
  const client = create({ url: options.apiUrl })
  const { apiUrl, callMs, importMs } = options
  const files = filesOf(client, callMs)
  const large = pLimit(LARGE_AT_ONCE)

  return {
    name: options.name ?? 'kubo',

    async pin(items, options) {
      const outcomes = new Map<Cid, PinOutcome>()
      let left = items
      while (left.length > 0) {
        const once = () => importBatch(apiUrl, left, importMs, options)
        const isLarge = left.reduce((sum, { sizeBytes }) => sum + sizeBytes, 0) >= LARGE_BYTES
        for (const outcome of isLarge ? await large(once) : await once()) outcomes.set(outcome.root, outcome)
        const before = left.length
        left = left.filter(({ root }) => !outcomes.has(root))
        if (left.length === before) throw down(new Error('it confirmed no pin'))
      }
      return items.map(({ root }) => outcomes.get(root) ?? { root })
    },

    async unpin(roots, { signal }) {
      for (let from = 0; from < roots.length; from += UNPINNED_AT_ONCE) {
        const group = roots.slice(from, from + UNPINNED_AT_ONCE)
        await Promise.all(group.map(root => unpinOne(client, CID.parse(root), within(signal, importMs))))
      }
    },

    async *list({ signal }) {
      try {
        for await (const { cid } of client.pin.ls({
          type: 'recursive',
          signal: within(signal, 2 * callMs),
        })) {
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
      for await (const block of blocksOfCar(exportedDag(client, CID.parse(root), signal, callMs))) {
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

    fetchExtent: ({ cid, sizeBytes }, { signal }) =>
      fetchBytes(apiUrl, `cat?arg=${cid}`, sizeBytes, within(signal, callMs)),

    fetchBlock: (cid, { signal }) =>
      fetchBytes(apiUrl, `block/get?arg=${cid}`, EXTENT_BYTES_MAX, within(signal, callMs)),

    // Kubo syncs its blocks before it notes a new root of its mutable file system, and not for pins
    settle: ({ signal }) => files.write(SETTLED, Buffer.from(`${Date.now()}`), { signal }),

    files,
  }
}

/** A reader may be waiting: by undici, without a turn of web streams for every piece. */
async function fetchBytes(
  apiUrl: string,
  call: string,
  sizeBytes: number,
  signal: AbortSignal,
): Promise<Uint8Array | undefined> {
  const { request } = await import('undici')
  try {
    const url = new URL(`/api/v0/${call}&offline=true`, apiUrl)
    const { statusCode, body } = await request(url, { method: 'POST', signal })
    if (statusCode === 200) return await collected(body, sizeBytes)
    const text = await body.text()
    if (/not found/.test(text)) return undefined
    throw new Error(`it answered ${statusCode}: ${text.slice(0, 300)}`)
  } catch (cause) {
    throw cause instanceof EdgeError ? cause : down(cause)
  }
}

async function unpinOne(
  client: KuboRPCClient,
  root: Parameters<KuboRPCClient['pin']['rm']>[0],
  signal: AbortSignal,
): Promise<void> {
  try {
    await client.pin.rm(root, { recursive: true, signal })
  } catch (cause) {
    if (!/not pinned/.test(String(cause))) throw down(cause)
  }
}

function filesOf(client: KuboRPCClient, callMs: number): PinFiles {
  const whenThere = async <T>(call: Promise<T>): Promise<T | undefined> => {
    try {
      return await call
    } catch (cause) {
      if (/does not exist/.test(String(cause))) return undefined
      throw cause instanceof EdgeError ? cause : down(cause)
    }
  }
  return {
    async read(path, maxBytes, { signal }) {
      const until = { signal: within(signal, callMs) }
      const found = await whenThere(client.files.stat(`${FILES}/${path}`, until))
      if (!found) return undefined
      if (found.size > maxBytes)
        throw new EdgeError('UPSTREAM_LIED', `${path} has ${found.size} bytes in Kubo`)
      return await collected(client.files.read(`${FILES}/${path}`, until), found.size)
    },
    async write(path, bytes, { signal }) {
      const how = { create: true, parents: true, truncate: true, cidVersion: 1, rawLeaves: true } as const
      try {
        await client.files.write(`${FILES}/${path}`, bytes, { ...how, signal: within(signal, callMs) })
      } catch (cause) {
        throw down(cause)
      }
    },
    async list(folder, { signal }) {
      const found: string[] = []
      const walk = async (below: string): Promise<void> => {
        const entries = await whenThere(
          Array.fromAsync(client.files.ls(`${FILES}/${below}`, { signal: within(signal, callMs) })),
        )
        for (const { name, type } of entries ?? []) {
          if (type === 'directory') await walk(`${below}${name}/`)
          else found.push(`${below}${name}`)
        }
      }
      await walk(folder)
      return found
    },
    async remove(paths, { signal }) {
      for (const path of paths)
        await whenThere(client.files.rm(`${FILES}/${path}`, { signal: within(signal, callMs) }))
    },
  }
}

/**
 * One CAR with all items' blocks, pinned by their roots. An item that cannot be read spoils its
 * archive: then the answer is about that item alone, and the others go again without it.
 */
async function importBatch(
  apiUrl: string,
  items: readonly PinItem[],
  importMs: number,
  { signal }: PinOptions,
): Promise<readonly PinOutcome[]> {
  const unreadable = new Map<Cid, Error>()
  const roots = items.map(({ root }) => root)
  const archive = carOf(roots, blocksOf(items, unreadable, { signal }))
  try {
    return await importCar(apiUrl, archive, { signal: within(signal, importMs) })
  } catch (cause) {
    signal.throwIfAborted()
    if (unreadable.size === 0) throw down(cause)
    return [...unreadable].map(([root, error]) => ({ root, error }))
  }
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
  let turnEnds = performance.now() + TURN_MS
  for (const item of items) {
    try {
      for await (const block of cutIntoBlocks(item, options)) {
        if (sent.has(block.cid)) continue
        sent.add(block.cid)
        yield block
        if (performance.now() < turnEnds) continue
        await new Promise(resolve => setImmediate(resolve))
        turnEnds = performance.now() + TURN_MS
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
  callMs: number,
): AsyncGenerator<Uint8Array> {
  // a large item takes long; a server that hangs is noticed by the first pause
  const stalled = new AbortController()
  const timer = setTimeout(() => stalled.abort(new Error(`no byte for ${callMs} ms`)), callMs)
  try {
    for await (const piece of client.dag.export(root, {
      signal: AbortSignal.any([signal, stalled.signal]),
      ...HERE_ONLY,
    })) {
      yield piece
      timer.refresh()
    }
  } catch (cause) {
    throw down(cause)
  } finally {
    clearTimeout(timer)
  }
}

/** Undefined when it is more than `sizeBytes`, or not there. */
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
    if (/not found/.test(String(cause))) return undefined
    throw down(cause)
  }
  return Buffer.concat(pieces)
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
