/**
 * What a node has accepted so far, as one immutable value: the floors that trust never goes below
 * (I2), and the last complete release of metadata, which is what is served from (I5).
 *
 * The two differ while an update is half done: `timestamp`, `snapshot` and `roles` advance file by
 * file, as TUF wants them persisted; `served` changes only when everything they speak of is here.
 * So an update that breaks off in a key rotation does not take away what was readable before.
 */
import { sha256Of } from '../digest.ts'
import { EdgeError } from '../errors.ts'
import { delegationNamed, delegationsFor } from './delegation.ts'
import {
  parseRoot,
  parseSnapshot,
  parseTargets,
  parseTimestamp,
  type Root,
  type Targets,
  type TufTarget,
} from './metadata.ts'
import { verifyDelegated, verifyInitialRoot } from './verify.ts'

export interface ServedMetadata {
  /** The root under which this was accepted. */
  readonly rootVersion: number
  readonly timestamp: Uint8Array
  readonly snapshot: Uint8Array
  /** `targets` and every delegated role that was valid, by name. */
  readonly roles: ReadonlyMap<string, Uint8Array>
  /** By this machine's clock: for people, never for decisions. */
  readonly confirmedAtMs: number
}

export interface RoleProblem {
  readonly role: string
  readonly code: string
  readonly message: string
}

export interface AcceptedState {
  /** Consecutive versions, oldest first; the last one is trusted. Never empty. */
  readonly roots: readonly Uint8Array[]
  readonly timestamp?: Uint8Array | undefined
  readonly snapshot?: Uint8Array | undefined
  readonly roles: ReadonlyMap<string, Uint8Array>
  readonly served?: ServedMetadata | undefined
  /** Delegated roles that the last update could not accept; the rest is unaffected. */
  readonly problems: readonly RoleProblem[]
}

/** A target and the role that vouches for it. */
export interface FoundTarget extends TufTarget {
  readonly path: string
  readonly role: string
  /** When the first of the metadata on the way to it expires. */
  readonly expiresMs: number
}

/** The only way to begin. @throws EdgeError `TRUST_INVALID`, `TRUST_SIGNATURE` */
export function initialState(rootBytes: Uint8Array): AcceptedState {
  verifyInitialRoot(rootBytes)
  return { roots: [rootBytes], roles: new Map(), problems: [] }
}

/** The trusted root. */
export function trustedRoot({ roots }: AcceptedState): Root {
  const bytes = roots.at(-1)
  if (!bytes) throw new EdgeError('TRUST_ROOT_ABSENT', 'no root is trusted yet')
  return parseRoot(bytes)
}

/**
 * The earliest time that it can be: signed statements of the trusted root and timestamp. Taken from
 * signed metadata only, so that one forward jump of the clock blocks nothing for ever, and it is
 * dropped with the timestamp when that key is rotated.
 */
export function timeFloorMs(state: AcceptedState): number {
  const timestamp = state.timestamp && parseTimestamp(state.timestamp)
  return Math.max(trustedRoot(state).signedAtMs ?? 0, timestamp?.signedAtMs ?? 0)
}

/**
 * The target `path` in the served metadata, by the search of TUF 5.6.7.
 *
 * @returns `undefined` when no role that may speak about `path` does so.
 * @throws EdgeError `TRUST_INVALID` when the target has no SHA-256.
 */
export function findTarget(
  state: AcceptedState,
  path: string,
): (FoundTarget & { readonly sha256: string }) | undefined {
  const found = viewOf(state)?.find(path)
  if (!found) return undefined
  const sha256 = found.hashes.get('sha256')
  if (!sha256) throw new EdgeError('TRUST_INVALID', `target ${path} has no SHA-256`)
  return { ...found, sha256 }
}

/** Every path for which `findTarget` has an answer, sorted. */
export function targetPaths(state: AcceptedState): readonly string[] {
  return viewOf(state)?.paths() ?? []
}

