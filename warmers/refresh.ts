/**
 * Asks the upstreams what is new: TUF metadata into the durable trust record, then the manifests
 * that changed. A few hundred bytes when nothing did.
 *
 * Metadata is accepted file by file and never goes back (I2). Upstreams are asked in turn: one that
 * is unreachable, or offers metadata that is not acceptable, is passed over, and said so.
 */
import { isDatasetName } from '../manifests/dataset-name.ts'
import { parseSha256, sha256Of } from '../manifests/digest.ts'
import { EdgeError, isEdgeError } from '../manifests/errors.ts'
import type { Abortable } from '../manifests/extent.ts'
import { MANIFEST_BYTES_MAX, manifestPath, manifestTarget } from '../manifests/manifest.ts'
import { acceptUpdate } from '../manifests/tuf/accept.ts'
import { findTarget, servedDigest, targetPaths, type AcceptedState } from '../manifests/tuf/accepted-state.ts'
import { DENYLIST_TARGET, parseDenylist } from '../manifests/tuf/denylist.ts'
import type { TrustStore } from '../node/trust-store.ts'
import { fetchWhole } from './fetch-whole.ts'
import type { Releases } from './releases.ts'
import type { Purpose, Upstream } from './upstream.ts'

const MANIFESTS_AT_ONCE = 4
const DENYLIST_BYTES_MAX = 4 * 1024 * 1024

export interface RefreshTools {
  /** Best first. */
  readonly upstreams: readonly Upstream[]
  readonly trust: TrustStore
  readonly releases: Releases
  /** Whether a dataset is subscribed to. */
  wants(dataset: string): boolean
  now(): number
}

export interface Refreshed {
  /** Who confirmed the metadata. */
  readonly upstream: string
  /** Whether any metadata changed. */
  readonly changed: boolean
  /** Datasets with a new release. */
  readonly accepted: readonly string[]
  /** Roles, manifests and upstreams that could not be accepted; the rest is unaffected. */
  readonly problems: readonly { readonly what: string; readonly code: string; readonly message: string }[]
  /** What a refresh costs when nothing is new, as far as this one shows. */
  readonly idle: { readonly down: number; readonly up: number }
}

/** @throws EdgeError `TRUST_ROOT_ABSENT`, `TRUST_…` or `UPSTREAM_…` of the last upstream when none would do. */
export async function refresh(tools: RefreshTools, options: Abortable): Promise<Refreshed> {
  const problems: { what: string; code: string; message: string }[] = []
  const note = (what: string, error: unknown) => {
    options.signal.throwIfAborted()
    if (!isEdgeError(error)) throw error
    problems.push({ what, code: error.code, message: error.message })
    return error
  }
  let failure = new EdgeError('UPSTREAM_UNREACHABLE', 'no upstream is configured: set TOWER_UPSTREAM')
  for (const upstream of tools.upstreams) {
    try {
      const { changed, state, idle } = await acceptMetadata(upstream, tools, options)
      for (const { role, code, message } of state.problems)
        problems.push({ what: `role ${role}`, code, message })
      const accepted: string[] = []
      const datasets = datasetsOf(state).filter(tools.wants).values()
      // some at a time: a far link's round trips would add up
      const acceptNext = async () => {
        for (const dataset of datasets) {
          try {
            if (await acceptManifest(dataset, state, upstream, tools, options)) accepted.push(dataset)
          } catch (error) {
            note(dataset, error)
          }
        }
      }
      await Promise.all(Array.from({ length: MANIFESTS_AT_ONCE }, acceptNext))
      await acceptDenylist(state, upstream, tools, options).catch(
        (error: unknown) => void note(DENYLIST_TARGET, error),
      )
      return { upstream: upstream.name, changed, accepted, problems, idle }
    } catch (error) {
      failure = note(upstream.name, error)
      if (
        failure.code === 'TRUST_ROOT_ABSENT' ||
        failure.code === 'TRUST_STATE_DAMAGED' ||
        failure.code.startsWith('STORE_')
      )
        throw failure
    }
  }
  throw failure
}

