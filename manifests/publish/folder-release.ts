/**
 * A folder read and hashed: the items that a release of it has, and their bytes again, proven to be
 * those that were hashed.
 *
 * A file that changes meanwhile is found out: by its size and times when it is hashed and at the
 * end, by its digests when it is read again (`PUBLISH_FILE_CHANGED`): a release is one state of the
 * whole folder.
 */
import { hash } from 'node:crypto'
import { closeSync, constants, fstatSync, lstatSync, openSync, readSync, type BigIntStats } from 'node:fs'
import { open } from 'node:fs/promises'
import { join } from 'node:path'
import { setImmediate } from 'node:timers/promises'
import { extentOf } from '../chunk-rule.ts'
import { codecOf, digestOf, rawCidOf, type Cid } from '../cid.ts'
import type { ItemDag } from '../delta/release-view.ts'
import type { Sha256 } from '../digest.ts'
import { EdgeError } from '../errors.ts'
import type { ChunkRef, ChunkRule, DagNode, ExtentRef } from '../extent.ts'
import { comparePaths } from '../item-path.ts'
import { itemDag, type CutExtent } from '../unixfs.ts'
import { folderFiles, unreadable } from './folder-files.ts'
import { hashSmallItem, type HashedItem, type ItemHasher } from './item-hasher.ts'
import { free } from './zstd-encoder.ts'

/** As little as possible, because there may be 100,000: `dagOf` gives the rest. */
interface ScannedItem {
  readonly path: string
  readonly sizeBytes: number
  readonly sha256: Sha256
  /** None for an item that is one raw block. */
  readonly dag?: { readonly root: Cid; readonly extents: readonly ExtentRef[] }
}

/** What was done since it was told last. */
export type ScanProgress = (more: {
  readonly path: string
  readonly items: 0 | 1
  readonly sizeBytes: number
}) => void

export interface ReadExtent {
  readonly bytes: Uint8Array
  readonly cut: CutExtent
  /** Gives the memory of `bytes` back at once; large ones have it. */
  readonly free?: () => void
}

/** Read with synchronous calls: five trips to the thread pool would cost more than the work. */
const SMALL_BYTES = 1024 * 1024
/** Other work gets its turn this often. */
const YIELD_BYTES = 16 * 1024 * 1024
const FILE_COST_BYTES = 64 * 1024
const FLAGS = constants.O_RDONLY | constants.O_NOFOLLOW | constants.O_NONBLOCK

export class FolderItems {
  readonly #folder: string
  readonly #items: ScannedItem[] = []
  /** The dag-pb blocks above extents. */
  readonly nodes: DagNode[] = []
  /** What each file looked like when it was hashed, in the order of items. */
  readonly #states: number[] = []

  constructor(folder: string) {
    this.#folder = folder
  }

  get count(): number {
    return this.#items.length
  }

