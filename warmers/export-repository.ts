/**
 * Sneakernet: a closed repository in a folder (a stick, a disk), made from what this node fills from;
 * the other side reads it as a `file:` upstream, by the same code as the network.
 *
 * Closed means: metadata, manifests, and every pack and delta that the other side needs. With its
 * want-list only those. Files are at most 1 GiB, so FAT32 will do. Metadata comes last, so that a
 * stick pulled out too early shows the release it had before; run again, it goes on.
 */
import { readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { z } from 'zod'
import { isDatasetName } from '../manifests/dataset-name.ts'
import { openSha256, sha256Of, type Sha256 } from '../manifests/digest.ts'
import { EdgeError, isEdgeError } from '../manifests/errors.ts'
import type { Abortable } from '../manifests/extent.ts'
import { manifestPath, PACK_BYTES_MAX, type Manifest } from '../manifests/manifest.ts'
import { folderStorage } from '../manifests/publish/folder-storage.ts'
import type { RepositoryStorage } from '../manifests/publish/storage.ts'
import { Uploads } from '../node/publish/uploads.ts'
import { repoFilesOf } from '../node/repo-view.ts'
import type { TrustStore } from '../node/trust-store.ts'
import type { Releases } from './releases.ts'
import {
  bytesOfFiles,
  filesOf,
  olderManifests,
  packsOf,
  type RepositoryFile,
  wayFrom,
  waysBytesMax,
  waysTo,
} from './repository-files.ts'
import type { Upstream } from './upstream.ts'

/** What a node has, so that somebody can bring it the rest. Unsigned: it only saves space. */
export const WantList = z.object({
  format: z.literal('towerlight-wants-v1'),
  datasets: z.array(
    z.object({
      dataset: z.custom<string>(isDatasetName),
      revision: z.number().int().positive(),
      whole: z.boolean(),
    }),
  ),
})
export type WantList = z.infer<typeof WantList>

/** @throws EdgeError `REQUEST_INVALID` */
export function parseWantList(text: string): WantList {
  try {
    return WantList.parse(JSON.parse(text))
  } catch (cause) {
    throw new EdgeError('REQUEST_INVALID', 'not a want-list: `tower export --wants` writes one', { cause })
  }
}

/** @returns `undefined` datasets are those this node knows nothing of. */
export async function wantListOf(releases: Releases): Promise<WantList> {
  const datasets: WantList['datasets'] = []
  for (const { dataset, current, next } of releases.releases()) {
    if (!current) continue
    const { nodes, extents } = next ? { nodes: [], extents: [] } : await releases.missing(dataset)
    datasets.push({ dataset, revision: current.revision, whole: nodes.length + extents.length === 0 })
  }
  return { format: 'towerlight-wants-v1', datasets }
}

export interface ExportRequest extends Abortable {
  readonly folder: string
  /** All when absent. */
  readonly datasets?: readonly string[]
  /** Of the other side. */
  readonly wants?: WantList
  readonly trust: TrustStore
  readonly releases: Releases
  /** Where packs and deltas are: this node's own repository folder first, if it has one. */
  readonly upstreams: readonly Upstream[]
}

export type ExportEvent =
  | { readonly type: 'planned'; readonly files: number; readonly bytes: number; readonly here: number }
  | { readonly type: 'file'; readonly path: string; readonly bytes: number }
  | { readonly type: 'done'; readonly files: number; readonly bytes: number }

/** Attempts at one file without a single byte of progress. */
const FRUITLESS_MAX = 3
const INDEX = 'towerlight-export.json'
const PARTS = '.parts'
/** What a stick is left with. */
const RESERVE_BYTES = 1024 * 1024

interface IndexedFile {
  readonly path: string
  readonly size: number
  readonly sha256: Sha256
}

/** @throws EdgeError `DATASET_UNKNOWN`, `STORE_FULL` (with the shortfall), `UPSTREAM_…` */
export async function* exportRepository(request: ExportRequest): AsyncGenerator<ExportEvent> {
  const { folder, trust, upstreams, signal } = request
  const storage = folderStorage(folder)
  const manifests = newestOf(request)
  const files: RepositoryFile[] = []
  const older = new Map<string, Uint8Array>()
  for (const manifest of manifests) {
    const needed = await neededFor(manifest, request)
    files.push(...needed.files)
    for (const [path, bytes] of needed.older) older.set(path, bytes)
  }
  const lacking: RepositoryFile[] = []
  for (const file of files) if ((await storage.size(file.path)) !== file.sizeBytes) lacking.push(file)
  const bytes = bytesOfFiles(files)
  yield { type: 'planned', files: files.length, bytes, here: bytes - bytesOfFiles(lacking) }

  const uploads = new Uploads(join(folder, PARTS), storage, {
    fileBytesMax: PACK_BYTES_MAX,
    reserveBytes: RESERVE_BYTES,
  })
  for (const file of lacking) {
    await fetchFile(file, uploads, upstreams, { signal })
    yield { type: 'file', path: file.path, bytes: file.sizeBytes }
  }
  const small = new Map([...older, ...smallFilesOf(trust, manifests)])
  const index = [
    ...files.map(({ path, sizeBytes, sha256 }) => ({ path, size: sizeBytes, sha256 })),
    ...[...small].map(([path, bytes]) => ({ path, size: bytes.length, sha256: sha256Of(bytes) })),
  ]
  await storage.write(INDEX, Buffer.from(JSON.stringify({ format: 'towerlight-export-v1', files: index })))
  // what the other side asks for first is written last
  const inOrder = [...small].toSorted(
    ([a], [b]) => Number(a.endsWith('timestamp.json')) - Number(b.endsWith('timestamp.json')),
  )
  for (const [path, bytes] of inOrder) await storage.write(path, bytes)
  yield { type: 'done', files: index.length, bytes: index.reduce((bytes, { size }) => bytes + size, 0) }
}

/** What is missing or damaged in an exported folder; nothing when all is well. @throws EdgeError `NOT_FOUND` */
export async function* checkExport(
  folder: string,
  { signal }: Abortable,
): AsyncGenerator<{ readonly path: string; readonly problem: 'missing' | 'damaged' }> {
  const storage = folderStorage(folder)
  const text = await readFile(join(folder, INDEX), 'utf8').catch((cause: unknown) => {
    throw new EdgeError('NOT_FOUND', `${folder} is no export: it has no ${INDEX}`, { cause })
  })
  const { files } = JSON.parse(text) as { files: readonly IndexedFile[] }
  for (const { path, size, sha256 } of files) {
    signal.throwIfAborted()
    const here = await storage.size(path)
    if (here === undefined) yield { path, problem: 'missing' }
    else if (here !== size || (await digestOf(storage, path, size)) !== sha256)
      yield { path, problem: 'damaged' }
  }
}

function newestOf({ releases, datasets }: ExportRequest): Manifest[] {
  const known = releases.releases()
  for (const dataset of datasets ?? []) {
    if (!known.some(release => release.dataset === dataset)) throw new EdgeError('DATASET_UNKNOWN', dataset)
  }
  return known.flatMap(({ dataset, current, next }) => {
    const manifest = next ?? current
    return manifest && (datasets?.includes(dataset) ?? true) ? [manifest] : []
  })
}

interface Needed {
  readonly files: readonly RepositoryFile[]
  /** Manifests of releases before, by path. */
  readonly older: ReadonlyMap<string, Uint8Array>
}

/**
 * The smallest way from what the other side holds, if it holds all of that and there is one; else all
 * packs; for others all packs, deltas, and ways from releases before.
 */
async function neededFor(manifest: Manifest, request: ExportRequest): Promise<Needed> {
  const { wants, upstreams, signal } = request
  const { dataset, revision } = manifest
  const held = wants?.datasets.find(known => known.dataset === dataset)
  if (held?.whole && held.revision >= revision) return { files: [], older: new Map() }
  const known = olderManifests(dataset, { upstreams }, { signal })
  const ways = !wants
    ? await waysTo(manifest, waysBytesMax(manifest), known)
    : held?.whole && (await wayFrom(held.revision, manifest, known))
  if (!ways) return { files: packsOf(manifest), older: new Map() }
  const older = new Map(ways.manifests.map(path => [path, known.found.get(path)!]))
  return { files: wants ? ways.deltas : [...filesOf(manifest), ...ways.deltas], older }
}

function smallFilesOf(trust: TrustStore, manifests: readonly Manifest[]): Map<string, Uint8Array> {
  const chosen = new Set<string>()
  for (const { dataset } of manifests) {
    for (const bytes of Object.values(trust.record.manifests.get(dataset) ?? {})) {
      if (bytes instanceof Uint8Array) chosen.add(manifestPath(dataset, sha256Of(bytes)))
    }
  }
  const all = repoFilesOf(trust.record)
  return new Map([...all].filter(([path]) => !path.endsWith('.manifest.json') || chosen.has(path)))
}

async function digestOf(storage: RepositoryStorage, path: string, size: number): Promise<Sha256> {
  const STEP = 4 * 1024 * 1024
  const sha256 = openSha256()
  for (let offset = 0; offset < size; offset += STEP) {
    sha256.update((await storage.read(path, { offset, length: STEP })) ?? Buffer.alloc(0))
  }
  return sha256.digest()
}

async function fetchFile(
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
      const purpose = { dataset: file.dataset, reason: 'export' }
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
