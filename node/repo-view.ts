/**
 * What a node shows of the repository that it fills from, under `/repo/`: the metadata that it
 * serves by and the manifests and denylist that those name, byte for byte as they were signed. It
 * keeps no packs and deltas (content is given by CID under `/ipfs/`); a hub that does joins the view
 * of its repository folder (`pack-view.ts`).
 */
import { sha256Of } from '../manifests/digest.ts'
import { manifestPath } from '../manifests/manifest.ts'
import { type AcceptedState, findTarget } from '../manifests/tuf/accepted-state.ts'
import { DENYLIST_TARGET } from '../manifests/tuf/denylist.ts'
import { parseRoot, parseSnapshot, parseTargets, type Root } from '../manifests/tuf/metadata.ts'
import type { RepoView } from './http/repo-handler.ts'
import type { TrustRecord, TrustStore } from './trust-store.ts'

/** The view over the durable trust record; rebuilt when that changes. */
export function trustRepoView(trust: TrustStore): RepoView {
  let files: ReadonlyMap<string, Uint8Array> = new Map()
  let sequence = -1
  const current = () => {
    if (sequence !== trust.sequence) {
      files = repoFilesOf(trust.record)
      sequence = trust.sequence
    }
    return files
  }
  return {
    size: async path => current().get(path)?.length,
    read: async (path, { offset, length }) =>
      current()
        .get(path)
        ?.subarray(offset, offset + length),
  }
}

/** The first view that has a file gives it. */
export function joinedRepoView(...views: readonly RepoView[]): RepoView {
  return {
    async size(path) {
      for (const view of views) {
        const sizeBytes = await view.size(path)
        if (sizeBytes !== undefined) return sizeBytes
      }
      return undefined
    },
    async read(path, range, options) {
      for (const view of views)
        if ((await view.size(path)) !== undefined) return await view.read(path, range, options)
      return undefined
    },
  }
}

/** By path below the repository; empty before anything was accepted. */
export function repoFilesOf({ accepted, manifests, denylist }: TrustRecord): ReadonlyMap<string, Uint8Array> {
  const files = new Map<string, Uint8Array>()
  if (!accepted?.served) return files
  // an update under way may know newer roots: what is served need not stand up to those
  const { rootVersion } = accepted.served
  const roots = accepted.roots
    .map(bytes => ({ bytes, root: parseRoot(bytes) }))
    .filter(({ root }) => root.version <= rootVersion)
  for (const { bytes, root } of roots) files.set(`metadata/${root.version}.root.json`, bytes)
  const root = roots.find(({ root }) => root.version === rootVersion)?.root
  if (!root) return files
  putMetadata(files, accepted.served, root)
  const known = [...manifests].flatMap(([dataset, { current, next }]) =>
    [current, next].flatMap(bytes => (bytes ? [{ dataset, bytes }] : [])),
  )
  for (const { dataset, bytes } of known) files.set(manifestPath(dataset, sha256Of(bytes)), bytes)
  putDenylist(files, accepted, denylist)
  return files
}

function putMetadata(
  files: Map<string, Uint8Array>,
  { timestamp, snapshot, roles }: NonNullable<AcceptedState['served']>,
  root: Root,
): void {
  const prefixed = root.consistentSnapshot
  const name = (role: string, version: number) => `metadata/${prefixed ? `${version}.` : ''}${role}.json`
  files.set('metadata/timestamp.json', timestamp)
  files.set(name('snapshot', parseSnapshot(snapshot).version), snapshot)
  for (const [role, bytes] of roles) files.set(name(role, parseTargets(bytes, role).version), bytes)
}

function putDenylist(
  files: Map<string, Uint8Array>,
  state: AcceptedState,
  denylist: Uint8Array | undefined,
): void {
  const target = findTarget(state, DENYLIST_TARGET)
  if (target && denylist && sha256Of(denylist) === target.sha256) {
    files.set(`targets/${target.sha256}.${DENYLIST_TARGET}`, denylist)
  }
}