async function acceptMetadata(upstream: Upstream, { trust, now }: RefreshTools, { signal }: Abortable) {
  const { accepted: state } = trust.record
  if (!state)
    throw new EdgeError('TRUST_ROOT_ABSENT', 'no root is trusted yet: give one with TOWER_ROOT or --root')
  const before = servedDigest(state)
  const purpose = { dataset: '', reason: 'metadata' }
  let idle = { down: 0, up: 0 }
  const next = await acceptUpdate({
    state,
    now: new Date(now()),
    async fetchMetadata(name, maxBytes) {
      const { bytesDown, bytesUp } = upstream.wire
      try {
        return await fetchWhole(upstream, `metadata/${name}`, { signal, purpose, maxBytes })
      } catch (error) {
        if (isEdgeError(error, 'NOT_FOUND')) return undefined
        if (isEdgeError(error, 'UPSTREAM_LIED'))
          throw new EdgeError('TRUST_TOO_LONG', error.message, { cause: error })
        throw error
      } finally {
        // an idle refresh asks for the next root, which is not there, and the timestamp
        const spent = { down: upstream.wire.bytesDown - bytesDown, up: upstream.wire.bytesUp - bytesUp }
        if (name === 'timestamp.json') idle = { down: idle.down + spent.down, up: idle.up + spent.up }
        else if (name.endsWith('.root.json')) idle = spent
      }
    },
    onAdvance: async accepted => void (await trust.update(record => ({ ...record, accepted }))),
  })
  return { state: next, changed: servedDigest(next) !== before, idle }
}

function datasetsOf(state: AcceptedState): string[] {
  const suffix = '/manifest.json'
  return targetPaths(state).flatMap(path => {
    const dataset = path.endsWith(suffix) ? path.slice(0, -suffix.length) : ''
    return isDatasetName(dataset) ? [dataset] : []
  })
}

/** @returns whether there was a new one. */
async function acceptManifest(
  dataset: string,
  state: AcceptedState,
  upstream: Upstream,
  { releases, trust, upstreams }: RefreshTools,
  { signal }: Abortable,
): Promise<boolean> {
  const target = findTarget(state, manifestTarget(dataset))
  if (!target) return false
  const known = trust.record.manifests.get(dataset)
  const newest = known?.next ?? known?.current
  if (newest && sha256Of(newest) === target.sha256) return false
  const purpose = { dataset, reason: 'manifest' }
  const sources = [upstream, ...upstreams.filter(other => other !== upstream)]
  const bytes = await readTarget(
    sources,
    manifestPath(dataset, parseSha256(target.sha256)),
    target,
    MANIFEST_BYTES_MAX,
    purpose,
    signal,
  )
  await releases.acceptRelease(dataset, bytes)
  return true
}

async function acceptDenylist(
  state: AcceptedState,
  upstream: Upstream,
  { trust }: RefreshTools,
  { signal }: Abortable,
): Promise<void> {
  const target = findTarget(state, DENYLIST_TARGET)
  if (!target || (trust.record.denylist && sha256Of(trust.record.denylist) === target.sha256)) return
  const purpose = { dataset: '', reason: 'denylist' }
  const path = `targets/${target.sha256}.${DENYLIST_TARGET}`
  const denylist = await readTarget([upstream], path, target, DENYLIST_BYTES_MAX, purpose, signal)
  parseDenylist(denylist) // one that we do not understand must not take the place of one that we do
  await trust.update(record => ({ ...record, denylist }))
}

async function readTarget(
  upstreams: readonly Upstream[],
  path: string,
  target: { readonly sha256: string; readonly lengthBytes: number },
  maxBytes: number,
  purpose: Purpose,
  signal: AbortSignal,
): Promise<Buffer> {
  if (target.lengthBytes > maxBytes)
    throw new EdgeError('TRUST_TOO_LONG', `${path}: ${target.lengthBytes} bytes`)
  let failure: unknown
  for (const upstream of upstreams) {
    try {
      const bytes = await fetchWhole(upstream, path, { signal, purpose, maxBytes: target.lengthBytes })
      if (bytes.length === target.lengthBytes && sha256Of(bytes) === target.sha256) return bytes
      failure = new EdgeError('UPSTREAM_LIED', `${upstream.name}/${path}: not the bytes that were signed`)
    } catch (error) {
      signal.throwIfAborted()
      failure = error
    }
  }
  throw failure
}
