/**
 * A hub keeps the packs and deltas of the releases that it wants, byte for byte, so that other
 * towers can fill from it, and the ways to them from releases before (`repository-files.ts`). What a file
 * must be is in its signed name; what arrived before a cut is gone on with (I9), and files that no wanted
 * release needs are removed.
 */
import { pathToFileURL } from 'node:url'
import { sha256Of } from '../manifests/digest.ts'
import { EdgeError, isEdgeError } from '../manifests/errors.ts'
import type { Abortable } from '../manifests/extent.ts'
import { encodeManifest, type Manifest, manifestPath, PACK_BYTES_MAX } from '../manifests/manifest.ts'
import { folderStorage } from '../manifests/publish/folder-storage.ts'
import type { RepositoryStorage } from '../manifests/publish/storage.ts'
import { Uploads } from '../node/publish/uploads.ts'
import { openFileUpstream } from './file-upstream.ts'
import { type FillEvent, type FillRequest, fillOnce } from './fill-once.ts'
import { refresh } from './refresh.ts'
import { filesOf, olderManifests, type RepositoryFile, waysBytesMax, waysTo } from './repository-files.ts'
import type { Upstream } from './upstream.ts'

export interface MirrorOptions {
  /** The repository folder that `/repo/` shows. */
  readonly folder: string
  /** For files on their way in; same file system. */
  readonly partsFolder: string
  /** Free space that is never taken (I7). */
  readonly reserveBytes: number
}

/** Attempts at one file without a single byte of progress. */
const FRUITLESS_MAX = 3

/**
 * A fill of a hub: what is new, then whole packs and deltas, then the store out of these, so that
 * nothing crosses the link twice.
 * @throws EdgeError as `fillOnce`
 */
export async function* fillMirror(request: FillRequest, options: MirrorOptions): AsyncGenerator<FillEvent> {
  const refreshed = await refresh(request, request)
  yield { type: 'refreshed', ...refreshed }
  await mirrorReleases(request, options, request)
  await using local = openFileUpstream(pathToFileURL(`${options.folder}/`), () => {})
  yield* fillOnce({ ...request, skipRefresh: true, upstreams: [local, ...request.upstreams] })
}

/** @throws EdgeError `UPSTREAM_…`, `STORE_FULL`; the signal's reason. What arrived is kept. */
async function mirrorReleases(
  request: FillRequest,
  { folder, partsFolder, reserveBytes }: MirrorOptions,
  options: Abortable,
): Promise<void> {
  const { releases, upstreams } = request
  const storage = folderStorage(folder)
  const uploads = new Uploads(partsFolder, storage, { fileBytesMax: PACK_BYTES_MAX, reserveBytes })
  const kept = new Set<string>()
  const bring = async (file: RepositoryFile) => {
    kept.add(file.path)
    if ((await storage.size(file.path)) !== file.sizeBytes) await fetchFile(file, uploads, upstreams, options)
  }
  const known = releases.releases()
  for (const manifest of known.flatMap(({ current, next }) => [current ?? [], next ?? []].flat()))
    for (const file of filesOf(manifest)) await bring(file)
  for (const { current, next } of known) {
    const newest = next ?? current
    if (newest) for (const path of await mirrorWays(newest, request, storage, bring, options)) kept.add(path)
  }
  const manifests = (await storage.list('targets/')).filter(path => path.endsWith('.manifest.json'))
  for (const path of [...(await storage.list('packs/')), ...(await storage.list('deltas/')), ...manifests])
    if (!kept.has(path)) await storage.remove(path)
}

/**
 * The ways to the newest release. Its own manifest is kept last: from then on nobody is asked for more.
 * What can no longer be had costs nothing but frames there, and stops nothing here.
 * @returns the paths of all that is to be kept.
 */
async function mirrorWays(
  newest: Manifest,
  { trust, upstreams }: FillRequest,
  storage: RepositoryStorage,
  bring: (file: RepositoryFile) => Promise<void>,
  options: Abortable,
): Promise<string[]> {
  const { current, next } = trust.record.manifests.get(newest.dataset) ?? {}
  const bytes = next ?? current ?? encodeManifest(newest)
  const own = manifestPath(newest.dataset, sha256Of(bytes))
  const isNew = (await storage.size(own)) === undefined
  const older = olderManifests(newest.dataset, { upstreams: isNew ? upstreams : [], storage }, options)
  const { deltas, manifests } = await waysTo(newest, waysBytesMax(newest), older)
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

export async function fetchFile(
  file: RepositoryFile,
  uploads: Uploads,
  upstreams: readonly Upstream[],
  { signal }: Abortable,
): Promise<void> {
  let failure: unknown = new EdgeError('UPSTREAM_UNREACHABLE', 'there is no upstream')
  for (const upstream of upstreams) {
    for (let fruitless = 0; fruitless < FRUITLESS_MAX; ) {
      const offset = await uploads.receivedBytes(file.sha256)
      const span = { offset, length: file.sizeBytes - offset }
      const purpose = { dataset: file.dataset, reason: 'mirror' }
      try {
        await uploads.append(file, offset, upstream.readSpan(file.path, span, { signal, purpose }))
        return
      } catch (error) {
        signal.throwIfAborted()
        failure = error
        if (isEdgeError(error, 'NOT_FOUND')) break
        fruitless = (await uploads.receivedBytes(file.sha256)) > offset ? 0 : fruitless + 1
      }
    }
  }
  throw failure
}
