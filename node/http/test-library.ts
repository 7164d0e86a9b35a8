/**
 * A small Library for tests and for benches of the HTTP part alone: items cut into real chunks that
 * are verified at every read, kept in memory or in one file per item, and open to injected faults.
 */
import { closeSync, openSync, readSync, writeFileSync } from 'node:fs'
import { read as readAt } from 'node:fs'
import { join } from 'node:path'
import { rawCidOf } from '../../manifests/cid.ts'
import { type Sha256, sha256Of } from '../../manifests/digest.ts'
import { EdgeError } from '../../manifests/errors.ts'
import type { Abortable, ByteRange, ChunkRef } from '../../manifests/extent.ts'
import { CHUNKING, nextCut } from '../../manifests/fastcdc.ts'
import { comparePaths } from '../../manifests/item-path.ts'
import { extentNode } from '../../manifests/unixfs.ts'
import type { ChunkSlice, DatasetView, Freshness, ItemView, Library, OpenItem, Tier } from '../library.ts'
import { encodePath } from './request-path.ts'

export interface TestItemOptions {
  readonly dataset?: string
  readonly mediaType?: string
  readonly publishedAtMs?: number
  /** Exact chunk sizes; content-defined chunks when not given. */
  readonly chunkBytes?: number
}

/** Whatever a test wants to go wrong with one item. */
export interface Faults {
  tier: Tier
  /** Ranges of the item that are not here. */
  absent: ByteRange[]
  /** Whether `recover` brings what is missing. */
  recoverable: boolean
  /** Byte positions that read flipped until healed. */
  flipped: Set<number>
  denied: boolean
  recoveries: number
  /** Answers from the memory tier that the item was told of. */
  uses: number
}

export class TestItem implements OpenItem, Disposable {
  readonly dataset: string
  readonly path: string
  readonly revision = 1
  readonly sizeBytes: number
  readonly sha256: Sha256
  readonly root
  readonly mediaType: string
  readonly publishedAtMs: number
  readonly priority = 1
  readonly chunks: readonly (ChunkRef & { readonly start: number })[]
  readonly faults: Faults = {
    tier: 'hot',
    absent: [],
    recoverable: false,
    flipped: new Set(),
    denied: false,
    recoveries: 0,
    uses: 0,
  }
  readonly #library: TestLibrary
  readonly #bytes: Buffer | undefined
  readonly #fd: number | undefined

  constructor(library: TestLibrary, path: string, bytes: Buffer, options: TestItemOptions, file?: string) {
    this.#library = library
    this.dataset = options.dataset ?? 'education/physics'
    this.path = path
    this.sizeBytes = bytes.length
    this.sha256 = sha256Of(bytes)
    this.mediaType = options.mediaType ?? 'text/plain; charset=utf-8'
    this.publishedAtMs = options.publishedAtMs ?? Date.UTC(2025, 0, 2, 3, 4, 5)
    this.chunks = cut(bytes, options.chunkBytes)
    this.root = this.chunks.length <= 1 ? rawCidOf(this.sha256) : extentNode(this.chunks.slice(0, 174)).cid
    if (file === undefined) {
      this.#bytes = bytes
    } else {
      writeFileSync(file, bytes)
      this.#fd = openSync(file, 'r')
    }
  }

  get freshness(): Freshness {
    return this.#library.freshness
  }