  /** In path order. */
  *dags(): Generator<ItemDag> {
    for (const item of this.#items) yield dagOf(item)
  }

  /**
   * @param paths sorted, as items will be.
   * @throws EdgeError `PUBLISH_FOLDER_UNREADABLE`, `PUBLISH_FILE_CHANGED`
   */
  async scan(paths: readonly string[], hasher: ItemHasher, progress: ScanProgress): Promise<void> {
    let untilYield = YIELD_BYTES
    for (const path of paths) {
      const { sizeBytes, sha256, extents } = await this.#hash(path, hasher, progress)
      const { root, nodes } = itemDag(extents)
      this.#items.push({
        path,
        sizeBytes,
        sha256,
        ...(codecOf(root) !== 'raw' && { dag: { root, extents } }),
      })
      this.nodes.push(...nodes)
      progress({ path, items: 1, sizeBytes: sizeBytes <= SMALL_BYTES ? sizeBytes : 0 })
      untilYield -= sizeBytes + FILE_COST_BYTES
      if (untilYield < 0) {
        untilYield = YIELD_BYTES
        await setImmediate()
      }
    }
  }

  /**
   * One extent's bytes with its chunks and node.
   * @throws EdgeError `PUBLISH_FILE_CHANGED` when they are no longer those that were hashed.
   */
  async readExtent(path: string, offset: number, extent: ExtentRef): Promise<ReadExtent> {
    const { bytes, owned } = await this.#read(path, offset, extent.sizeBytes)
    const cut = provenExtent(bytes, extent.cid, 'fastcdc-v1')
    if (!cut) throw changed(path)
    return { bytes, cut, ...(owned && { free: () => free(owned) }) }
  }

  /**
   * The folder has the same files still, and none was written to since it was hashed.
   * @throws EdgeError `PUBLISH_FILE_CHANGED`
   */
  async assertUnchanged(): Promise<void> {
    const { paths } = await folderFiles(this.#folder)
    for (const [at, { path }] of this.#items.entries()) {
      if (paths[at] !== path)
        throw changed(comparePaths(paths[at] ?? '\u{10ffff}', path) < 0 ? paths[at]! : path)
      if (
        stateOf(lstatSync(join(this.#folder, path), { bigint: true, throwIfNoEntry: false })) !==
        this.#states[at]
      )
        throw changed(path)
    }
    if (paths.length > this.#items.length) throw changed(paths[this.#items.length]!)
  }

  async #hash(path: string, hasher: ItemHasher, progress: ScanProgress): Promise<HashedItem> {
    const place = join(this.#folder, path)
    const file = opened(place)
    try {
      const before = fstatSync(file, { bigint: true })
      if (!before.isFile()) throw changed(path)
      const hashed =
        before.size <= SMALL_BYTES
          ? hashSmallItem(readAll(file, Number(before.size)))
          : await hashLarge(place, hasher, sizeBytes => progress({ path, items: 0, sizeBytes }))
      const state = stateOf(before)
      const after = fstatSync(file, { bigint: true })
      const named = lstatSync(place, { bigint: true, throwIfNoEntry: false })
      const isSame =
        stateOf(after) === state && stateOf(named) === state && hashed.sizeBytes === Number(before.size)
      if (!isSame) throw changed(path)
      this.#states.push(state)
      return hashed
    } catch (cause) {
      throw cause instanceof EdgeError
        ? cause
        : unreadable(place, 'it must stay readable while it is published', cause)
    } finally {
      closeSync(file)
    }
  }

  async #read(
    path: string,
    offset: number,
    length: number,
  ): Promise<{ bytes: Uint8Array; owned?: ArrayBuffer }> {
    const place = join(this.#folder, path)
    if (length <= SMALL_BYTES) {
      const file = opened(place)
      try {
        return { bytes: readAll(file, length, offset) }
      } finally {
        closeSync(file)
      }
    }
    await using file = await open(place, FLAGS)
    const owned = new ArrayBuffer(length)
    const { bytesRead } = await file.read(new Uint8Array(owned), 0, length, offset)
    return { bytes: new Uint8Array(owned, 0, bytesRead), owned }
  }
}

function dagOf({ path, sizeBytes, sha256, dag }: ScannedItem): ItemDag {
  if (dag) return { path, sizeBytes, sha256, ...dag }
  const root = rawCidOf(sha256)
  return { path, sizeBytes, sha256, root, extents: [{ cid: root, sizeBytes, dagBytes: sizeBytes }] }
}

/** The extent that bytes are, if it is the one meant. */
export function provenExtent(bytes: Uint8Array, cid: Cid, rule: ChunkRule): CutExtent | undefined {
  const cut = extentOf(bytes, rule, codecOf(cid) === 'raw')
  return cut.extent.cid === cid ? cut : undefined
}

export function chunksOfRaw({ cid, sizeBytes }: ExtentRef): ChunkRef[] {
  return [{ digest: digestOf(cid), sizeBytes }]
}

async function hashLarge(
  place: string,
  hasher: ItemHasher,
  progress: (sizeBytes: number) => void,
): Promise<HashedItem> {
  await using file = await open(place, FLAGS)
  return await hasher.hash(async (buffer, position) => {
    let filled = 0
    while (filled < buffer.length) {
      const { bytesRead } = await file.read(buffer, filled, buffer.length - filled, position + filled)
      if (bytesRead === 0) break
      filled += bytesRead
    }
    progress(filled)
    return filled
  })
}

/** Changes whenever a file is written to or another one takes its name. In 48 bits: 8 bytes a file. */
function stateOf(stat: BigIntStats | undefined): number {
  if (!stat) return -1
  return hash('sha1', `${stat.ino} ${stat.size} ${stat.mtimeNs} ${stat.ctimeNs}`, 'buffer').readUIntBE(0, 6)
}

function opened(place: string): number {
  try {
    return openSync(place, FLAGS)
  } catch (cause) {
    throw unreadable(place, 'check that you may read it', cause)
  }
}

/** Up to `length` bytes, fewer at the file's end. */
function readAll(file: number, length: number, offset = 0): Uint8Array {
  const bytes = Buffer.allocUnsafe(length)
  let filled = 0
  while (filled < length) {
    const count = readSync(file, bytes, filled, length - filled, offset + filled)
    if (count === 0) break
    filled += count
  }
  return bytes.subarray(0, filled)
}

function changed(path: string): EdgeError {
  return new EdgeError(
    'PUBLISH_FILE_CHANGED',
    `${path} changed while it was published: publish again when nobody writes to the folder`,
  )
}
