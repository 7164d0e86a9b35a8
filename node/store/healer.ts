/**
 * Gets lost bytes back: what is still good here, from either tier, then chunk by chunk or whole
 * from the heal sources in their order. Single flight per extent, bounded in time, and proven like
 * anything else before it is used or stored (I1).
 */
import { codecOf, digestOf, rawCidOf, type Cid } from '../../manifests/cid.ts'
import { sha256Of } from '../../manifests/digest.ts'
import { EdgeError } from '../../manifests/errors.ts'
import type { Abortable, ChunkRef, DagNode } from '../../manifests/extent.ts'
import type { ExtentReader } from './extent-reader.ts'
import type { NodeTable } from './node-table.ts'
import { NodeView } from './node-view.ts'
import { badLinks, nodeFromContent } from './prove-extent.ts'
import type { HealSource } from './store.ts'

export interface HealerParts {
  readonly nodes: NodeTable
  readonly reader: ExtentReader
  readonly healMs: number
  readonly isHere: (cid: Cid) => boolean
  /** Stores a whole extent, proving it once more. */
  readonly admit: (cid: Cid, bytes: Uint8Array, source: string) => Promise<void>
  readonly admitNode: (node: DagNode, source: string) => Promise<void>
}

interface Flight {
  /** The chunk that it is for. */
  readonly offset: number
  readonly done: Promise<void>
  /** As soon as that chunk is had; the rest of the extent may take longer. Never, when it is not. */
  readonly had: Promise<void>
  /** Chunks that were had, by where they begin; for those who wait, though the extent could not be mended. */
  readonly chunks: Map<number, Buffer>
}

export class Healer {
  readonly #parts: HealerParts
  readonly #sources: HealSource[] = []
  readonly #flights = new Map<Cid, Flight>()

  constructor(parts: HealerParts) {
    this.#parts = parts
  }

  addSource(source: HealSource): void {
    this.#sources.push(source)
  }

  /** @throws EdgeError `CHUNK_ABSENT` */
  async chunk(extent: Cid, offset: number, chunk: ChunkRef, options: Abortable): Promise<Buffer> {
    for (let attempt = 0; attempt < 2; attempt++) {
      const running = this.#flights.get(extent)
      const flight = running ?? this.#start(extent, offset, chunk)
      const enough = flight.offset === offset ? Promise.race([flight.had, flight.done]) : flight.done
      await untilAborted(enough, options.signal)
      const bytes = await this.#chunkOf(flight, extent, offset, chunk, options)
      if (bytes) return bytes
      if (running?.offset === offset || !running) break // it was for our chunk: there is nothing more to try
    }
    throw new EdgeError('CHUNK_ABSENT', `chunk ${chunk.digest} of extent ${extent} cannot be had now`)
  }

  /** Mends an extent as a whole. @returns whether it is whole now. */
  async extent(cid: Cid, options: Abortable): Promise<boolean> {
    const view =
      codecOf(cid) === 'raw' ? undefined : await this.node(cid, options).then(viewOf, () => undefined)
    const chunk = view
      ? { digest: view.digestAt(0), sizeBytes: view.sizeOf(0) }
      : { digest: digestOf(cid), sizeBytes: 0 }
    const flight = this.#flights.get(cid) ?? this.#start(cid, 0, chunk)
    await untilAborted(flight.done, options.signal)
    return this.#parts.isHere(cid)
  }

