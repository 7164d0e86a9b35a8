/**
 * A folder becomes a release: scanned, packed, with deltas from earlier releases, and signed.
 *
 * The same folder gives the same bytes. Packs and deltas are written first, metadata last, the
 * timestamp last of all: until then everybody sees the release before, and running it again after
 * any interruption finishes the work, using what was packed already. A folder that has not changed
 * is read and nothing is written. Memory does not grow with file sizes.
 */
import { encodeSortedCatalog, type CatalogEntry } from '../catalog.ts'
import { parseDatasetName } from '../dataset-name.ts'
import { sha256Of } from '../digest.ts'
import { CHUNKING } from '../fastcdc.ts'
import {
  encodeManifest,
  MANIFEST_FORMAT,
  manifestPath,
  manifestTarget,
  type Manifest,
  type PinPolicy,
} from '../manifest.ts'
import { mediaTypeOf } from '../media-type.ts'
import { folderFiles, type FolderFiles } from './folder-files.ts'
import { FolderItems } from './folder-release.ts'
import { FolderView } from './folder-view.ts'
import { FrameCache } from './frame-cache.ts'
import { loadHistory, prune } from './history.ts'
import { openItemHasher } from './item-hasher.ts'
import { openPacks, trustedExtents } from './known-packs.ts'
import { packMissing } from './pack-missing.ts'
import { planPacks } from './plan-packs.ts'
import { publishDeltas } from './publish-deltas.ts'
import type { ReleaseSigner } from './release-signer.ts'
import type { RepositoryStorage } from './storage.ts'

export type Priority = 0 | 1 | 2 | 3

export interface PublishOptions {
  /** For people. Title, priority and pins stay what they were in the release before when not given. */
  readonly title?: string
  /** Of items that have none of their own; by the dataset's name to begin with: health 0, education 1, else 2. */
  readonly priority?: Priority
  readonly priorityOf?: (path: string) => Priority | undefined
  readonly pin?: PinPolicy
  /** What the release says as its date: for reproducible bytes (`--date`, SOURCE_DATE_EPOCH). */
  readonly date?: Date
  /** How many releases the repository keeps. */
  readonly keepRevisions?: number
  /** zstd's. */
  readonly level?: number
  /** Threads that hash. */
  readonly threads?: 1 | 2
  readonly deltas?: boolean
  readonly packBytesMax?: number
  readonly onProgress?: (progress: PublishProgress) => void
}

export interface PublishProgress {
  readonly stage: 'hashing' | 'packing' | 'deltas' | 'signing'
  /** What it is about just now. */
  readonly path?: string
  readonly doneBytes: number
  /** While packing: what is not packed yet. */
  readonly totalBytes?: number
  /** While hashing. */
  readonly doneItems?: number
  readonly totalItems: number
}

export interface PublishRequest {
  readonly folder: string
  readonly dataset: string
  readonly repository: RepositoryStorage
  readonly signer: ReleaseSigner
  readonly options?: PublishOptions
  readonly now: Date
}

export interface PublishReport {
  readonly dataset: string
  readonly revision: number
  /** False when the folder is what the current release has: nothing was written. */
  readonly changed: boolean
  readonly items: number
  readonly itemBytes: number
  /** Content that had to be packed, before compression. */
  readonly packedBytes: number
  /** Part of that which was found compressed already: an interrupted publish had got so far. */
  readonly reusedBytes: number
  /** New packs and deltas as stored. */
  readonly packBytes: number
  readonly deltaBytes: number
  readonly manifest: Manifest
  readonly skipped: FolderFiles['skipped']
  /** Files removed because no kept release needs them. */
  readonly removed: number
}

const KEEP_REVISIONS = 9
const LEVEL = 19

/**
 * @throws EdgeError `REQUEST_INVALID` (the dataset's name), `PUBLISH_CONFLICT`, `PUBLISH_FOLDER_UNREADABLE`,
 * `PUBLISH_FOLDER_EMPTY`, `PUBLISH_FILE_CHANGED`, `PATH_INVALID`, and the signer's.
 */
