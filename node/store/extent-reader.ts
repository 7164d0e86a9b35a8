/**
 * Reads chunks out of extents, each proven against its digest before the caller sees it (I1).
 *
 * What does not match, or cannot be read, is quarantined here and now. What is not where its row
 * says is looked for in the other tier, then forgotten.
 */
import { read } from 'node:fs'
import { hash } from 'node:crypto'
import { codecOf, digestOf, type Cid } from '../../manifests/cid.ts'
import { EdgeError } from '../../manifests/errors.ts'
import type { Abortable, ChunkRef } from '../../manifests/extent.ts'
import { systemCodeOf } from './disk-errors.ts'
import { closeQuietly, readExactly, readWhatCanBe, sizeOfOpen, type ExtentFiles } from './extent-files.ts'
import type { ExtentTable, Located } from './extent-table.ts'
import { holdOpen, OpenFiles, type OpenFile } from './open-files.ts'
import type { NodeTable } from './node-table.ts'
import type { Damage, Quarantine } from './quarantine.ts'
import type { SmallBlocks } from './small-blocks.ts'
import type { DiskTier } from './store.ts'

const EXTENT_BYTES_MAX = 8 * 1024 * 1024

export interface ReaderParts {
  readonly table: ExtentTable
  readonly nodes: NodeTable
  readonly small: SmallBlocks
  readonly files: Readonly<Record<DiskTier, ExtentFiles>>
  readonly openFiles: OpenFiles
  readonly quarantine: Quarantine
  /** Bytes that failed: they are noted already, the rows follow. */
  readonly onDamage: (cid: Cid, damage: Damage, why: string) => void
  /** The extent is in `tier` (or nowhere) and not where its row says. */
  readonly onMisplaced: (extent: Located, tier: DiskTier | null) => void
}

export class ExtentReader {
  readonly #parts: ReaderParts

  constructor(parts: ReaderParts) {
    this.#parts = parts
  }

  readChunkInto(extent: Cid, offset: number, chunk: ChunkRef, buffer: Buffer): void {
    const located = this.#locate(extent, offset, chunk.sizeBytes)
    if (located.small) this.#readSmall(located, offset, chunk, buffer)
    else this.#readFile(located, offset, chunk, buffer)
    this.#prove(extent, offset, chunk, buffer)
  }

  async readChunk(
    extent: Cid,
    offset: number,
    chunk: ChunkRef,
    buffer: Buffer,
    { signal }: Abortable,
  ): Promise<void> {
    signal.throwIfAborted()
    const located = this.#locate(extent, offset, chunk.sizeBytes)
    if (located.small) this.#readSmall(located, offset, chunk, buffer)
    else await this.#readFileAsync(located, offset, chunk, buffer)
    signal.throwIfAborted()
    this.#prove(extent, offset, chunk, buffer)
  }

  /** Bytes `first` to `last` (exclusive) of the extent. */
  async readRange(cid: Cid, first: number, last: number, options: Abortable): Promise<Buffer> {
    const chunks = this.#chunksOf(cid)
    if (first < 0 || last > chunks.sizeBytes || first > last) {
      throw new EdgeError('RANGE_OUTSIDE_ITEM', `${first} to ${last} of extent ${cid}`)
    }
    const buffer = Buffer.allocUnsafe(last - first)
    for (const { offset, chunk } of chunks.between(first, last)) {
      const whole = first <= offset && offset + chunk.sizeBytes <= last
      if (whole) {
        await this.readChunk(cid, offset, chunk, buffer.subarray(offset - first), options)
        continue
      }
      const scratch = Buffer.allocUnsafe(chunk.sizeBytes)
      await this.readChunk(cid, offset, chunk, scratch, options)
      scratch.copy(buffer, Math.max(0, offset - first), Math.max(0, first - offset), last - offset)
    }
    return buffer
  }

