/**
 * The files that a carrier, a hub or a stick, takes along for a release: its own packs and deltas, and
 * what towers need that are several releases behind: the manifests between and the deltas of the
 * smallest way from each (docs/delta.md §7). The ways are found by the code that looks for them there.
 */
import { sha256Of, type Sha256 } from '../manifests/digest.ts'
import type { Abortable } from '../manifests/extent.ts'
import {
  deltaPath,
  type DirectoryRef,
  manifestPath,
  packPath,
  type Manifest,
  type PackRef,
} from '../manifests/manifest.ts'
import type { RepositoryStorage } from '../manifests/publish/storage.ts'
import { findChain, loadManifest } from './delta-chain.ts'
import type { DatasetReleases } from './releases.ts'
import type { DigestCache } from './sources.ts'
import type { Upstream } from './upstream.ts'

export interface RepositoryFile {
  readonly path: string
  readonly sha256: Sha256
  readonly sizeBytes: number
  readonly dataset: string
  readonly directory: DirectoryRef
}

/** Of one dataset. */
export interface OlderManifests {
  /** Undefined when nobody has it any more. */
  load(sha256: Sha256): Promise<Manifest | undefined>
  /** What was found, by its path in a repository. */
  readonly found: ReadonlyMap<string, Uint8Array>
}

export interface Ways {
  readonly deltas: readonly RepositoryFile[]
  /** Paths of those on the ways, and of those looked at beside them. */
  readonly manifests: readonly string[]
}

/** How far behind a tower may be. */
const RELEASES_BACK = 16
/** Of the packs' size: what ways from releases before may add, the nearest first. */
const WAYS_SHARE_MAX = 0.25

export function waysBytesMax(manifest: Manifest): number {
  return WAYS_SHARE_MAX * bytesOfFiles(packsOf(manifest))
}

/** Packs and deltas. */
export function filesOf(manifest: Manifest): RepositoryFile[] {
  return [...packsOf(manifest), ...deltasOf(manifest.dataset, manifest.deltas)]
}

/** Of all releases that are served or on their way. */
export function allFilesOf(releases: readonly DatasetReleases[]): RepositoryFile[] {
  return releases
    .flatMap(({ current, next }) => [current, next].filter(manifest => manifest !== undefined))
    .flatMap(filesOf)
}

export function packsOf({ dataset, packs }: Manifest): RepositoryFile[] {
  return packs.map(ref => fileOf(packPath(ref.sha256), ref, dataset))
}

function deltasOf(dataset: string, deltas: readonly PackRef[]): RepositoryFile[] {
  return deltas.map(ref => fileOf(deltaPath(ref.sha256), ref, dataset))
}

export function bytesOfFiles(files: Iterable<RepositoryFile>): number {
  let bytes = 0
  for (const { sizeBytes } of files) bytes += sizeBytes
  return bytes
}

/** @param storage where they are looked for first, and kept. */
export function olderManifests(
  dataset: string,
  { upstreams, storage }: { readonly upstreams: readonly Upstream[]; readonly storage?: RepositoryStorage },
  options: Abortable,
): OlderManifests {
  const found = new Map<string, Uint8Array>()
  const cache: Pick<DigestCache, 'get' | 'put'> = {
    async get(sha256) {
      const path = manifestPath(dataset, sha256)
      const bytes = await storage?.read(path)
      if (!bytes || sha256Of(bytes) !== sha256) return undefined
      found.set(path, bytes)
      return Buffer.from(bytes)
    },
    async put(sha256, bytes) {
      const path = manifestPath(dataset, sha256)
      await storage?.write(path, bytes)
      found.set(path, bytes)
    },
  }
  const loads = new Map<Sha256, Promise<Manifest | undefined>>()
  return {
    found,
    load(sha256) {
      const load = loads.get(sha256) ?? loadManifest(sha256, { cache, dataset, upstreams }, options)
      loads.set(sha256, load)
      return load
    },
  }
}

/** The smallest way from a release; undefined when there is none, or packs are smaller. */
export async function wayFrom(
  held: number,
  manifest: Manifest,
  older: OlderManifests,
): Promise<Ways | undefined> {
  const { dataset } = manifest
  // where there is a direct delta, nobody looks for another way
  const direct = manifest.deltas.filter(({ from }) => from === held)
  const { hops, manifests } =
    direct.length > 0
      ? { hops: direct.map(ref => ({ ref })), manifests: [] }
      : await findChain(manifest, held, sha256 => older.load(sha256))
  const refs = hops.map(({ ref }) => ref)
  const deltas = deltasOf(dataset, refs)
  if (hops.length === 0 || bytesOfFiles(deltas) > bytesOfFiles(packsOf(manifest))) return undefined
  const paths = manifests.map(sha256 => manifestPath(dataset, sha256))
  return { deltas, manifests: paths.filter(path => older.found.has(path)) }
}

/** The ways from all releases before, as far as they add no more than `bytesMax` to the release's own deltas. */
export async function waysTo(manifest: Manifest, bytesMax: number, older: OlderManifests): Promise<Ways> {
  const own = new Set(manifest.deltas.map(({ sha256 }) => sha256))
  const deltas = new Map<Sha256, RepositoryFile>()
  const manifests = new Set<string>()
  let bytes = 0
  for (let back = 1; back <= RELEASES_BACK && back < manifest.revision; back++) {
    const way = await wayFrom(manifest.revision - back, manifest, older)
    const more = way?.deltas.filter(({ sha256 }) => !own.has(sha256) && !deltas.has(sha256)) ?? []
    if (!way || bytes + bytesOfFiles(more) > bytesMax) continue
    bytes += bytesOfFiles(more)
    for (const file of more) deltas.set(file.sha256, file)
    for (const path of way.manifests) manifests.add(path)
  }
  return { deltas: [...deltas.values()], manifests: [...manifests] }
}

function fileOf(path: string, { sha256, size, directory }: PackRef, dataset: string): RepositoryFile {
  return { path, sha256, sizeBytes: size, dataset, directory }
}
