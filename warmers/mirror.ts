/**
 * A hub keeps the packs and deltas of the releases that it wants, byte for byte, so that other
 * towers can fill from it, and the ways to them from releases before (`repository-files.ts`). What a file
 * must be is in its signed name; what arrived before a cut is gone on with (I9), and files that no wanted
 * release needs are removed.
 */
import { pathToFileURL } from 'node:url'
import { sha256Of } from '../manifests/digest.ts'
import { isEdgeError } from '../manifests/errors.ts'
import type { Abortable } from '../manifests/extent.ts'
import { encodeManifest, type Manifest, manifestPath } from '../manifests/manifest.ts'
import { folderStorage } from '../manifests/publish/folder-storage.ts'
import type { RepositoryStorage } from '../manifests/publish/storage.ts'
import { openFileUpstream } from './file-upstream.ts'
import { type FillEvent, type FillRequest, fillOnce, wireMeter } from './fill-once.ts'
import { remembered } from './range-memory.ts'
import { refresh } from './refresh.ts'
import { mirrorFile } from './mirror-file.ts'
import {
  allFilesOf,
  olderManifests,
  type RepositoryFile,
  type Ways,
  waysBytesMax,
  waysTo,
} from './repository-files.ts'
import { wantedWhole } from './shared-staging.ts'

export interface MirrorOptions {
  /** The repository folder that `/repo/` shows. */
  readonly folder: string
  /** Free space that is never taken (I7). */
  readonly reserveBytes: number
}

/**
 * A fill of a hub: what is new, then whole packs and deltas, then the store out of these, so that
 * nothing crosses the link twice.
 * @throws EdgeError as `fillOnce`
 */
export async function* fillMirror(wish: FillRequest, options: MirrorOptions): AsyncGenerator<FillEvent> {
  const since = performance.now()
  const request = { ...wish, upstreams: remembered(wish.upstreams, wish.rangeMemory) }
  const spent = wireMeter(request)
  const storage = folderStorage(options.folder)
  await wantFiles(request, storage)
  const refreshed = await refresh(request, request)
  yield { type: 'refreshed', ...refreshed }
  await mirrorReleases(request, storage, options, request)
  await using local = openFileUpstream(pathToFileURL(`${options.folder}/`), () => {})
  const { wireBytesMax: _spent, ...limits } = request.limits ?? {}
  const fill = { ...request, limits, skipRefresh: true, upstreams: [local, ...request.upstreams] }
  for await (const event of fillOnce(fill)) {
    // what is read from the copy is on no wire
    if (event.type === 'done') yield { ...event, wire: spent(), seconds: (performance.now() - since) / 1000 }
    else yield event
  }
}

/** @throws EdgeError `UPSTREAM_…`, `STORE_FULL`; the signal's reason. What arrived is kept. */
async function mirrorReleases(
  request: FillRequest,
  storage: RepositoryStorage,
  options: MirrorOptions,
  abortable: Abortable,
): Promise<void> {
  const kept = new Set<string>()
  const wanted = wantedWhole(request.staged)
  const bring = async (file: RepositoryFile) => {
    kept.add(file.path)
    wanted.add(file.path)
    try {
      if ((await storage.size(file.path)) !== file.sizeBytes)
        await mirrorFile(file, request, storage, options, abortable)
      wanted.delete(file.path)
    } catch (error) {
      // what readers bring must not pile up for a copy that has no room (I7)
      if (isEdgeError(error, 'STORE_FULL')) wanted.clear()
      throw error
    }
  }
  const files = await wantFiles(request, storage)
  for (const file of files) await bring(file)
  for (const { current, next } of request.releases.releases()) {
    const newest = next ?? current
    if (newest)
      for (const path of await mirrorWays(newest, request, storage, bring, abortable)) kept.add(path)
  }
  const manifests = (await storage.list('targets/')).filter(path => path.endsWith('.manifest.json'))
  for (const path of [...(await storage.list('packs/')), ...(await storage.list('deltas/')), ...manifests])
    if (!kept.has(path)) await storage.remove(path)
}

/** From now on what anybody brings of those that the copy lacks stays. @returns the files of all releases. */
export async function wantFiles(
  { releases, staged }: Pick<FillRequest, 'releases' | 'staged'>,
  storage: RepositoryStorage,
): Promise<RepositoryFile[]> {
  const files = allFilesOf(releases.releases())
  const wanted = wantedWhole(staged)
  wanted.clear()
  for (const { path } of files) wanted.add(path) // at once: somebody may be reading
  for (const { path, sizeBytes } of files) if ((await storage.size(path)) === sizeBytes) wanted.delete(path)
  return files
}

/**
 * The ways to the newest release. Its own manifest is kept last: from then on nobody is asked for more.
 * What can no longer be had costs nothing but frames there, and stops nothing here.
 * @returns the paths of all that is to be kept.
 */
async function mirrorWays(
  newest: Manifest,
  request: FillRequest,
  storage: RepositoryStorage,
  bring: (file: RepositoryFile) => Promise<void>,
  options: Abortable,
): Promise<string[]> {
  const { deltas, manifests, own, bytes, isNew } = await waysOf(newest, request, storage, options)
  let isWhole = true
  for (const file of isNew ? deltas : []) {
    try {
      await bring(file)
    } catch (error) {
      options.signal.throwIfAborted()
      if (!isEdgeError(error)) throw error
      isWhole &&= error.code === 'NOT_FOUND'
    }
  }
  if (isNew && isWhole) await storage.write(own, bytes)
  return [own, ...manifests, ...deltas.map(({ path }) => path)]
}

interface HubWays extends Ways {
  /** The release's own manifest, and its path in the copy. */
  readonly bytes: Uint8Array
  readonly own: string
  /** Whether something of them may not be here yet. */
  readonly isNew: boolean
}

export async function waysOf(
  newest: Manifest,
  { trust, upstreams }: Pick<FillRequest, 'trust' | 'upstreams'>,
  storage: RepositoryStorage,
  options: Abortable,
): Promise<HubWays> {
  const { current, next } = trust.record.manifests.get(newest.dataset) ?? {}
  const bytes = next ?? current ?? encodeManifest(newest)
  const own = manifestPath(newest.dataset, sha256Of(bytes))
  const isNew = (await storage.size(own)) === undefined
  const older = olderManifests(newest.dataset, { upstreams: isNew ? upstreams : [], storage }, options)
  return { ...(await waysTo(newest, waysBytesMax(newest), older)), bytes, own, isNew }
}