/** When the first of the served top-level metadata expires; 0 when nothing is served. */
export function expiresAtMs(state: AcceptedState): number {
  const view = viewOf(state)
  return view ? Math.min(trustedRoot(state).expiresMs, view.expiresMs) : 0
}

/** Changes when anything that is served from changes: metadata bytes, by content. */
export function servedDigest({ served }: AcceptedState): string {
  if (!served) return ''
  const roles = [...served.roles].map(([name, bytes]) => `${name} ${sha256Of(bytes)}`).toSorted()
  return sha256Of(`${served.rootVersion}\n${sha256Of(served.snapshot)}\n${roles.join('\n')}`)
}

/** Parsed and verified once per state; states are immutable. */
const VIEWS = new WeakMap<ServedMetadata, ServedView>()

function viewOf(state: AcceptedState): ServedView | undefined {
  const { served } = state
  if (!served) return undefined
  let view = VIEWS.get(served)
  if (!view) {
    view = new ServedView(state, served)
    VIEWS.set(served, view)
  }
  return view
}

/** A complete release of metadata with its delegations proven again, edge by edge. */
class ServedView {
  readonly expiresMs: number
  readonly #top: Targets
  readonly #bytes: ReadonlyMap<string, Uint8Array>
  #paths: readonly string[] | undefined
  /** By delegator and role: whether that delegator vouches for the role's bytes. */
  readonly #edges = new Map<string, Targets | undefined>()

  constructor({ roots }: AcceptedState, { rootVersion, timestamp, snapshot, roles }: ServedMetadata) {
    const first = roots[0] && parseRoot(roots[0]).version
    const bytes = first === undefined ? undefined : roots[rootVersion - first]
    const root = bytes && parseRoot(bytes)
    const targets = roles.get('targets')
    if (!root || !targets) throw new EdgeError('TRUST_STATE_DAMAGED', 'the served metadata is not complete')
    this.#bytes = roles
    this.#top = verifyDelegated(root, 'targets', targets)
    this.expiresMs = Math.min(
      this.#top.expiresMs,
      parseTimestamp(timestamp).expiresMs,
      parseSnapshot(snapshot).expiresMs,
    )
  }

  find(path: string): FoundTarget | undefined {
    const toVisit = [{ name: 'targets', targets: this.#top, expiresMs: this.#top.expiresMs }]
    const visited = new Set<string>()
    for (let visit = toVisit.pop(); visit; visit = toVisit.pop()) {
      const { name, targets, expiresMs } = visit
      if (visited.has(name)) continue
      visited.add(name)
      const target = targets.targets.get(path)
      if (target) return { ...target, path, role: name, expiresMs }

      const children: typeof toVisit = []
      for (const delegation of delegationsFor(targets.delegations, path)) {
        const child = this.#delegated(name, targets, delegation.name)
        if (child) {
          const earliest = Math.min(expiresMs, child.expiresMs)
          children.push({ name: delegation.name, targets: child, expiresMs: earliest })
        }
        if (!delegation.terminating) continue
        toVisit.length = 0
        break
      }
      toVisit.push(...children.toReversed())
    }
    return undefined
  }

  paths(): readonly string[] {
    this.#paths ??= this.#listPaths()
    return this.#paths
  }

  #listPaths(): readonly string[] {
    const listed = new Set<string>()
    for (const [name, bytes] of this.#bytes) {
      for (const path of parseTargets(bytes, name).targets.keys()) listed.add(path)
    }
    return [...listed].filter(path => this.find(path) !== undefined).toSorted()
  }

  #delegated(delegator: string, by: Targets, name: string): Targets | undefined {
    const edge = `${delegator}\n${name}`
    if (!this.#edges.has(edge)) this.#edges.set(edge, this.#verified(by, name))
    return this.#edges.get(edge)
  }

  #verified(by: Targets, name: string): Targets | undefined {
    const bytes = this.#bytes.get(name)
    if (!bytes || !delegationNamed(by.delegations, name)) return undefined
    try {
      return verifyDelegated(by, name, bytes)
    } catch {
      return undefined // another delegator may vouch for it; this one does not
    }
  }
}