  async readExtent(cid: Cid, options: Abortable): Promise<Buffer> {
    return this.readRange(cid, 0, this.#chunksOf(cid).sizeBytes, options)
  }

  /** The extent's bytes as they lie there, unproven, from `tier`; undefined when there are none. */
  readUnproven(cid: Cid, tier: DiskTier): Buffer | undefined {
    const { table, small, files } = this.#parts
    const located = table.find(cid)
    if (located?.small) {
      const bytes = small.get(located.id)
      return bytes && Buffer.from(bytes)
    }
    let fd: number | undefined
    try {
      fd = files[tier].open(cid)
      if (fd === undefined) return undefined
      const buffer = Buffer.alloc(Math.min(sizeOfOpen(fd), EXTENT_BYTES_MAX))
      readWhatCanBe(fd, buffer)
      return buffer
    } catch {
      return undefined
    } finally {
      if (fd !== undefined) closeQuietly(fd)
    }
  }

  /**
   * Every chunk of the extent that fails its proof; quarantined as by any read.
   * @param scratch large enough for any chunk of ours, 256 KiB.
   */
  async findDamage(cid: Cid, scratch: Buffer, options: Abortable): Promise<Damage[]> {
    const damaged: Damage[] = []
    const { chunks, sizeBytes } = this.#chunksWithSize(cid)
    for (const { offset, chunk } of chunks) {
      options.signal.throwIfAborted()
      try {
        const room = chunk.sizeBytes <= scratch.length ? scratch : Buffer.allocUnsafe(chunk.sizeBytes)
        await this.readChunk(cid, offset, chunk, room, options)
      } catch (error) {
        if (!(error instanceof EdgeError)) throw error
        if (error.code === 'CHUNK_ABSENT') return [{ first: 0, sizeBytes }]
        damaged.push({ first: offset, sizeBytes: chunk.sizeBytes })
      }
    }
    return damaged
  }

  #chunksWithSize(cid: Cid) {
    const found = this.#chunksOf(cid)
    return { sizeBytes: found.sizeBytes, chunks: found.between(0, Math.max(1, found.sizeBytes)) }
  }

  #chunksOf(cid: Cid): ExtentChunks {
    if (codecOf(cid) === 'raw') return oneChunk(cid, this.#rawSize(cid))
    const view = this.#parts.nodes.view(cid)
    if (!view) throw new EdgeError('CHUNK_ABSENT', `node ${cid}`)
    if (view.over !== 'chunks') throw new EdgeError('CHUNK_ABSENT', `${cid} is a node above extents`)
    return {
      sizeBytes: view.sizeBytes,
      *between(first, last) {
        for (let link = view.linkAt(first); link < view.links && view.startOf(link) < last; link++) {
          yield {
            offset: view.startOf(link),
            chunk: { digest: view.digestAt(link), sizeBytes: view.sizeOf(link) },
          }
        }
      },
    }
  }

  /** A raw block's own length: its row may be wrong about it. */
  #rawSize(cid: Cid): number {
    const located = this.#locate(cid, 0, 1)
    if (located.small) return this.#parts.small.get(located.id)?.length ?? located.sizeBytes
    return Math.min(sizeOfOpen(this.#fileOf(located).fd), EXTENT_BYTES_MAX)
  }

  #locate(cid: Cid, offset: number, sizeBytes: number): Located {
    const { table, quarantine } = this.#parts
    const located = table.find(cid)
    if (!located?.tier) throw new EdgeError('CHUNK_ABSENT', `extent ${cid}`)
    if (quarantine.covers(cid, offset, sizeBytes)) {
      throw new EdgeError('CHUNK_CORRUPT', `extent ${cid} at ${offset} is quarantined`)
    }
    return located
  }