  residency({ first, last }: ByteRange): { state: 'present' | 'partial' | 'absent'; tier: Tier | null } {
    if (this.faults.absent.length === 0) return { state: 'present', tier: this.faults.tier }
    const touched = this.chunks.filter(({ start, sizeBytes }) => start <= last && first < start + sizeBytes)
    const here = touched.filter(chunk => !this.#isAbsent(chunk))
    if (here.length === touched.length) return { state: 'present', tier: this.faults.tier }
    return here.length === 0 ? { state: 'absent', tier: null } : { state: 'partial', tier: this.faults.tier }
  }

  *slices({ first, last }: ByteRange): Generator<ChunkSlice> {
    if (first >= this.sizeBytes && this.sizeBytes > 0) throw new EdgeError('RANGE_OUTSIDE_ITEM', `${first}`)
    for (let i = this.#chunkAt(first); i < this.chunks.length; i++) {
      const { start, digest, sizeBytes } = this.chunks[i]!
      if (start > last) return
      yield {
        extent: this.root,
        offset: start,
        digest,
        sizeBytes,
        from: Math.max(first - start, 0),
        to: Math.min(last + 1 - start, sizeBytes),
      }
    }
  }

  used(): void {
    this.faults.uses++
  }

  readInto(slice: ChunkSlice, buffer: Buffer): void {
    if (this.#isAbsent({ start: slice.offset, sizeBytes: slice.sizeBytes })) {
      throw new EdgeError('CHUNK_ABSENT', slice.digest)
    }
    if (this.#fd !== undefined) readSync(this.#fd, buffer, 0, slice.sizeBytes, slice.offset)
    else this.#bytes?.copy(buffer, 0, slice.offset, slice.offset + slice.sizeBytes)
    this.#verify(slice, buffer)
  }

  read(slice: ChunkSlice, buffer: Buffer, { signal }: Abortable): Promise<void> {
    return new Promise((resolve, reject) => {
      const verify = (): void => {
        try {
          signal.throwIfAborted()
          this.readInto(slice, buffer)
          resolve()
        } catch (error) {
          reject(error)
        }
      }
      if (this.#fd === undefined) return void setImmediate(verify)
      readAt(this.#fd, buffer, 0, slice.sizeBytes, slice.offset, error => (error ? reject(error) : verify()))
    })
  }

  async recover(slice: ChunkSlice, { signal }: Abortable): Promise<Buffer> {
    signal.throwIfAborted()
    this.faults.recoveries++
    if (!this.faults.recoverable) throw new EdgeError('CHUNK_ABSENT', slice.digest)
    await new Promise(resolve => setImmediate(resolve))
    const { offset, sizeBytes } = slice
    this.faults.absent = this.faults.absent.flatMap(({ first, last }) => [
      ...(first < offset ? [{ first, last: Math.min(last, offset - 1) }] : []),
      ...(last >= offset + sizeBytes ? [{ first: Math.max(first, offset + sizeBytes), last }] : []),
    ])
    for (const at of this.faults.flipped)
      if (at >= offset && at < offset + sizeBytes) this.faults.flipped.delete(at)
    const buffer = Buffer.alloc(sizeBytes)
    this.readInto(slice, buffer)
    return buffer
  }

  [Symbol.dispose](): void {
    if (this.#fd !== undefined) closeSync(this.#fd)
  }

  #verify({ digest, offset, sizeBytes }: ChunkSlice, buffer: Buffer): void {
    for (const at of this.faults.flipped) {
      if (at >= offset && at < offset + sizeBytes) buffer[at - offset]! ^= 1
    }
    if (sha256Of(buffer.length === sizeBytes ? buffer : buffer.subarray(0, sizeBytes)) !== digest) {
      throw new EdgeError('CHUNK_CORRUPT', digest)
    }
  }

  #isAbsent({ start, sizeBytes }: { start: number; sizeBytes: number }): boolean {
    return this.faults.absent.some(({ first, last }) => first < start + sizeBytes && start <= last)
  }

  #chunkAt(position: number): number {
    let low = 0
    let high = this.chunks.length - 1
    while (low < high) {
      const middle = (low + high + 1) >> 1
      if (this.chunks[middle]!.start <= position) low = middle
      else high = middle - 1
    }
    return low
  }
}

export class TestLibrary implements Library, Disposable {
  freshness: Freshness = {
    fresh: true,
    confirmedAt: new Date(Date.now() - 60_000).toISOString(),
    expiresAt: new Date(Date.now() + 86_400_000).toISOString(),
  }
  readonly #items = new Map<string, TestItem>()
  readonly #byDigest = new Map<string, TestItem>()
  readonly #dir: string | undefined

  /** @param dir where items become files; in memory when not given. */
  constructor(dir?: string) {
    this.#dir = dir
  }

  add(path: string, bytes: Buffer, options: TestItemOptions = {}): TestItem {
    const file = this.#dir === undefined ? undefined : join(this.#dir, `item-${this.#items.size}`)
    const item = new TestItem(this, path, bytes, options, file)
    this.#items.set(`${item.dataset}/${path}`, item)
    this.#byDigest.set(item.sha256, item)
    return item
  }

  /** As when a new release no longer names it, by digest neither. */
  remove(path: string, dataset = 'education/physics'): void {
    const item = this.#items.get(`${dataset}/${path}`)
    this.#items.delete(`${dataset}/${path}`)
    if (item) this.#byDigest.delete(item.sha256)
  }

  datasets(): DatasetView[] {
    return [...new Set([...this.#items.values()].map(({ dataset }) => dataset))].toSorted().map(dataset => {
      const items = this.#of(dataset)
      const views = items.map(item => this.#view(item))
      return {
        dataset,
        title: `About ${dataset}`,
        revision: 1,
        publishedAt: '2025-01-02T03:04:05Z',
        items: items.length,
        expected: views.reduce((sum, { expected }) => sum + expected, 0),
        present: views.reduce((sum, { present }) => sum + present, 0),
        priority: 1,
        freshness: this.freshness,
      }
    })
  }

  open(dataset: string, path: string): TestItem {
    const item = this.#items.get(`${dataset}/${path}`)
    if (!item) {
      throw this.#of(dataset).length === 0
        ? new EdgeError('DATASET_UNKNOWN', dataset)
        : new EdgeError('ITEM_UNKNOWN', `${dataset} ${path}`)
    }
    if (item.faults.denied) throw new EdgeError('ITEM_DENIED', path)
    return item
  }

  openDigest(sha256: Sha256): TestItem {
    const item = this.#byDigest.get(sha256)
    if (!item) throw new EdgeError('ITEM_UNKNOWN', sha256)
    if (item.faults.denied) throw new EdgeError('ITEM_DENIED', sha256)
    return item
  }

  list({
    dataset,
    prefix = '',
    query = '',
    after,
    limit,
  }: Parameters<Library['list']>[0]): ReturnType<Library['list']> {
    if (dataset !== undefined && this.#of(dataset).length === 0)
      throw new EdgeError('DATASET_UNKNOWN', dataset)
    if (after !== undefined && !after.startsWith('after:'))
      throw new EdgeError('REQUEST_INVALID', 'not a cursor of ours')
    const words = query.toLowerCase().split(/\s+/).filter(Boolean)
    const wanted = [...this.#items.values()]
      .filter(item => dataset === undefined || item.dataset === dataset)
      .filter(
        item => item.path.startsWith(prefix) && words.every(word => item.path.toLowerCase().includes(word)),
      )
      .toSorted((a, b) => comparePaths(`${a.dataset}/${a.path}`, `${b.dataset}/${b.path}`))
      .filter(item => after === undefined || comparePaths(`${item.dataset}/${item.path}`, after.slice(6)) > 0)
    const page = wanted.slice(0, limit)
    const last = page.at(-1)
    return {
      items: page.map(item => this.#view(item)),
      next: last && wanted.length > limit ? `after:${last.dataset}/${last.path}` : null,
    }
  }

  retryAfterSeconds(): number {
    return 120
  }

  [Symbol.dispose](): void {
    for (const item of this.#items.values()) item[Symbol.dispose]()
  }

  #of(dataset: string): TestItem[] {
    return [...this.#items.values()].filter(item => item.dataset === dataset)
  }

  #view(item: TestItem): ItemView {
    const missing = item.faults.absent.reduce((sum, { first, last }) => sum + last - first + 1, 0)
    return {
      dataset: item.dataset,
      path: item.path,
      size: item.sizeBytes,
      sha256: item.sha256,
      cid: item.root,
      mediaType: item.mediaType,
      priority: 1,
      revision: 1,
      present: item.sizeBytes - missing,
      expected: item.sizeBytes,
      tier: missing === 0 ? item.faults.tier : null,
      verifiedAt: null,
      pinned: false,
      url: `/data/${encodePath(`${item.dataset}/${item.path}`)}`,
    }
  }
}

function cut(bytes: Buffer, chunkBytes: number | undefined): (ChunkRef & { start: number })[] {
  const chunks: (ChunkRef & { start: number })[] = []
  for (let start = 0; start < bytes.length; ) {
    const end = chunkBytes
      ? Math.min(start + chunkBytes, bytes.length)
      : nextCut(bytes, start, bytes.length, CHUNKING)
    chunks.push({ start, digest: sha256Of(bytes.subarray(start, end)), sizeBytes: end - start })
    start = end
  }
  return chunks
}
