/**
 * The TUF client workflow (5.2 to 5.6) over an `AcceptedState`, without sockets, files or a clock.
 *
 * A client of our own instead of tuf-js's `Updater`: that one reads the clock itself, writes its
 * files without fsync, parses in quadratic time, and loses rollback protection or throws when a file
 * of its was truncated. Here bytes, time and durability are handed in, and the state is a value.
 *
 * After each accepted file `onAdvance` gets the new state and must make it durable before it
 * resolves; when a later step throws, what was accepted before it stays accepted.
 */
import { EdgeError, isEdgeError } from '../errors.ts'
import { trustedRoot, type AcceptedState, type FoundTarget, type RoleProblem } from './accepted-state.ts'
import { delegationNamed, delegationsFor } from './delegation.ts'
import { fileNameOf } from './json.ts'
import {
  parseSnapshot,
  parseTimestamp,
  type Root,
  type Snapshot,
  type Targets,
  type Timestamp,
} from './metadata.ts'
import {
  isFile,
  requireThreshold,
  requireUnexpired,
  verifyDelegated,
  verifyNextRoot,
  verifySnapshot,
  verifyTargets,
  verifyTimestamp,
} from './verify.ts'

export interface UpdateRequest {
  readonly state: AcceptedState
  /**
   * The file `name` of the repository's metadata folder, a URL path segment such as `2.root.json`.
   * Must give up after `maxBytes`. @returns `undefined` when there is no such file (404, 403).
   */
  fetchMetadata(name: string, maxBytes: number): Promise<Uint8Array | undefined>
  readonly now: Date
  /** Makes `state` durable; called after each file that was accepted. */
  onAdvance?(state: AcceptedState): Promise<void>
  readonly limits?: Partial<UpdateLimits>
  /** For whoever writes the repository: what has expired has to be read to be renewed. */
  readonly ignoreExpiry?: boolean
}

/** Sizes of files whose length nobody has signed, and how far a search may go. */
export interface UpdateLimits {
  readonly rootBytesMax: number
  readonly timestampBytesMax: number
  readonly snapshotBytesMax: number
  readonly targetsBytesMax: number
  readonly rootsMax: number
  /** Roles visited in the search for one target. */
  readonly searchRolesMax: number
  /** Delegated roles accepted in all. */
  readonly rolesMax: number
  /** Whether role names may hold any character, as TUF allows; ours are plain file names. */
  readonly anyRoleName: boolean
}

interface RoleResult {
  readonly name: string
  readonly targets: Targets | undefined
  readonly problem?: EdgeError
}

const LIMITS: UpdateLimits = {
  rootBytesMax: 512 << 10,
  timestampBytesMax: 64 << 10,
  snapshotBytesMax: 2 << 20,
  targetsBytesMax: 8 << 20,
  rootsMax: 1024,
  searchRolesMax: 32,
  rolesMax: 4096,
  anyRoleName: false,
}
const FETCHES_AT_ONCE = 8
/** No more than this is fetched again after a crash (I9). */
const KEPT_AT_LEAST_EACH_BYTES = 256 << 10
const PLAIN_ROLE_NAME = /^[A-Za-z][A-Za-z0-9._-]{0,99}$/

/**
 * Accepts all metadata on offer: top-level roles and every delegated role.
 *
 * @returns the state after it; its `served` is complete and was confirmed now. Delegated roles that
 * are not valid are named in `problems` and keep their last accepted metadata.
 * @throws EdgeError `TRUST_*` for the top-level roles; whatever `fetchMetadata` throws.
 */
export async function acceptUpdate(request: UpdateRequest): Promise<AcceptedState> {
  const update = new TufUpdate(request)
  await update.refresh()
  await update.acceptDelegated()
  return update.state
}

/** One update cycle; its time stands still (5.1). Refresh first, then search or accept all. */
export class TufUpdate {
  #state: AcceptedState
  #root: Root
  #timestamp: Timestamp | undefined
  #snapshot: Snapshot | undefined
  #targets: Targets | undefined
  readonly #request: UpdateRequest
  readonly #limits: UpdateLimits

