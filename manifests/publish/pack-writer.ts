/**
 * Frames into pack files of at most 1 GiB, each added to the repository as it is made.
 */
import { sha256Of } from '../digest.ts'
import type { DagNode } from '../extent.ts'
import { packPath, PACK_BYTES_MAX, type DirectoryRef, type PackRef } from '../manifest.ts'
import { encodePackDirectory, PACK_MAGIC, TRAILER_BYTES, TRAILER_MAGIC, type FrameEntry } from '../pack.ts'
import { compressDirectory, type WrittenFrame } from './frame-writer.ts'
import type { RepositoryStorage } from './storage.ts'

/** Kept free for the directory: more than an extent takes there. */
const DIRECTORY_BYTES_PER_EXTENT = 64

interface PackOptions {
  readonly storage: RepositoryStorage
  /** The dag-pb blocks above extents; they go into the last pack. */
  readonly nodes: readonly DagNode[]
  /** zstd's, for directories. */
  readonly level: number
  /** Smaller in tests. */
  readonly packBytesMax?: number
}

/** @returns the packs in the order written, none when there are neither frames nor nodes. */
export async function writePacks(
  frames: AsyncGenerator<WrittenFrame>,
  options: PackOptions,
): Promise<PackRef[]> {
  const packs: PackRef[] = []
  const queue = await openQueue(frames)
  while (queue.first || (packs.length === 0 && options.nodes.length > 0))
    packs.push(await writePack(queue, options))
  return packs
}

async function writePack(queue: FrameQueue, options: PackOptions): Promise<PackRef> {
  const directory: { ref?: DirectoryRef } = {}
  const { sha256, sizeBytes } = await options.storage.add(
    packPath,
    packBytes(queue, options, ref => (directory.ref = ref)),
  )
  return { sha256, size: sizeBytes, directory: directory.ref! }
}

async function* packBytes(
  queue: FrameQueue,
  { nodes, level, packBytesMax = PACK_BYTES_MAX }: PackOptions,
  tell: (directory: DirectoryRef) => void,
): AsyncGenerator<Uint8Array> {
  const entries: FrameEntry[] = []
  const index: Uint8Array[] = []
  let offset = PACK_MAGIC.length
  let afterFrames = TRAILER_BYTES + nodes.reduce((sum, { bytes }) => sum + bytes.length + 3, 64)
  yield PACK_MAGIC
  for (let frame = queue.first; frame; frame = queue.first) {
    afterFrames += frame.extents.reduce(
      (sum, { indexBytes }) => sum + indexBytes + DIRECTORY_BYTES_PER_EXTENT,
      0,
    )
    if (entries.length > 0 && offset + frame.storedBytes + afterFrames > packBytesMax) break
    yield frame.stored
    frame.free()
    entries.push({ codec: frame.codec, storedBytes: frame.storedBytes, extents: frame.extents })
    index.push(...frame.index)
    offset += frame.storedBytes
    await queue.advance()
  }
  for (const node of index) {
    yield node
    offset += node.length
  }

  const raw = encodePackDirectory(entries, queue.first ? [] : nodes)
  const stored = await compressDirectory(raw, level)
  yield stored
  tell({ offset, size: stored.length, rawSize: raw.length, sha256: sha256Of(stored) })
  yield trailer(offset, stored.length, raw.length)
}

interface FrameQueue {
  /** The next frame, not yet taken; undefined after the last. */
  readonly first: WrittenFrame | undefined
  advance(): Promise<void>
}

async function openQueue(frames: AsyncGenerator<WrittenFrame>): Promise<FrameQueue> {
  const queue = {
    first: undefined as WrittenFrame | undefined,
    async advance() {
      const { value, done } = await frames.next()
      queue.first = done ? undefined : value
    },
  }
  await queue.advance()
  return queue
}

function trailer(offset: number, size: number, rawSize: number): Buffer {
  const bytes = Buffer.alloc(TRAILER_BYTES)
  bytes.writeBigUInt64LE(BigInt(offset), 0)
  bytes.writeUInt32LE(size, 8)
  bytes.writeUInt32LE(rawSize, 12)
  TRAILER_MAGIC.copy(bytes, 16)
  return bytes
}
