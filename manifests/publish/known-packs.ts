/**
 * What a repository has of a dataset already: the packs of its kept releases, and the extents of
 * the current one. Packs that are missing or damaged are passed over: their content is packed again.
 */
import type { Cid } from '../cid.ts'
import type { Sha256 } from '../digest.ts'
import { isEdgeError } from '../errors.ts'
import { packPath, type PackRef } from '../manifest.ts'
import type { FrameCache } from './frame-cache.ts'
import type { History } from './history.ts'
import { PackReader } from './pack-reader.ts'
import { ReleaseReader } from './release-reader.ts'
import type { RepositoryStorage } from './storage.ts'

/** Packs that the new release may use, those of the current one first; `whole` when none of these is missing. */
export async function openPacks(
  storage: RepositoryStorage,
  cache: FrameCache,
  { releases }: History,
): Promise<{ candidates: PackReader[]; whole: boolean }> {
  const candidates = new Map<Sha256, PackReader>()
  let whole = true
  for (const [age, { manifest }] of releases.entries()) {
    for (const ref of manifest.packs) {
      if (candidates.has(ref.sha256)) continue
      const reader = await openPack(storage, cache, ref)
      if (reader) candidates.set(ref.sha256, reader)
      else if (age === 0) whole = false
    }
  }
  return { candidates: [...candidates.values()], whole }
}

async function openPack(
  storage: RepositoryStorage,
  cache: FrameCache,
  ref: PackRef,
): Promise<PackReader | undefined> {
  if ((await storage.size(packPath(ref.sha256))) !== ref.size) return undefined
  try {
    return await PackReader.open(storage, cache, ref)
  } catch (error) {
    if (isEdgeError(error, 'PACK_INVALID')) return undefined
    throw error
  }
}

/** What the current release has, by full digests. */
export async function trustedExtents(
  storage: RepositoryStorage,
  cache: FrameCache,
  { releases: [newest] }: History,
): Promise<ReadonlySet<Cid>> {
  const trusted = new Set<Cid>()
  if (!newest) return trusted
  try {
    const reader = await ReleaseReader.open(storage, newest.manifest, cache)
    for (const { cid } of reader.catalog.extents) trusted.add(cid)
    for await (const { extents } of reader.items()) for (const { cid } of extents) trusted.add(cid)
  } catch (error) {
    if (!isEdgeError(error, 'PACK_INVALID', 'CATALOG_INVALID')) throw error
  }
  return trusted
}