  constructor(request: UpdateRequest) {
    this.#request = request
    this.#limits = { ...LIMITS, ...request.limits }
    this.#state = request.state
    this.#root = trustedRoot(request.state)
  }

  get state(): AcceptedState {
    return this.#state
  }

  get consistentSnapshot(): boolean {
    return this.#root.consistentSnapshot
  }

  /** Top-level metadata, 5.3 to 5.6.6. */
  async refresh(): Promise<void> {
    await this.#refreshRoot()
    await this.#refreshTimestamp()
    await this.#refreshSnapshot()
    this.#targets = await this.#loadRole('targets', this.#root)
  }

  /** 5.6.7. @throws EdgeError `TRUST_*` when metadata on the way to it is not valid. */
  async find(path: string): Promise<FoundTarget | undefined> {
    const top = this.#need(this.#targets)
    const toVisit: { name: string; delegator: Root | Targets; expiresMs: number }[] = [
      { name: 'targets', delegator: this.#root, expiresMs: top.expiresMs },
    ]
    const visited = new Set<string>()
    for (let visit = toVisit.pop(); visit; visit = toVisit.pop()) {
      const { name, delegator } = visit
      if (visited.has(name)) continue
      if (visited.size > this.#limits.searchRolesMax) return undefined
      const targets = await this.#loadRole(name, delegator)
      const expiresMs = Math.min(visit.expiresMs, targets.expiresMs)
      visited.add(name)
      const target = targets.targets.get(path)
      if (target) return { ...target, path, role: name, expiresMs }

      const children: typeof toVisit = []
      for (const delegation of delegationsFor(targets.delegations, path)) {
        children.push({ name: delegation.name, delegator: targets, expiresMs })
        if (!delegation.terminating) continue
        toVisit.length = 0
        break
      }
      toVisit.push(...children.toReversed())
    }
    return undefined
  }

  /** Every delegated role; afterwards all of it is what is served. */
  async acceptDelegated(): Promise<void> {
    const top = this.#need(this.#targets)
    const snapshot = this.#need(this.#snapshot)
    const served = new Map([['targets', top.bytes]])
    const problems: RoleProblem[] = []
    const toVisit: Targets[] = [top]
    for (let delegator = toVisit.pop(); delegator; delegator = toVisit.pop()) {
      const names = namesDelegatedTo(delegator, snapshot).filter(name => !served.has(name))
      if (served.size + names.length > this.#limits.rolesMax) {
        throw tooLong(`more than ${this.#limits.rolesMax} delegated roles`)
      }
      for (const { name, targets, problem } of await this.#acceptRoles(names, delegator)) {
        if (problem) problems.push({ role: name, code: problem.code, message: problem.message })
        if (!targets) continue
        served.set(name, targets.bytes)
        toVisit.push(targets)
      }
    }
    await this.#advance({
      roles: served,
      problems,
      served: {
        rootVersion: this.#root.version,
        timestamp: this.#need(this.#timestamp).bytes,
        snapshot: snapshot.bytes,
        roles: served,
        confirmedAtMs: this.#request.now.getTime(),
      },
    })
  }

