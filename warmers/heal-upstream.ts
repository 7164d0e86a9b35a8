/**
 * An extent from the upstream's packs, for a heal that nobody nearer could do. Costs one frame on the
 * wire, inside an open window only, and is in the ledger under `heal`.
 */
import type { Cid } from '../manifests/cid.ts'
import { EdgeError, isEdgeError } from '../manifests/errors.ts'
import type { Abortable } from '../manifests/extent.ts'
import type { Manifest, PackRef } from '../manifests/manifest.ts'
import type { ContentStore } from '../node/store/store.ts'
import { claimBundles } from './bundle-claims.ts'
import { fetchSpans } from './fetch-spans.ts'
import type { Releases } from './releases.ts'
import { openPack, type SourceTools } from './sources.ts'

export type HealTools = Omit<SourceTools, 'dataset'> & {
  readonly releases: Pick<Releases, 'releases'>
  readonly store: Pick<ContentStore, 'has' | 'readExtent'>
}

/** @returns not proven; undefined when no pack has it. @throws EdgeError `UPSTREAM_…` of the last pack */
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
  await fetchSpans(tools, { path, fileBytes, requests: [bundle.span], purpose }, options)
  const stored = await tools.staged.read(path, bundle.span)
  await tools.staged.drop(path, [bundle.span])
  for await (const { bytes } of source.extentsOf(bundle.index, stored, [cid], noBase)) return bytes
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