export async function publishRelease(request: PublishRequest): Promise<PublishReport> {
  const { repository, signer, options = {} } = request
  const dataset = parseDatasetName(request.dataset)
  await using _held = await repository.lock()
  const history = await loadHistory(repository, signer, dataset)
  const before = history.releases[0]?.manifest
  const { common: priority, own: priorityOf } = prioritiesOf(request, before)

  const { files, view, itemBytes } = await scan(request, priorityOf)
  const about = {
    dataset,
    title: options.title ?? before?.title,
    priority,
    pin: options.pin ?? before?.pin,
    catalog: {
      root: view.catalog.root,
      sha256: view.catalog.sha256,
      size: view.catalog.sizeBytes,
      items: view.itemCount,
      itemBytes,
    },
  }
  const tell = (stage: PublishProgress['stage'], more: Partial<PublishProgress> = {}) =>
    options.onProgress?.({ stage, doneBytes: 0, totalItems: view.itemCount, ...more })
  const sign = async (manifest: Manifest) => {
    await view.assertUnchanged()
    tell('signing')
    const bytes = encodeManifest(manifest)
    await repository.write(manifestPath(dataset, sha256Of(bytes)), bytes)
    await signer.sign({ targetPath: manifestTarget(dataset), bytes }, repository, request.now)
  }
  const reportOf = async (manifest: Manifest, written: Partial<PublishReport> = {}) => ({
    ...{ changed: true, packedBytes: 0, reusedBytes: 0, packBytes: 0, deltaBytes: 0 },
    ...written,
    ...{ dataset, revision: manifest.revision, items: view.itemCount, itemBytes, manifest },
    skipped: files.skipped,
    ...(await prune(repository, dataset, manifest, options.keepRevisions ?? KEEP_REVISIONS)),
  })

  const cache = new FrameCache()
  const packs = await openPacks(repository, cache, history)
  if (before && packs.whole && isSame(before, about)) {
    if (history.current) return await reportOf(before, { changed: false })
    if (isSame(before, publishedAt(options.date))) {
      await sign(before) // all was done but that
      return await reportOf(before)
    }
  }

  const revision = (before?.revision ?? 0) + 1
  const needed = view.extentSizes()
  const plan = await planPacks({
    needed,
    nodes: view.nodes,
    candidates: packs.candidates,
    trusted: await trustedExtents(repository, cache, history),
  })
  const totalBytes = plan.missing.values().reduce((sum, cid) => sum + needed.get(cid)!, 0)
  const packed = await packMissing(view, plan, {
    storage: repository,
    cache,
    known: packs.candidates,
    effort: { level: options.level ?? LEVEL, isUpdate: before !== undefined },
    packBytesMax: options.packBytesMax,
    progress: (path, doneBytes) => tell('packing', { path, doneBytes, totalBytes }),
  })
  tell('deltas')
  const deltas =
    options.deltas === false
      ? []
      : await publishDeltas(repository, cache, history.releases, { view, revision })

  const manifest: Manifest = {
    format: MANIFEST_FORMAT,
    ...about,
    revision,
    ...publishedAt(options.date ?? request.now),
    chunking: CHUNKING,
    packs: [...plan.keep.map(({ ref }) => ref), ...packed.packs],
    deltas,
  }
  await sign(manifest)
  return await reportOf(manifest, {
    packedBytes: packed.rawBytes,
    reusedBytes: packed.reusedBytes,
    packBytes: sizeOf(packed.packs),
    deltaBytes: sizeOf(deltas),
  })
}

function publishedAt(date: Date): { published: string }
function publishedAt(date: Date | undefined): { published?: string }
function publishedAt(date: Date | undefined) {
  return date ? { published: `${date.toISOString().slice(0, 19)}Z` } : {}
}

async function scan(
  { folder, options = {} }: PublishRequest,
  priorityOf: (path: string) => Priority | undefined,
) {
  const files = await folderFiles(folder)
  await using hasher = openItemHasher(options.threads ?? 2)
  const scanned = new FolderItems(folder)
  let doneBytes = 0
  let doneItems = 0
  await scanned.scan(files.paths, hasher, ({ path, items, sizeBytes }) => {
    doneBytes += sizeBytes
    doneItems += items
    options.onProgress?.({ stage: 'hashing', path, doneBytes, doneItems, totalItems: files.paths.length })
  })
  return {
    files,
    itemBytes: doneBytes,
    view: new FolderView(scanned, encodeSortedCatalog(entriesOf(scanned, priorityOf))),
  }
}

function* entriesOf(
  scanned: FolderItems,
  priorityOf: (path: string) => Priority | undefined,
): Generator<CatalogEntry> {
  for (const { path, sizeBytes, sha256, root } of scanned.dags()) {
    const priority = priorityOf(path)
    yield {
      path,
      sizeBytes,
      sha256,
      root,
      mediaType: mediaTypeOf(path),
      ...(priority !== undefined && { priority }),
    }
  }
}

/** The manifest's priority, and an item's when it is another one. */
function prioritiesOf({ dataset, options = {} }: PublishRequest, current: Manifest | undefined) {
  const byName = dataset.startsWith('health/') ? 0 : dataset.startsWith('education/') ? 1 : 2
  const common = options.priority ?? current?.priority ?? byName
  const own = (path: string) => {
    const priority = options.priorityOf?.(path)
    return priority === common ? undefined : priority
  }
  return { common, own }
}

function isSame(before: Manifest, about: Partial<Manifest>): boolean {
  return encodeManifest(before).equals(encodeManifest({ ...before, ...about }))
}

function sizeOf(files: readonly { readonly size: number }[]): number {
  return files.reduce((sum, { size }) => sum + size, 0)
}