  /**
   * Roles of one delegator, several at a time. What was fetched is made durable in portions: its
   * versions are floors already, by the snapshot, so a crash costs only those bytes again.
   */
  async #acceptRoles(names: readonly string[], delegator: Targets): Promise<readonly RoleResult[]> {
    const results: RoleResult[] = []
    const fetched = new Map<string, Uint8Array>()
    let fetchedBytes = 0
    const keep = async () => {
      if (fetched.size > 0) await this.#advance({ roles: new Map([...this.#state.roles, ...fetched]) })
      fetched.clear()
      fetchedBytes = 0
    }
    for (let at = 0; at < names.length; at += FETCHES_AT_ONCE) {
      const portion = names.slice(at, at + FETCHES_AT_ONCE)
      const settled = await Promise.allSettled(portion.map(name => this.#tryRole(name, delegator)))
      for (const outcome of settled) {
        if (outcome.status === 'rejected') continue
        const { name, targets } = outcome.value
        results.push(outcome.value)
        if (!targets || targets.bytes === this.#state.roles.get(name)) continue
        fetched.set(name, targets.bytes)
        fetchedBytes += targets.bytes.length
      }
      const failed = settled.find(({ status }) => status === 'rejected')
      if (failed || fetchedBytes >= KEPT_AT_LEAST_EACH_BYTES) await keep()
      if (failed) throw (failed as PromiseRejectedResult).reason
    }
    await keep()
    return results
  }

  /** What is not valid is replaced by what was served before, if this delegator still vouches for it. */
  async #tryRole(name: string, delegator: Targets): Promise<RoleResult> {
    try {
      return { name, targets: await this.#roleOf(name, delegator) }
    } catch (error) {
      if (!isTrustError(error)) throw error
      return { name, targets: this.#lastServed(name, delegator), problem: error }
    }
  }

  #lastServed(name: string, delegator: Targets): Targets | undefined {
    const bytes = this.#state.served?.roles.get(name)
    try {
      return bytes && verifyDelegated(delegator, name, bytes)
    } catch {
      return undefined
    }
  }

  /** 5.3. */
  async #refreshRoot(): Promise<void> {
    for (let step = 0; step < this.#limits.rootsMax; step++) {
      const name = `${this.#root.version + 1}.root.json`
      const bytes = await this.#fetch(name, this.#limits.rootBytesMax)
      if (!bytes) break
      this.#root = verifyNextRoot(this.#root, bytes)
      await this.#advance({ roots: [...this.#state.roots, bytes] })
    }
    this.#dropWhatWasRotated()
    requireUnexpired(this.#root, this.#nowMs(), 'root')
  }

  /**
   * 5.3.11, recovery from fast-forward attacks: floors that were set with keys that the root has
   * revoked go. Judged by whether the trusted file still verifies: an attacker's does not, so this
   * is the same after a crash between two steps, and an honest rotation that signs with both keys
   * keeps its floors.
   */
  #dropWhatWasRotated(): void {
    const { timestamp, snapshot } = this.#state
    const trusted = {
      timestamp: timestamp && parseTimestamp(timestamp),
      snapshot: snapshot && parseSnapshot(snapshot),
    }
    const { keys, roles } = this.#root
    try {
      if (trusted.timestamp) requireThreshold(trusted.timestamp, keys, roles.timestamp, 'timestamp')
      if (trusted.snapshot) requireThreshold(trusted.snapshot, keys, roles.snapshot, 'snapshot')
      this.#timestamp = trusted.timestamp
      this.#snapshot = trusted.snapshot
    } catch {
      this.#state = { ...this.#state, timestamp: undefined, snapshot: undefined }
    }
  }

  /** 5.4. */
  async #refreshTimestamp(): Promise<void> {
    const bytes = await this.#fetch('timestamp.json', this.#limits.timestampBytesMax)
    if (!bytes) throw new EdgeError('UPSTREAM_REFUSED', 'the repository has no timestamp.json')
    const timestamp = verifyTimestamp(this.#root, this.#timestamp, bytes)
    requireUnexpired(timestamp ?? this.#need(this.#timestamp), this.#nowMs(), 'timestamp')
    if (!timestamp) return
    this.#timestamp = timestamp
    await this.#advance({ timestamp: bytes })
  }

  /** 5.5. The one that we hold is fetched again only when the timestamp speaks of another. */
  async #refreshSnapshot(): Promise<void> {
    const { snapshot: meta } = this.#need(this.#timestamp)
    const trusted = this.#snapshot
    if (trusted && isFile(trusted.bytes, trusted.version, meta) && trusted.expiresMs > this.#nowMs()) return

    const bytes = await this.#fetchRole(
      'snapshot',
      meta.version,
      meta.lengthBytes ?? this.#limits.snapshotBytesMax,
    )
    const snapshot = verifySnapshot(this.#root, this.#need(this.#timestamp), trusted, bytes)
    requireUnexpired(snapshot, this.#nowMs(), 'snapshot')
    this.#snapshot = snapshot
    await this.#advance({ snapshot: bytes })
  }

  async #loadRole(name: string, delegator: Root | Targets): Promise<Targets> {
    const targets = await this.#roleOf(name, delegator)
    if (targets.bytes !== this.#state.roles.get(name)) {
      await this.#advance({ roles: new Map(this.#state.roles).set(name, targets.bytes) })
    }
    return targets
  }

  /** 5.6.1 to 5.6.5 for any targets role: what we hold is proven again for this delegator. */
  async #roleOf(name: string, delegator: Root | Targets): Promise<Targets> {
    const meta = this.#need(this.#snapshot).meta.get(name)
    if (!meta) throw new EdgeError('TRUST_MISMATCH', `the snapshot does not list ${name}`)
    if (!this.#limits.anyRoleName && !PLAIN_ROLE_NAME.test(name)) {
      throw new EdgeError('TRUST_INVALID', `${JSON.stringify(name)} is no name for a role`)
    }
    const held = this.#state.roles.get(name)
    if (held) {
      try {
        const targets = verifyTargets(delegator, name, meta, held)
        requireUnexpired(targets, this.#nowMs(), name)
        return targets
      } catch (error) {
        if (!isTrustError(error)) throw error // else: a newer one is needed
      }
    }

    const bytes = await this.#fetchRole(name, meta.version, meta.lengthBytes ?? this.#limits.targetsBytesMax)
    const targets = verifyTargets(delegator, name, meta, bytes)
    requireUnexpired(targets, this.#nowMs(), name)
    return targets
  }

  async #fetchRole(name: string, version: number, maxBytes: number): Promise<Uint8Array> {
    const file = `${fileNameOf(name)}.json`
    const path = this.#root.consistentSnapshot ? `${version}.${file}` : file
    const bytes = await this.#fetch(path, maxBytes)
    if (!bytes)
      throw new EdgeError('TRUST_MISMATCH', `the repository lacks ${path}, which its metadata lists`)
    return bytes
  }

  async #fetch(name: string, maxBytes: number): Promise<Uint8Array | undefined> {
    const bytes = await this.#request.fetchMetadata(name, maxBytes)
    if (bytes && bytes.length > maxBytes) throw tooLong(`${name} is longer than ${maxBytes} bytes`)
    return bytes
  }

  async #advance(change: Partial<AcceptedState>): Promise<void> {
    const state = { ...this.#state, ...change }
    await this.#request.onAdvance?.(state)
    this.#state = state
  }

  #nowMs(): number {
    if (this.#request.ignoreExpiry) return Number.NEGATIVE_INFINITY
    const floorMs = Math.max(this.#root.signedAtMs ?? 0, this.#timestamp?.signedAtMs ?? 0)
    return Math.max(this.#request.now.getTime(), floorMs)
  }

  #need<T>(value: T | undefined): T {
    if (value === undefined) throw new EdgeError('TRUST_INVALID', 'refresh first')
    return value
  }
}

/** Of those that the snapshot lists: succinct delegations name up to four thousand million. */
function namesDelegatedTo({ delegations }: Targets, { meta }: Snapshot): readonly string[] {
  if (!delegations?.succinct)
    return (delegations?.roles ?? []).map(({ name }) => name).filter(name => meta.has(name))
  return [...meta.keys()].filter(name => delegationNamed(delegations, name) !== undefined)
}

function isTrustError(error: unknown): error is EdgeError {
  return isEdgeError(error) && error.code.startsWith('TRUST_') && error.code !== 'TRUST_STATE_DAMAGED'
}

function tooLong(message: string): EdgeError {
  return new EdgeError('TRUST_TOO_LONG', message)
}
