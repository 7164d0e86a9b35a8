/**
 * Whether staged metadata may replace a repository's: the TUF workflow as a client runs it, from
 * what is trusted now, and then that everything which the new targets name is here and in order.
 */
import { parseSha256, sha256Of } from '../../manifests/digest.ts'
import { EdgeError } from '../../manifests/errors.ts'
import { isDatasetName } from '../../manifests/dataset-name.ts'
import {
  deltaPath,
  type Manifest,
  manifestPath,
  manifestTarget,
  packPath,
  type PackRef,
  parseManifest,
} from '../../manifests/manifest.ts'
import type { RepositoryStorage } from '../../manifests/publish/storage.ts'
import { acceptUpdate } from '../../manifests/tuf/accept.ts'
import {
  type AcceptedState,
  type FoundTarget,
  findTarget,
  targetPaths,
} from '../../manifests/tuf/accepted-state.ts'

const METADATA = 'metadata/'
const MANIFEST_SUFFIX = '/manifest.json'

/** Metadata that was uploaded and is not visible yet, by path (`metadata/7.snapshot.json`). */
export type StagedMetadata = ReadonlyMap<string, Uint8Array>

/**
 * @param state what the receiver trusts.
 * @returns the state that accepts the staged metadata.
 * @throws EdgeError `TRUST_*` when a client would not accept it, `PUBLISH_REFUSED` when it names what is not here.
 */
export async function checkRelease(
  storage: RepositoryStorage,
  state: AcceptedState,
  staged: StagedMetadata,
  now: Date,
): Promise<AcceptedState> {
  const next = await acceptUpdate({
    state,
    now,
    fetchMetadata: async name => staged.get(METADATA + name) ?? (await storage.read(METADATA + name)),
  })
  const [problem] = next.problems
  if (problem) throw new EdgeError('PUBLISH_REFUSED', `role ${problem.role}: ${problem.message}`)
  for (const path of targetPaths(next)) {
    const target = findTarget(next, path)
    if (target && findTarget(state, path)?.sha256 !== target.sha256) await checkTarget(storage, target)
  }
  return next
}

async function checkTarget(
  storage: RepositoryStorage,
  target: FoundTarget & { readonly sha256: string },
): Promise<void> {
  const sha256 = parseSha256(target.sha256)
  const dataset = target.path.slice(0, -MANIFEST_SUFFIX.length)
  const isManifest = target.path.endsWith(MANIFEST_SUFFIX) && isDatasetName(dataset)
  const file = isManifest ? manifestPath(dataset, sha256) : hashPrefixed(target.path, sha256)
  const bytes = await storage.read(file)
  if (!bytes || bytes.length !== target.lengthBytes || sha256Of(bytes) !== sha256) {
    throw new EdgeError('PUBLISH_REFUSED', `${file} is not here: upload it first`)
  }
  if (isManifest) await checkManifest(storage, dataset, parseManifest(bytes))
}

async function checkManifest(storage: RepositoryStorage, dataset: string, manifest: Manifest): Promise<void> {
  if (manifest.dataset !== dataset) {
    throw new EdgeError(
      'PUBLISH_REFUSED',
      `the manifest of ${manifest.dataset} stands at ${manifestTarget(dataset)}`,
    )
  }
  for (const pack of manifest.packs) await checkFile(storage, packPath(pack.sha256), pack)
  for (const delta of manifest.deltas) await checkFile(storage, deltaPath(delta.sha256), delta)
}

/** The file's bytes were proven against its name when it came; its directory is what the manifest says. */
async function checkFile(
  storage: RepositoryStorage,
  path: string,
  { size, directory }: PackRef,
): Promise<void> {
  if ((await storage.size(path)) !== size)
    throw new EdgeError('PUBLISH_REFUSED', `${path} is not here: upload it first`)
  const bytes = await storage.read(path, { offset: directory.offset, length: directory.size })
  if (!bytes || sha256Of(bytes) !== directory.sha256) {
    throw new EdgeError('PUBLISH_REFUSED', `${path}: its directory is not the one that the manifest names`)
  }
}

/** TUF consistent snapshots: `a/b.json` is kept as `targets/a/<sha256>.b.json`. */
export function hashPrefixed(path: string, sha256: string): string {
  const slash = path.lastIndexOf('/') + 1
  return `targets/${path.slice(0, slash)}${sha256}.${path.slice(slash)}`
}
