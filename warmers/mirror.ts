/**
 * A hub keeps the packs and deltas of the releases that it wants, byte for byte, so that other
 * towers can fill from it. What a file must be is in its signed name; what arrived before a cut is
 * gone on with (I9), and files that no wanted release needs are removed.
 */
import { pathToFileURL } from 'node:url'
import type { Sha256 } from '../manifests/digest.ts'
import { EdgeError } from '../manifests/errors.ts'
import type { Abortable } from '../manifests/extent.ts'
import { deltaPath, type Manifest, PACK_BYTES_MAX, packPath } from '../manifests/manifest.ts'
import { folderStorage } from '../manifests/publish/folder-storage.ts'
import { Uploads } from '../node/publish/uploads.ts'
import { openFileUpstream } from './file-upstream.ts'
import { type FillEvent, type FillRequest, fillOnce } from './fill-once.ts'
import { refresh } from './refresh.ts'
import type { Releases } from './releases.ts'
import type { Upstream } from './upstream.ts'

export interface MirrorOptions {
  /** The repository folder that `/repo/` shows. */
  readonly folder: string
  /** For files on their way in; same file system. */
  readonly partsFolder: string
  /** Free space that is never taken (I7). */
  readonly reserveBytes: number
}

export interface MirrorFile {
  readonly path: string
  readonly sha256: Sha256
  readonly sizeBytes: number
  readonly dataset: string
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
export async function mirrorReleases(
  { releases, upstreams }: { readonly releases: Releases; readonly upstreams: readonly Upstream[] },
  { folder, partsFolder, reserveBytes }: MirrorOptions,
  options: Abortable,
): Promise<void> {
  const storage = folderStorage(folder)
  const uploads = new Uploads(partsFolder, storage, { fileBytesMax: PACK_BYTES_MAX, reserveBytes })
  const wanted = new Map<string, MirrorFile>()
  for (const { current, next } of releases.releases()) {
    for (const manifest of [current, next]) for (const file of filesOf(manifest)) wanted.set(file.path, file)
  }
  for (const file of wanted.values()) {
    if ((await storage.size(file.path)) !== file.sizeBytes) await fetchFile(file, uploads, upstreams, options)
  }
  for (const path of [...(await storage.list('packs/')), ...(await storage.list('deltas/'))]) {
    if (!wanted.has(path)) await storage.remove(path)
  }
}

function filesOf(manifest: Manifest | undefined): MirrorFile[] {
  if (!manifest) return []
  const { dataset, packs, deltas } = manifest
  return [
    ...packs.map(({ sha256, size }) => ({ path: packPath(sha256), sha256, sizeBytes: size, dataset })),
    ...deltas.map(({ sha256, size }) => ({ path: deltaPath(sha256), sha256, sizeBytes: size, dataset })),
  ]
}

export async function fetchFile(
  file: MirrorFile,
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
        fruitless = (await uploads.receivedBytes(file.sha256)) > offset ? 0 : fruitless + 1
      }
    }
  }
  throw failure
}
