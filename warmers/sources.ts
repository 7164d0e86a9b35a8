/**
 * A release's packs and deltas as the planner sees them: their directories, fetched once in a
 * node's life and kept on disk under their digest.
 */
import { createHash } from 'node:crypto'
import { mkdir, open, readdir, readFile, rename, rm } from 'node:fs/promises'
import { join } from 'node:path'
import type { Cid } from '../manifests/cid.ts'
import { sha256Of, type Sha256 } from '../manifests/digest.ts'
import { EdgeError, isEdgeError } from '../manifests/errors.ts'
import type { Abortable, DagNode } from '../manifests/extent.ts'
import { packPath, type DirectoryRef, type PackRef } from '../manifests/manifest.ts'
import { expandFrame, frameExtents, openPackDirectory, type PackDirectory } from '../manifests/pack.ts'
import { claimBundles, claimFile } from './bundle-claims.ts'
import { fetchSpans, type FetchTools } from './fetch-spans.ts'
import type { Source } from './plan-fill.ts'
import type { Span } from './upstream.ts'

/** Small files by their SHA-256; a damaged one is as good as none. */
export interface DigestCache {
  get(sha256: Sha256): Promise<Buffer | undefined>
  put(sha256: Sha256, bytes: Uint8Array): Promise<void>
  /** Forgets all but these. */
  retain(digests: ReadonlySet<string>): Promise<void>
}

export async function openDigestCache(folder: string): Promise<DigestCache> {
  await mkdir(folder, { recursive: true })
  return {
    async get(sha256) {
      const bytes = await readFile(join(folder, sha256)).catch(() => undefined)
      return bytes && sha256Of(bytes) === sha256 ? bytes : undefined
    },
    async put(sha256, bytes) {
      const draft = join(folder, `${sha256}.draft`)
      {
        await using file = await open(draft, 'w')
        await file.writeFile(bytes)
        await file.datasync()
      }
      await rename(draft, join(folder, sha256))
    },
    async retain(digests) {
      const names = await readdir(folder)
      await Promise.all(
        names.filter(name => !digests.has(name)).map(name => rm(join(folder, name), { force: true })),
      )
    },
  }
}

export interface SourceTools extends FetchTools {
  readonly cache: DigestCache
  readonly dataset: string
  /**
   * A file of which so little is left beside its directory is fetched with it: one request instead
   * of two. 0 while only planning.
   */
  readonly readAheadBytes?: number
}

/** A source with the nodes above extents that its directory brings. */
export interface OpenSource extends Source {
  readonly nodes: readonly DagNode[]
}

/** An extent that lies in its file as it is, and the node that names its chunks. */
export interface PlainPlace {
  /** In the file. */
  readonly offset: number
  readonly node: Span
}

interface PlainSource {
  plainPlaceOf(cid: Cid): PlainPlace | undefined
}

/** Undefined where the source has the extent compressed, as one chunk, or not at all. */
export function plainPlaceOf(source: Source, cid: Cid): PlainPlace | undefined {
  return 'plainPlaceOf' in source ? (source as unknown as PlainSource).plainPlaceOf(cid) : undefined
}

/** @throws EdgeError `PACK_INVALID`, `UPSTREAM_…` */
export async function openPack(ref: PackRef, tools: SourceTools, options: Abortable): Promise<OpenSource> {
  const path = packPath(ref.sha256)
  const stored = await loadDirectory(path, ref.size, ref.directory, tools, options)
  return packSource(path, ref.size, await openPackDirectory(stored, ref.directory))
}

export function packSource(
  path: string,
  fileBytes: number,
  directory: PackDirectory,
): OpenSource & PlainSource {
  return {
    kind: 'frame',
    path,
    fileBytes,
    nodes: directory.nodes,
    bundleOf(cid) {
      const [place] = directory.find(cid)
      if (!place) return undefined
      const { offset, storedBytes } = directory.frames[place.frame]!
      return { index: place.frame, span: { offset, length: storedBytes }, bases: [] }
    },
    plainPlaceOf(cid) {
      const [place] = directory.find(cid)
      const frame = place && directory.frames[place.frame]!
      if (!place?.index || frame?.codec !== 'plain') return undefined
      const { offset, size } = place.index
      return { offset: frame.offset + place.offset, node: { offset, length: size } }
    },
    async *extentsOf(frame, stored, cids) {
      const raw = await expandFrame(directory.frames[frame]!, stored)
      const byNumber = new Map(
        frameExtents(directory, frame, raw).map(({ place, bytes }) => [place.extent, bytes]),
      )
      for (const cid of cids) {
        const bytes = directory
          .find(cid)
          .map(({ extent }) => byNumber.get(extent))
          .find(found => found !== undefined)
        if (!bytes) throw new EdgeError('PACK_INVALID', `${path}: frame ${frame} does not have ${cid}`)
        yield { cid, bytes }
      }
    },
  }
}

/** The directory's bytes as they lie in the file, matching their signed digest. */
export async function loadDirectory(
  path: string,
  fileBytes: number,
  ref: DirectoryRef,
  tools: SourceTools,
  options: Abortable,
): Promise<Buffer> {
  const kept = await tools.cache.get(ref.sha256)
  if (kept) return kept
  const span = { offset: ref.offset, length: ref.size }
  const isSmall = fileBytes - ref.size <= (tools.readAheadBytes ?? 0)
  const request = isSmall ? { offset: 0, length: fileBytes } : span
  const purpose = { dataset: tools.dataset, reason: 'directory' }
  let failure: unknown = new EdgeError('UPSTREAM_UNREACHABLE', 'there is no upstream')
  for (let upstreams = tools.upstreams; upstreams.length > 0; upstreams = upstreams.slice(1)) {
    try {
      using _mine = isSmall
        ? await claimFile(tools.staged, path, options)
        : await claimBundles(tools.staged, path, ['directory'], options)
      const meanwhile = await tools.cache.get(ref.sha256)
      if (meanwhile) return meanwhile
      await fetchSpans({ ...tools, upstreams }, { path, fileBytes, requests: [request], purpose }, options)
      const bytes = await tools.staged.read(path, span)
      if (sha256Of(bytes) === ref.sha256) {
        await tools.cache.put(ref.sha256, bytes)
        await tools.staged.drop(path, [span])
        return bytes
      }
      await tools.staged.discard(path, [span])
      failure = new EdgeError('UPSTREAM_LIED', `${path}: its directory is not what was signed`)
    } catch (error) {
      options.signal.throwIfAborted()
      if (!isEdgeError(error)) throw error
      failure = error
    }
  }
  throw failure
}

/** Names a set of things; for plan and job ids. */
export function nameOf(parts: Iterable<string>): string {
  const hash = createHash('sha256')
  for (const part of parts) hash.update(`${part}\n`)
  return hash.digest('hex').slice(0, 32)
}
