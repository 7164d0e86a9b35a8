/**
 * The static deltas of a new release: from the one before it, and from two, four and eight before.
 *
 * A delta is built part by part, and its head is known at the end: parts wait in a nameless file.
 */
import { constants } from 'node:fs'
import { mkdtemp, open, rm, type FileHandle } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import type { ReleaseView } from '../delta/release-view.ts'
import { sha256Of } from '../digest.ts'
import { isEdgeError } from '../errors.ts'
import { deltaPath, type DeltaRef } from '../manifest.ts'
import { collecting } from './collecting-view.ts'
import type { FrameCache } from './frame-cache.ts'
import type { StoredManifest } from './history.ts'
import { ReleaseReader } from './release-reader.ts'
import type { RepositoryStorage } from './storage.ts'

/** How far back deltas start: a node that missed some releases is near one of these. */
const STEPS_BACK = [1, 2, 4, 8]
const COPY_BYTES = 1024 * 1024

/**
 * @param releases earlier ones, newest first.
 * @returns newest first; a release that can no longer be read, or shares nothing, has none.
 */
export async function publishDeltas(
  storage: RepositoryStorage,
  cache: FrameCache,
  releases: readonly StoredManifest[],
  next: { readonly view: ReleaseView; readonly revision: number },
): Promise<DeltaRef[]> {
  const deltas: DeltaRef[] = []
  for (const step of STEPS_BACK) {
    const from = releases.find(({ manifest }) => manifest.revision === next.revision - step)
    const delta = from && (await publishDelta(storage, cache, from, next.view))
    if (delta) deltas.push(delta)
  }
  return deltas
}

async function publishDelta(
  storage: RepositoryStorage,
  cache: FrameCache,
  from: StoredManifest,
  to: ReleaseView,
): Promise<DeltaRef | undefined> {
  const older = await openReader(storage, cache, from)
  if (!older) return undefined
  const { buildDelta } = await import('../delta/build.ts') // 30 MB that a first release does not need
  await using spool = await openSpool()
  const { beginning, directory, rebuiltExtents } = await buildDelta(collecting(older), collecting(to), {
    write: part => spool.append(part),
  })
  if (rebuiltExtents === 0) return undefined
  const { sha256, sizeBytes } = await storage.add(deltaPath, joined(beginning, spool.read()))
  const { offset, size, rawSize } = directory
  const head = beginning.subarray(offset, offset + size)
  return {
    from: from.manifest.revision,
    sha256,
    size: sizeBytes,
    directory: { offset, size, rawSize, sha256: sha256Of(head) },
    manifest: from.sha256,
  }
}

/** A damaged older release costs a delta, not the publication. */
async function openReader(
  storage: RepositoryStorage,
  cache: FrameCache,
  { manifest }: StoredManifest,
): Promise<ReleaseReader | undefined> {
  try {
    return await ReleaseReader.open(storage, manifest, cache)
  } catch (error) {
    if (isEdgeError(error, 'PACK_INVALID', 'CATALOG_INVALID')) return undefined
    throw error
  }
}

async function openSpool(): Promise<
  AsyncDisposable & { append(bytes: Uint8Array): Promise<void>; read(): AsyncGenerator<Uint8Array> }
> {
  const folder = await mkdtemp(join(tmpdir(), 'tower-delta-'))
  const file = await open(
    join(folder, 'parts'),
    constants.O_RDWR | constants.O_CREAT | constants.O_EXCL,
    0o600,
  )
  await rm(folder, { recursive: true }) // nameless from here on: gone with us, however we go
  let sizeBytes = 0
  return {
    async append(bytes) {
      await writeAll(file, bytes, sizeBytes)
      sizeBytes += bytes.length
    },
    async *read() {
      for (let at = 0; at < sizeBytes; ) {
        const { bytesRead, buffer } = await file.read(Buffer.allocUnsafe(COPY_BYTES), 0, COPY_BYTES, at)
        yield buffer.subarray(0, bytesRead)
        at += bytesRead
      }
    },
    async [Symbol.asyncDispose]() {
      await file.close()
    },
  }
}

async function writeAll(file: FileHandle, bytes: Uint8Array, position: number): Promise<void> {
  for (let from = 0; from < bytes.length; ) {
    from += (await file.write(bytes, from, bytes.length - from, position + from)).bytesWritten
  }
}

async function* joined(first: Uint8Array, rest: AsyncIterable<Uint8Array>): AsyncGenerator<Uint8Array> {
  yield first
  yield* rest
}