  /** @throws EdgeError `CHUNK_ABSENT` */
  async node(cid: Cid, options: Abortable): Promise<Uint8Array> {
    const here = this.#parts.nodes.bytes(cid)
    if (here) return here
    const signal = AbortSignal.any([options.signal, AbortSignal.timeout(this.#parts.healMs)])
    const cutAgain = nodeFromContent(this.#parts.reader, cid)
    const found = cutAgain ? { bytes: cutAgain, source: 'here' } : await this.#fetchBlock(cid, signal)
    if (!found) throw new EdgeError('CHUNK_ABSENT', `node ${cid} cannot be had now`)
    await this.#parts.admitNode({ cid, bytes: found.bytes }, found.source)
    return found.bytes
  }

  #start(extent: Cid, offset: number, chunk: ChunkRef): Flight {
    const { promise: had, resolve } = Promise.withResolvers<void>()
    const chunks = new HadChunks(offset, resolve)
    const signal = AbortSignal.timeout(this.#parts.healMs)
    const done = this.#mend(extent, offset, chunk, chunks, signal).finally(() => this.#flights.delete(extent))
    const flight = { offset, done, had, chunks }
    this.#flights.set(extent, flight)
    return flight
  }

  /** Never throws: what could be had is in `chunks`, or stored. */
  async #mend(
    cid: Cid,
    offset: number,
    chunk: ChunkRef,
    chunks: Map<number, Buffer>,
    signal: AbortSignal,
  ): Promise<void> {
    try {
      if (codecOf(cid) === 'raw') {
        await this.#mendRaw(cid, chunks, signal)
        return
      }
      const view = viewOf(await this.node(cid, { signal }).catch(() => undefined))
      if (!view || view.over !== 'chunks') return
      if (await this.#mendFromHere(cid, view, offset, chunk, chunks, signal)) return
      await this.#mendWhole(cid, view, signal)
    } catch {
      // a full or failing disk: what was had so far still answers those who wait
    }
  }

  async #mendRaw(cid: Cid, chunks: Map<number, Buffer>, signal: AbortSignal): Promise<void> {
    for (const tier of ['hot', 'warm'] as const) {
      const bytes = this.#parts.reader.readUnproven(cid, tier)
      if (bytes && sha256Of(bytes) === digestOf(cid)) return this.#keep(cid, bytes, 'here', chunks)
    }
    for (const source of this.#sources) {
      const bytes =
        (await asked(source.fetchChunk, source, cid, signal)) ??
        (await asked(source.fetchExtent, source, cid, signal))
      if (bytes && sha256Of(bytes) === digestOf(cid))
        return this.#keep(cid, Buffer.from(bytes), source.name, chunks)
    }
  }

  async #keep(cid: Cid, bytes: Buffer, source: string, chunks: Map<number, Buffer>): Promise<void> {
    chunks.set(0, bytes)
    await this.#parts.admit(cid, bytes, source)
  }

  /** From what lies here and single chunks of the sources. @returns whether the extent is whole again. */
  async #mendFromHere(
    cid: Cid,
    view: NodeView,
    offset: number,
    chunk: ChunkRef,
    chunks: Map<number, Buffer>,
    signal: AbortSignal,
  ): Promise<boolean> {
    const { bytes, bad } = this.#assemble(cid, view)
    const wanted = view.linkAt(offset)
    const names = new Set<string>()
    // The one that somebody waits for comes first; an extent that is mostly lost is fetched whole.
    const order = [wanted, ...bad.filter(link => link !== wanted)].filter(link => bad.includes(link))
    for (const link of bad.length > MANY_BAD ? order.slice(0, 1) : order) {
      const found = await this.#fetchChunk(view.digestAt(link), signal)
      if (!found || found.bytes.length !== view.sizeOf(link)) break
      found.bytes.copy(bytes, view.startOf(link))
      bad.splice(bad.indexOf(link), 1)
      names.add(found.source)
    }
    if (!bad.includes(wanted) && view.startOf(wanted) === offset && view.digestAt(wanted) === chunk.digest) {
      chunks.set(offset, Buffer.from(bytes.subarray(offset, offset + view.sizeOf(wanted))))
    }
    if (bad.length > 0) return false
    await this.#parts.admit(cid, bytes, [...names].join(', ') || 'here')
    return true
  }

  async #mendWhole(cid: Cid, view: NodeView, signal: AbortSignal): Promise<void> {
    for (const source of this.#sources) {
      const bytes = await asked(source.fetchExtent, source, cid, signal)
      if (!bytes || bytes.length !== view.sizeBytes || badLinks(bytes, view).length > 0) continue
      await this.#parts.admit(cid, bytes, source.name)
      return
    }
  }

