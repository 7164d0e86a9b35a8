/**
 * Packs what a repository does not have yet: reads it from the folder, takes over frames that are
 * compressed already, writes packs.
 */
import type { Cid } from '../cid.ts'
import type { PackRef } from '../manifest.ts'
import type { FolderView } from './folder-view.ts'
import type { FrameCache } from './frame-cache.ts'
import type { PackExtent } from './frame-groups.ts'
import { writtenFrames, type Effort, type FrameFinder } from './frame-writer.ts'
import { orphanPacks } from './history.ts'
import { PackReader } from './pack-reader.ts'
import { writePacks } from './pack-writer.ts'
import type { PackPlan } from './plan-packs.ts'
import type { RepositoryStorage } from './storage.ts'

interface PackingTools {
  readonly storage: RepositoryStorage
  readonly cache: FrameCache
  /** Packs of kept releases: a frame of one that is being rewritten may serve again. */
  readonly known: readonly PackReader[]
  readonly effort: Effort
  readonly packBytesMax: number | undefined
  /** What is being packed, and how many bytes of content were packed before. */
  readonly progress: (path: string, doneBytes: number) => void
}

/** @returns the new packs; of the content packed, in bytes, how much had been compressed already. */
export async function packMissing(
  view: FolderView,
  { missing, missingNodes }: PackPlan,
  { storage, cache, known, effort, packBytesMax, progress }: PackingTools,
): Promise<{ packs: PackRef[]; rawBytes: number; reusedBytes: number }> {
  const orphans = await Promise.all(
    (await orphanPacks(storage)).map(sha256 => PackReader.openOrphan(storage, cache, sha256)),
  )
  const packs = [...known, ...orphans.filter(orphan => orphan !== undefined)]
  let rawBytes = 0
  let reusedBytes = 0
  const extents = missingExtents(view, missing, (path, sizeBytes) => {
    rawBytes += sizeBytes
    progress(path, rawBytes)
  })
  const frames = writtenFrames(
    extents,
    effort,
    findFrame(packs, sizeBytes => (reusedBytes += sizeBytes)),
  )
  const written = await writePacks(frames, {
    storage,
    nodes: missingNodes,
    level: effort.level,
    ...(packBytesMax !== undefined && { packBytesMax }),
  })
  return { packs: written, rawBytes, reusedBytes }
}

/** In path order, each once; the catalog's at the end, apart. */
async function* missingExtents(
  view: FolderView,
  missing: ReadonlySet<Cid>,
  progress: (path: string, sizeBytes: number) => void,
): AsyncGenerator<PackExtent | undefined> {
  const left = new Set(missing)
  const catalog = new Set(view.catalog.extents.map(({ cid }) => cid))
  const packed = async (path: string, cid: Cid): Promise<PackExtent> => {
    const { bytes, cut, free } = await view.readOnce(cid)
    left.delete(cid)
    progress(path, bytes.length)
    return { cid, bytes, ...(cut.node && { node: cut.node.bytes }), ...(free && { free }) }
  }
  for (const { path, extents } of view.items()) {
    for (const { cid } of extents) if (left.has(cid) && !catalog.has(cid)) yield await packed(path, cid)
  }
  yield undefined
  for (const cid of catalog) if (left.has(cid)) yield await packed('', cid)
}

/** Frames that are compressed already: in packs that are being rewritten, or that an interrupted publish has left. */
function findFrame(packs: readonly PackReader[], found: (sizeBytes: number) => void): FrameFinder {
  return async (extents, raw) => {
    const cids = extents.map(({ cid }) => cid)
    for (const pack of packs) {
      const frame = await pack.storedFrame(cids, raw)
      if (!frame) continue
      found(raw.length)
      return frame
    }
    return undefined
  }
}
