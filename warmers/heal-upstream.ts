/**
 * An extent from the upstream's packs, for a heal that nobody nearer could do. Costs one frame on the
 * wire, inside an open window only, and is in the ledger under `heal`.
 */
import type { Cid } from '../manifests/cid.ts'
import { EdgeError, isEdgeError } from '../manifests/errors.ts'
import type { Abortable } from '../manifests/extent.ts'
import type { Manifest, PackRef } from '../manifests/manifest.ts'
import { proveExtent } from '../node/store/prove-extent.ts'
import type { ContentStore } from '../node/store/store.ts'
import { claimBundles } from './bundle-claims.ts'
import { fetchSpans } from './fetch-spans.ts'
import type { Releases } from './releases.ts'
import { REQUEST_BYTES, type Bundle, type Source } from './plan-fill.ts'
import { openPack, type SourceTools } from './sources.ts'
import { cut } from './spans.ts'

export type HealTools = Omit<SourceTools, 'dataset'> & {
  readonly releases: Pick<Releases, 'releases'>
  readonly store: Pick<ContentStore, 'has' | 'readExtent' | 'view'>
}

/** What may stay in the staging area for those who come next; a whole fill clears it. */
const KEPT_BYTES_MAX = 64 * 1024 * 1024

/** @returns proven; undefined when no pack has it. @throws EdgeError `UPSTREAM_…` of the last pack */
export async function extentFromPacks(
  cid: Cid,
  tools: HealTools,
  options: Abortable,
): Promise<Uint8Array | undefined> {
  let failure: unknown
  for (const { manifest, pack } of packsOf(tools.releases)) {
    try {
      const bytes = await extentFrom(pack, cid, { ...tools, dataset: manifest.dataset }, options)
      if (bytes) return bytes
    } catch (error) {
      options.signal.throwIfAborted()
      if (!isEdgeError(error)) throw error
      failure = error
    }
  }
  if (failure) throw failure
  return undefined
}

async function extentFrom(
  pack: PackRef,
  cid: Cid,
  tools: HealTools & SourceTools,
  options: Abortable,
): Promise<Uint8Array | undefined> {
  const source = await openPack(pack, tools, options)
  const bundle = source.bundleOf(cid)
  if (!bundle) return undefined
  const { path, fileBytes } = source
  const wasHere = tools.store.has(cid)
  using _mine = await claimBundles(tools.staged, path, [bundle.index], options)
  // a fill that had the same bundle under way has brought it meanwhile
  if (!wasHere && tools.store.has(cid)) return await tools.store.readExtent(cid, options)
  const purpose = { dataset: tools.dataset, reason: 'heal' }
  await fetchSpans(tools, { path, fileBytes, requests: cut(bundle.span, REQUEST_BYTES), purpose }, options)
  try {
    const bytes = await provenIn(source, bundle, cid, tools)
    // others of the frame are likely to be next, or a fill plans with it just now
    if (tools.staged.sizeBytes > KEPT_BYTES_MAX) await tools.staged.drop(path, [bundle.span])
    return bytes
  } catch (error) {
    await tools.staged.discard(path, [bundle.span])
    throw error
  }
}

/** @throws EdgeError `PACK_INVALID`, `CHUNK_CORRUPT` */
async function provenIn(
  source: Source,
  { index, span }: Bundle,
  cid: Cid,
  { staged, store }: HealTools,
): Promise<Uint8Array | undefined> {
  const stored = await staged.read(source.path, span)
  for await (const { bytes } of source.extentsOf(index, stored, [cid], noBase)) {
    await proveExtent(cid, bytes, 'fastcdc-v1', store.view(cid))
    return bytes
  }
  return undefined
}

function noBase(): Promise<never> {
  return Promise.reject(new EdgeError('DELTA_BASE_ABSENT', 'frames need no base'))
}

/** Each once, current releases before those on their way. */
function* packsOf(releases: HealTools['releases']): Generator<{ manifest: Manifest; pack: PackRef }> {
  const seen = new Set<string>()
  const known = releases.releases()
  for (const manifest of [...known.map(({ current }) => current), ...known.map(({ next }) => next)]) {
    for (const pack of manifest?.packs ?? []) {
      if (seen.has(pack.sha256)) continue
      seen.add(pack.sha256)
      yield { manifest: manifest!, pack }
    }
  }
}