  #readSmall(located: Located, offset: number, chunk: ChunkRef, buffer: Buffer): void {
    const bytes = this.#parts.small.get(located.id)
    if (!bytes) {
      this.#parts.onMisplaced(located, null)
      throw new EdgeError('CHUNK_ABSENT', `block ${located.cid}`)
    }
    if (bytes.length < offset + chunk.sizeBytes) this.#failed(located.cid, offset, chunk, 'too short')
    buffer.set(bytes.subarray(offset, offset + chunk.sizeBytes))
  }

  #readFile(located: Located, offset: number, chunk: ChunkRef, buffer: Buffer): void {
    const file = this.#fileOf(located)
    let whole: boolean
    try {
      whole = readExactly(file.fd, buffer, chunk.sizeBytes, offset)
    } catch (cause) {
      this.#failed(located.cid, offset, chunk, `cannot be read: ${systemCodeOf(cause)}`, cause)
    }
    if (!whole) this.#failed(located.cid, offset, chunk, 'the file ends early')
  }

  async #readFileAsync(located: Located, offset: number, chunk: ChunkRef, buffer: Buffer): Promise<void> {
    const file = this.#fileOf(located)
    using _held = holdOpen(file)
    let whole: boolean
    try {
      whole = await readExactlyAsync(file, buffer, chunk.sizeBytes, offset)
    } catch (cause) {
      this.#failed(located.cid, offset, chunk, `cannot be read: ${systemCodeOf(cause)}`, cause)
    }
    if (!whole) this.#failed(located.cid, offset, chunk, 'the file ends early')
  }

  #fileOf(located: Located): OpenFile {
    const { openFiles } = this.#parts
    let file: OpenFile | undefined
    try {
      file = openFiles.get(located.cid, () => this.#open(located))
    } catch (cause) {
      const code = systemCodeOf(cause)
      if (code === 'EMFILE' || code === 'ENFILE')
        throw new EdgeError('OVERLOADED', 'too many open files', { cause })
      this.#failed(located.cid, 0, { sizeBytes: located.sizeBytes }, `cannot be opened: ${code}`, cause)
    }
    if (!file) throw new EdgeError('CHUNK_ABSENT', `the file of extent ${located.cid} is gone`)
    return file
  }

  #open(located: Located): number | undefined {
    const { files, table, onMisplaced } = this.#parts
    const tier = located.tier ?? 'hot'
    const fd = files[tier].open(located.cid)
    if (fd !== undefined) return fd
    table.refresh(located.cid)
    const other = tier === 'hot' ? 'warm' : 'hot'
    const found = files[other].open(located.cid)
    onMisplaced(located, found === undefined ? null : other)
    return found
  }

  #prove(extent: Cid, offset: number, chunk: ChunkRef, buffer: Buffer): void {
    const bytes = buffer.length === chunk.sizeBytes ? buffer : buffer.subarray(0, chunk.sizeBytes)
    if (hash('sha256', bytes, 'hex') !== chunk.digest)
      this.#failed(extent, offset, chunk, 'its digest differs')
  }

  #failed(
    cid: Cid,
    first: number,
    { sizeBytes }: { sizeBytes: number },
    why: string,
    cause?: unknown,
  ): never {
    this.#parts.onDamage(cid, { first, sizeBytes }, why)
    throw new EdgeError('CHUNK_CORRUPT', `extent ${cid} at ${first}: ${why}`, { cause })
  }
}

interface ExtentChunks {
  readonly sizeBytes: number
  /** The chunks that touch `first` to `last`, in order. */
  between(first: number, last: number): Iterable<{ readonly offset: number; readonly chunk: ChunkRef }>
}

function oneChunk(cid: Cid, sizeBytes: number): ExtentChunks {
  return { sizeBytes, between: () => [{ offset: 0, chunk: { digest: digestOf(cid), sizeBytes } }] }
}

function readExactlyAsync(
  file: OpenFile,
  buffer: Buffer,
  length: number,
  position: number,
): Promise<boolean> {
  return new Promise((resolve, reject) => {
    const more = (from: number) => {
      read(file.fd, buffer, from, length - from, position + from, (error, count) => {
        if (error) reject(error)
        else if (from + count === length) resolve(true)
        else if (count === 0) resolve(false)
        else more(from + count)
      })
    }
    if (length === 0) resolve(true)
    else more(0)
  })
}
