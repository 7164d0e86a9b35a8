/**
 * What the library needs to know of trust: which manifests stand, what must not be served, how
 * fresh it all is. Made from the durable trust record, and made anew whenever that changes.
 */
import { sha256Of } from '../manifests/digest.ts'
import { isEdgeError } from '../manifests/errors.ts'
import { manifestTarget } from '../manifests/manifest.ts'
import { expiresAtMs, findTarget, timeFloorMs } from '../manifests/tuf/accepted-state.ts'
import { denylistOf, parseDenylist, type Denylist } from '../manifests/tuf/denylist.ts'
import type { Freshness } from './library.ts'
import type { TrustStore } from './trust-store.ts'

export interface ManifestBytes {
  /** What is served. */
  readonly current?: Uint8Array | undefined
  /** Accepted, and not whole yet. */
  readonly next?: Uint8Array | undefined
}

export interface TrustView {
  /** Another number whenever anything below may have changed. */
  readonly sequence: number
  /** By name. */
  datasets(): readonly string[]
  manifests(dataset: string): ManifestBytes
  /** On the signed denylist, or nobody vouches for the dataset any more. */
  isDenied(item: { readonly dataset: string; readonly path: string; readonly sha256: string }): boolean
  freshness(dataset: string): Freshness
  /** What the operator pinned: a dataset, or a dataset and an item path or a prefix of one ending in `/`. */
  readonly pins: readonly string[]
  /** Changes with the denylist and the pins. */
  readonly wishes: string
  /** The highest revision ever accepted (I2); 0 when there was none. */
  revisionFloor(dataset: string): number
  /** Durable when resolved. @throws EdgeError `TRUST_STATE_DAMAGED`, `STORE_FULL`, `STORE_READ_ONLY` */
  keep(dataset: string, manifests: ManifestBytes, revision: number): Promise<void>
}

export function trustViewOf(trust: TrustStore, now: () => number): TrustView {
  let denylist: Denylist = denylistOf([])
  let denylistDigest = ''
  let vouchedFor = new Map<string, boolean>()
  let validities = new Map<string, Validity>()
  let seen = -1

  const refresh = () => {
    if (seen === trust.sequence) return
    seen = trust.sequence
    vouchedFor = new Map()
    validities = new Map()
    const bytes = trust.record.denylist
    const digest = bytes ? sha256Of(bytes) : ''
    if (digest === denylistDigest) return
    denylistDigest = digest
    try {
      denylist = bytes ? parseDenylist(bytes) : denylistOf([])
    } catch (error) {
      if (!isEdgeError(error, 'TRUST_INVALID')) throw error // a form that we do not know yet: the last one stands
    }
  }
  const isVouchedFor = (dataset: string) => {
    let vouched = vouchedFor.get(dataset)
    if (vouched === undefined) {
      const { accepted } = trust.record
      vouched = accepted !== undefined && findTarget(accepted, manifestTarget(dataset)) !== undefined
      vouchedFor.set(dataset, vouched)
    }
    return vouched
  }

  /** Metadata is parsed for it, so once for each state of trust: every answer of the node tells its age. */
  const validityOf = (dataset: string) => {
    refresh()
    let validity = validities.get(dataset)
    if (!validity) {
      validity = newValidityOf(trust, dataset)
      validities.set(dataset, validity)
    }
    return validity
  }

  return {
    get sequence() {
      return trust.sequence
    },
    get pins() {
      return trust.record.pins
    },
    get wishes() {
      refresh()
      return `${denylistDigest} ${trust.record.pins.join('\n')}`
    },
    datasets: () => [...trust.record.manifests.keys()].sort(),
    manifests: dataset => trust.record.manifests.get(dataset) ?? {},
    isDenied({ dataset, path, sha256 }) {
      refresh()
      return !isVouchedFor(dataset) || denylist.denies(dataset, path, sha256)
    },
    freshness(dataset) {
      const { fresh, stale, floorMs, expiresMs } = validityOf(dataset)
      return Math.max(now(), floorMs) < expiresMs ? fresh : stale
    },
    revisionFloor: dataset => trust.record.revisionFloors.get(dataset) ?? 0,
    async keep(dataset, manifests, revision) {
      await trust.update(record => ({
        ...record,
        manifests: new Map(record.manifests).set(dataset, manifests),
        revisionFloors: new Map(record.revisionFloors).set(
          dataset,
          Math.max(revision, record.revisionFloors.get(dataset) ?? 0),
        ),
      }))
    },
  }
}

interface Validity {
  readonly fresh: Freshness
  readonly stale: Freshness
  readonly floorMs: number
  readonly expiresMs: number
}

/** Expired metadata is still authentic: it only stops being fresh. */
function newValidityOf(trust: TrustStore, dataset: string): Validity {
  const { accepted } = trust.record
  const found = accepted && findTarget(accepted, manifestTarget(dataset))
  const expiresMs = accepted?.served ? Math.min(expiresAtMs(accepted), found?.expiresMs ?? 0) : 0
  const times = { confirmedAt: isoOf(accepted?.served?.confirmedAtMs ?? 0), expiresAt: isoOf(expiresMs) }
  return {
    fresh: { fresh: true, ...times },
    stale: { fresh: false, ...times },
    floorMs: accepted?.served ? timeFloorMs(accepted) : 0,
    expiresMs,
  }
}

function isoOf(ms: number): string {
  return new Date(Math.min(Math.max(0, ms), 8.64e15)).toISOString()
}
