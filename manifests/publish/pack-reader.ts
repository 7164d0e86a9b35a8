/**
 * One pack in a repository, read back for publishing: its extents, verified by their CIDs, and its
 * nodes. What it does not hold, or holds damaged, it does not have: then there are other packs, and
 * the folder itself.
 */
import { codecOf, digestOf, type Cid } from '../cid.ts'
import { sha256Of, type Sha256 } from '../digest.ts'
import { EdgeError } from '../errors.ts'
import { packPath, type PackRef } from '../manifest.ts'
import {
  expandFrame,
  openPackDirectory,
  parsePackTrailer,
  TRAILER_BYTES,
  type ExtentPlace,
  type FrameCodec,
  type PackDirectory,
} from '../pack.ts'
import { parseNode } from '../unixfs.ts'
import type { FrameCache } from './frame-cache.ts'
import type { RepositoryStorage } from './storage.ts'

export class PackReader {
  readonly ref: PackRef
  readonly directory: PackDirectory
  readonly #storage: RepositoryStorage
  readonly #cache: FrameCache
  #index: Promise<Uint8Array> | undefined

  private constructor(storage: RepositoryStorage, cache: FrameCache, ref: PackRef, directory: PackDirectory) {
    this.#storage = storage
    this.#cache = cache
    this.ref = ref
    this.directory = directory
  }

  /** @throws EdgeError `PACK_INVALID` when the pack is not there or its directory not the one meant. */
  static async open(storage: RepositoryStorage, cache: FrameCache, ref: PackRef): Promise<PackReader> {
    const { offset, size } = ref.directory
    const stored = await storage.read(packPath(ref.sha256), { offset, length: size })
    if (!stored) throw new EdgeError('PACK_INVALID', `${packPath(ref.sha256)} is not in the repository`)
    return new PackReader(storage, cache, ref, await openPackDirectory(stored, ref.directory))
  }

  /**
   * A pack that no manifest speaks of: left by a publish that was interrupted.
   * @returns undefined unless it can be read.
   */
  static async openOrphan(
    storage: RepositoryStorage,
    cache: FrameCache,
    sha256: Sha256,
  ): Promise<PackReader | undefined> {
    const path = packPath(sha256)
    const size = (await storage.size(path)) ?? 0
    const trailer = await storage.read(path, {
      offset: Math.max(size - TRAILER_BYTES, 0),
      length: TRAILER_BYTES,
    })
    const place = trailer && parsePackTrailer(trailer)
    if (!place) return undefined
    const stored = await storage.read(path, { offset: place.offset, length: place.size })
    const ref = { sha256, size, directory: { ...place, sha256: sha256Of(stored ?? '') } }
    return stored && (await PackReader.open(storage, cache, ref).catch(() => undefined))
  }

  get rawBytes(): number {
    return this.directory.frames.reduce((sum, frame) => sum + frame.rawBytes, 0)
  }

  /** The dag-pb node of an extent that is here. */
  async nodeOf(cid: Cid): Promise<Uint8Array | undefined> {
    for (const { index } of this.directory.find(cid)) {
      if (!index) continue
      this.#index ??= this.#readIndex()
      const start = index.offset - this.directory.indexOffset
      const bytes = (await this.#index).subarray(start, start + index.size)
      if (sha256Of(bytes) === digestOf(cid)) return bytes
    }
    return undefined
  }

  /** An extent's bytes, verified. */
  async extent(cid: Cid): Promise<Uint8Array | undefined> {
    const node = codecOf(cid) === 'raw' ? undefined : await this.nodeOf(cid)
    for (const place of this.directory.find(cid)) {
      const bytes = await this.#bytesAt(place)
      if (node ? matchesNode(bytes, node) : codecOf(cid) === 'raw' && sha256Of(bytes) === digestOf(cid))
        return bytes
    }
    return undefined
  }

  /** The frame that holds exactly these extents, as it is stored, if it expands to `raw`. */
  async storedFrame(
    cids: readonly Cid[],
    raw: Uint8Array,
  ): Promise<{ codec: FrameCodec; stored: Uint8Array } | undefined> {
    const [first] = cids
    for (const { frame: number, extent } of first ? this.directory.find(first) : []) {
      const frame = this.directory.frames[number]!
      if (frame.firstExtent !== extent || frame.extents !== cids.length || frame.rawBytes !== raw.length)
        continue
      const stored = await this.#readFrame(number)
      const expanded = await expandFrame(frame, stored).catch(() => undefined)
      if (expanded && Buffer.from(raw.buffer, raw.byteOffset, raw.length).equals(expanded))
        return { codec: frame.codec, stored }
    }
    return undefined
  }

  async #bytesAt({ frame, offset, sizeBytes }: ExtentPlace): Promise<Uint8Array> {
    const expanded = await this.#cache.get(`${this.ref.sha256} ${frame}`, async () =>
      expandFrame(this.directory.frames[frame]!, await this.#readFrame(frame)),
    )
    return expanded.subarray(offset, offset + sizeBytes)
  }

  async #readFrame(number: number): Promise<Uint8Array> {
    const { offset, storedBytes: length } = this.directory.frames[number]!
    return await this.#read(offset, length)
  }

  async #readIndex(): Promise<Uint8Array> {
    const { indexOffset, directoryOffset } = this.directory
    return await this.#read(indexOffset, directoryOffset - indexOffset)
  }

  async #read(offset: number, length: number): Promise<Uint8Array> {
    const bytes = await this.#storage.read(packPath(this.ref.sha256), { offset, length })
    if (bytes?.length !== length)
      throw new EdgeError('PACK_INVALID', `${packPath(this.ref.sha256)} is shorter than it was, or gone`)
    return bytes
  }
}

/** Whether bytes are, chunk by chunk, what a node says. */
function matchesNode(bytes: Uint8Array, node: Uint8Array): boolean {
  const { sizeBytes, links } = parseNode(node)
  let from = 0
  return (
    sizeBytes === bytes.length &&
    links.every(link => {
      from += link.sizeBytes
      return sha256Of(bytes.subarray(from - link.sizeBytes, from)) === digestOf(link.cid)
    })
  )
}
