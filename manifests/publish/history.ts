/**
 * The releases of a dataset that a repository keeps, and what no kept release needs.
 *
 * Only the current manifest is signed for; older ones are kept so that deltas can be made from
 * them and nodes that are half way through a fill can finish. A manifest newer than the current
 * one was never signed: it is what an interrupted publish left behind. Where none is signed for,
 * the newest may be what an interrupted first publish left, or what a publisher signed whose role
 * is gone: revisions go on from there, because they must only grow.
 */
import { sha256Of, type Sha256 } from '../digest.ts'
import { EdgeError, isEdgeError } from '../errors.ts'
import { deltaPath, manifestTarget, packPath, parseManifest, type Manifest } from '../manifest.ts'
import type { ReleaseSigner } from './release-signer.ts'
import type { RepositoryStorage } from './storage.ts'

export interface StoredManifest {
  readonly path: string
  readonly sha256: Sha256
  readonly manifest: Manifest
}

export interface History {
  readonly current?: Manifest
  /** The current one, if there is one, and those before it, newest first. */
  readonly releases: readonly StoredManifest[]
}

/**
 * Manifests newer than the current one are removed here.
 *
 * @throws EdgeError `TRUST_INVALID`, … from the signer; `MANIFEST_INVALID` when the current manifest is not readable.
 */
export async function loadHistory(
  storage: RepositoryStorage,
  signer: ReleaseSigner,
  dataset: string,
): Promise<History> {
  const target = await signer.current(manifestTarget(dataset), storage)
  const stored = await storedManifests(storage, `targets/${dataset}/`)
  if (!target) return { releases: newestFirst(stored) }
  const current = stored.find(({ path }) => path.includes(target.sha256))
  if (!current) {
    throw new EdgeError(
      'MANIFEST_INVALID',
      `the repository's metadata name a manifest of ${dataset} that is not there whole (targets/${dataset}/${target.sha256}.manifest.json): bring it back from a copy of the repository`,
    )
  }
  const isSigned = ({ path, manifest: { revision } }: StoredManifest) =>
    revision < current.manifest.revision || path === current.path
  for (const other of stored) if (!isSigned(other)) await storage.remove(other.path)
  return { current: current.manifest, releases: newestFirst(stored.filter(isSigned)) }
}

function newestFirst(stored: readonly StoredManifest[]): readonly StoredManifest[] {
  return stored.toSorted((left, right) => right.manifest.revision - left.manifest.revision)
}

/** Removes releases beyond the newest `keep`, then packs and deltas that no manifest of any dataset names. */
export async function prune(
  storage: RepositoryStorage,
  dataset: string,
  current: Manifest,
  keep: number,
): Promise<{ removed: number }> {
  let removed = 0
  for (const { path, manifest } of await storedManifests(storage, `targets/${dataset}/`)) {
    const { revision } = manifest
    const isKept = revision > current.revision - keep && revision <= current.revision
    if (isKept) continue
    await storage.remove(path)
    removed += 1
  }

  const named = new Set<string>()
  for (const { manifest } of await storedManifests(storage, 'targets/')) {
    for (const { sha256 } of manifest.packs) named.add(packPath(sha256))
    for (const { sha256 } of manifest.deltas) named.add(deltaPath(sha256))
  }
  for (const path of [...(await storage.list('packs/')), ...(await storage.list('deltas/'))]) {
    if (named.has(path)) continue
    await storage.remove(path)
    removed += 1
  }
  return { removed }
}

/** Packs that no manifest names: complete ones of an interrupted publish. */
export async function orphanPacks(storage: RepositoryStorage): Promise<Sha256[]> {
  const named = new Set<string>()
  for (const { manifest } of await storedManifests(storage, 'targets/'))
    for (const { sha256 } of manifest.packs) named.add(packPath(sha256))
  const orphans = (await storage.list('packs/')).filter(path => !named.has(path))
  return orphans.map(path => path.slice('packs/'.length, -'.pack'.length) as Sha256)
}

/** Manifests whose bytes are what their names say; others are no manifests of ours. */
async function storedManifests(storage: RepositoryStorage, prefix: string): Promise<StoredManifest[]> {
  const stored: StoredManifest[] = []
  for (const path of await storage.list(prefix)) {
    if (!path.endsWith('.manifest.json')) continue
    const bytes = await storage.read(path)
    if (!bytes) continue
    const sha256 = sha256Of(bytes)
    if (!path.includes(sha256)) continue
    try {
      stored.push({ path, sha256, manifest: parseManifest(bytes) })
    } catch (error) {
      if (!isEdgeError(error, 'MANIFEST_INVALID')) throw error
    }
  }
  return stored
}