  /** The extent from whatever is good in either tier. */
  #assemble(cid: Cid, view: NodeView): { bytes: Buffer; bad: number[] } {
    const bytes = Buffer.alloc(view.sizeBytes)
    let bad = Array.from({ length: view.links }, (_, link) => link)
    for (const tier of ['hot', 'warm'] as const) {
      const found = this.#parts.reader.readUnproven(cid, tier)
      if (!found || bad.length === 0) continue
      const stillBad = new Set(badLinks(found, view))
      for (const link of bad) {
        if (!stillBad.has(link))
          found.copy(bytes, view.startOf(link), view.startOf(link), view.startOf(link + 1))
      }
      bad = bad.filter(link => stillBad.has(link))
    }
    return { bytes, bad }
  }

  async #fetchChunk(
    digest: ChunkRef['digest'],
    signal: AbortSignal,
  ): Promise<{ bytes: Buffer; source: string } | undefined> {
    const found = await this.#fetchBlock(rawCidOf(digest), signal)
    return found && { bytes: Buffer.from(found.bytes), source: found.source }
  }

  async #fetchBlock(
    cid: Cid,
    signal: AbortSignal,
  ): Promise<{ bytes: Uint8Array; source: string } | undefined> {
    for (const source of this.#sources) {
      const bytes = await asked(source.fetchChunk, source, cid, signal)
      if (bytes && sha256Of(bytes) === digestOf(cid)) return { bytes, source: source.name }
    }
    return undefined
  }

  async #chunkOf(
    flight: Flight,
    extent: Cid,
    offset: number,
    chunk: ChunkRef,
    options: Abortable,
  ): Promise<Buffer | undefined> {
    const had = flight.chunks.get(offset)
    if (had?.length === chunk.sizeBytes && sha256Of(had) === chunk.digest) return had
    const buffer = Buffer.allocUnsafe(chunk.sizeBytes)
    return this.#parts.reader.readChunk(extent, offset, chunk, buffer, options).then(
      () => buffer,
      (error: unknown) => {
        if (error instanceof EdgeError) return undefined
        throw error
      },
    )
  }
}

/** Tells when the chunk that somebody waits for is there. */
class HadChunks extends Map<number, Buffer> {
  readonly #wanted: number
  readonly #tell: () => void

  constructor(wanted: number, tell: () => void) {
    super()
    this.#wanted = wanted
    this.#tell = tell
  }

  override set(offset: number, bytes: Buffer): this {
    super.set(offset, bytes)
    if (offset === this.#wanted) this.#tell()
    return this
  }
}

/** From so many bad chunks on, the extent is fetched whole. */
const MANY_BAD = 8

type Fetch = ((cid: Cid, options: Abortable) => Promise<Uint8Array | undefined>) | undefined

/** A source that fails has nothing; the next one is asked. */
async function asked(
  fetch: Fetch,
  source: HealSource,
  cid: Cid,
  signal: AbortSignal,
): Promise<Uint8Array | undefined> {
  if (!fetch || signal.aborted) return undefined
  try {
    return await untilAborted(fetch.call(source, cid, { signal }), signal)
  } catch {
    return undefined
  }
}

function viewOf(bytes: Uint8Array | undefined): NodeView | undefined {
  try {
    return bytes && new NodeView(bytes)
  } catch {
    return undefined
  }
}

/** Whoever waits may leave; the work goes on for the others. */
function untilAborted<T>(work: Promise<T>, signal: AbortSignal): Promise<T> {
  if (signal.aborted) return Promise.reject(signal.reason as Error)
  return new Promise((resolve, reject) => {
    const leave = () => reject(signal.reason as Error)
    signal.addEventListener('abort', leave, { once: true })
    work.then(resolve, reject).finally(() => signal.removeEventListener('abort', leave))
  })
}
