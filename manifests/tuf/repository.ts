/**
 * Writing TUF metadata: read what a repository has, edit roles, sign, put it in place.
 *
 * A commit is atomic for readers: version-named files first (`3.health.json`, `7.snapshot.json`),
 * `timestamp.json` last, so that an interrupted commit leaves the release before it and files that
 * nobody refers to; the next commit takes the next free version. Everything is signed before
 * anything is written. Callers hold the storage's lock; where that is weak, a timestamp that moved
 * in between is still seen, and refused with `PUBLISH_CONFLICT`.
 */
import { sha256Of } from '../digest.ts'
import { EdgeError, isEdgeError } from '../errors.ts'
import type { RepositoryStorage } from '../publish/storage.ts'
import { acceptUpdate } from './accept.ts'
import { initialState, timeFloorMs, trustedRoot, type AcceptedState } from './accepted-state.ts'
import { asCount, asObject, fileNameOf, type JsonObject, timeText } from './json.ts'
import { parseRoot, parseSnapshot, parseTargets, parseTimestamp, SIGNED_AT_FIELD } from './metadata.ts'
import type { Metadata, Root, Snapshot, Targets, Timestamp } from './metadata.ts'
import { signersOf, signFile, type Signers } from './sign-file.ts'
import type { SigningKey } from './signing-key.ts'
import { requireThreshold, verifyNextRoot } from './verify.ts'

/** Days until metadata expires; docs/trust.md says why these. The root carries what differs. */
export interface ExpiryDays {
  readonly root: number
  readonly targets: number
  readonly publisher: number
  readonly snapshot: number
  readonly timestamp: number
}

export const EXPIRY_DAYS: ExpiryDays = {
  root: 365,
  targets: 365,
  publisher: 365,
  snapshot: 90,
  timestamp: 90,
}

/** What a repository says now, proven from its root on; expired or not. */
export interface RepositoryMetadata {
  readonly state: AcceptedState
  /** The newest; the rest was signed under it, or under the one before when a rotation broke off. */
  readonly root: Root
  readonly timestamp: Timestamp
  readonly snapshot: Snapshot
  /** `targets` and the delegated roles that are valid. */
  readonly roles: ReadonlyMap<string, Targets>
}

/** Signed objects that change; version and expiry are filled in. */
export interface MetadataEdit {
  readonly root?: JsonObject
  /** Targets roles by name. */
  readonly roles?: ReadonlyMap<string, JsonObject>
}

export interface CommitContext {
  readonly storage: RepositoryStorage
  /** All keys at hand; each signs where its id is listed. */
  readonly keys: readonly SigningKey[]
  readonly now: Date
}

interface MetadataFile {
  readonly path: string
  readonly bytes: Uint8Array
}

export const EXPIRY_FIELD = 'x-towerlight-expiry-days'
const FOLDER = 'metadata/'
const VERSIONED = /^metadata\/(\d+)\.(.+)\.json$/
const DAY_MS = 86_400_000
const SPEC_VERSION = '1.0.31'
/** Superseded versions that stay, for readers who began before. */
const OLD_VERSIONS_KEPT = 8
const READ_BYTES_MAX = 16 << 20

/**
 * @param pinned a root that the caller trusts already; without it, the repository's first one.
 * @throws EdgeError `TRUST_ROOT_ABSENT` when there is no repository yet, `TRUST_*` when it is not in order.
 */
export async function loadRepository(
  storage: RepositoryStorage,
  pinned?: Uint8Array,
): Promise<RepositoryMetadata> {
  const first = pinned ?? (await storage.read(`${FOLDER}1.root.json`))
  if (!first || (await storage.size(`${FOLDER}timestamp.json`)) === undefined) {
    throw new EdgeError(
      'TRUST_ROOT_ABSENT',
      'no repository there yet: run `tower keys init --keys FOLDER --to REPOSITORY`',
    )
  }
  try {
    return metadataOf(await acceptFrom(storage, first))
  } catch (error) {
    // A rotation wrote the new root and broke off: the rest is still signed under the one before.
    const newest = await newestRoot(storage, first)
    if (!isEdgeError(error, 'TRUST_SIGNATURE') || newest.version === 1) throw error
    const before = await acceptFrom(storage, first, newest.version)
    return { ...metadataOf(before), root: newest }
  }
}

/**
 * Signs and writes an edit; snapshot and timestamp are always made anew with it.
 *
 * @param base what the edit was made from; `undefined` for the first commit.
 * @throws EdgeError `KEY_ABSENT` (nothing was written), `PUBLISH_CONFLICT`.
 */
export async function commitMetadata(
  context: CommitContext,
  base: RepositoryMetadata | undefined,
  edit: MetadataEdit,
): Promise<void> {
  const { storage } = context
  const taken = new Set(await storage.list(FOLDER))
  const { root, files, timestamp, validBefore } = signedFiles(context, taken, base, edit)

  // Whoever reads in between must find a root that the rest is valid under.
  const rootFile = edit.root ? [{ path: pathOf('root', root.version), bytes: root.bytes }] : []
  if (!validBefore) await writeNew(storage, rootFile)
  await writeNew(storage, files)
  await requireUnmoved(storage, base)
  await storage.write(`${FOLDER}timestamp.json`, timestamp)
  if (validBefore) await writeNew(storage, rootFile)
  await removeOldVersions(storage, taken, files)
}

function signedFiles(
  { keys, now }: CommitContext,
  taken: ReadonlySet<string>,
  base: RepositoryMetadata | undefined,
  edit: MetadataEdit,
): { root: Root; files: readonly MetadataFile[]; timestamp: Buffer; validBefore: boolean } {
  // A publisher whose clock went back must not sign what towers then take for expired.
  const nowMs = Math.max(now.getTime(), base ? timeFloorMs(base.state) : 0)
  const head = (type: string, version: number, days: number) => ({
    _type: type,
    spec_version: SPEC_VERSION,
    version,
    expires: timeText(nowMs + days * DAY_MS),
  })
  const expiryDays = expiryDaysOf(edit.root ?? base?.root.signed)
  const signedAt = { [SIGNED_AT_FIELD]: timeText(nowMs) }
  const nextVersion = (role: string, last: number) => {
    let version = last + 1
    while (taken.has(pathOf(role, version))) version++
    return version
  }

  const root = edit.root
    ? signRoot(
        { ...edit.root, ...head('root', (base?.root.version ?? 0) + 1, expiryDays.root), ...signedAt },
        base,
        keys,
      )
    : base?.root
  if (!root) throw new EdgeError('TRUST_ROOT_ABSENT', 'the first commit needs a root')
  const before = base ? trustedRoot(base.state) : undefined
  const roles = new Map(base?.roles)
  const signRole = (name: string, signed: JsonObject): Buffer => {
    const signers = signersOf(name, root, roles.values())
    if (!signers) throw new EdgeError('KEY_NOT_AUTHORISED', `nobody delegates to ${name}`)
    return signFile(signed, [signers], before ? [signersOf(name, before, [])] : [], keys)
  }

  const files: MetadataFile[] = []
  const meta: Record<string, unknown> = Object.fromEntries(
    Object.entries((base?.snapshot.signed.meta ?? {}) as JsonObject),
  )
  // Delegators first: a role's keys are those that its new delegator lists.
  const edits = new Map(edit.roles)
  const top = base?.roles.get('targets')
  if (top && !edits.has('targets') && !isValid(top, signersOf('targets', root, [])))
    edits.set('targets', top.signed)
  for (const [name, signed] of [...edits].toSorted(
    ([a], [b]) => Number(b === 'targets') - Number(a === 'targets'),
  )) {
    const version = nextVersion(name, base?.snapshot.meta.get(name)?.version ?? 0)
    const days = name === 'targets' ? expiryDays.targets : expiryDays.publisher
    const bytes = signRole(name, { ...signed, ...head('targets', version, days) })
    roles.set(name, parseTargets(bytes, name))
    meta[`${name}.json`] = metaOf(version, bytes)
    files.push({ path: pathOf(name, version), bytes })
  }

  const version = nextVersion('snapshot', base?.snapshot.version ?? 0)
  const snapshot = signRole('snapshot', { ...head('snapshot', version, expiryDays.snapshot), meta })
  files.push({ path: pathOf('snapshot', version), bytes: snapshot })
  const timestamp = signRole('timestamp', {
    ...head('timestamp', (base?.timestamp.version ?? 0) + 1, expiryDays.timestamp),
    ...signedAt,
    meta: { 'snapshot.json': metaOf(version, snapshot) },
  })

  const topLevel = new Map<string, Metadata>([
    ['timestamp', parseTimestamp(timestamp)],
    ['snapshot', parseSnapshot(snapshot)],
    ['targets', roles.get('targets')!],
  ])
  const validBefore = before
    ? [...topLevel].every(([name, file]) => isValid(file, signersOf(name, before, [])))
    : false
  return { root, files, timestamp, validBefore }
}

/** As the root's own field `x-towerlight-expiry-days` says, else the defaults. */
export function expiryDaysOf(root: JsonObject | undefined): ExpiryDays {
  const given = root?.[EXPIRY_FIELD] === undefined ? {} : asObject(root[EXPIRY_FIELD], EXPIRY_FIELD)
  const days = (role: keyof ExpiryDays) =>
    given[role] === undefined ? EXPIRY_DAYS[role] : asCount(given[role], 1, EXPIRY_FIELD)
  return {
    root: days('root'),
    targets: days('targets'),
    publisher: days('publisher'),
    snapshot: days('snapshot'),
    timestamp: days('timestamp'),
  }
}

/** By the threshold of its own keys and of those of the root before (TUF 5.3.4). */
function signRoot(
  signed: JsonObject,
  base: RepositoryMetadata | undefined,
  keys: readonly SigningKey[],
): Root {
  const draft = parseRoot(Buffer.from(JSON.stringify({ signatures: [], signed })))
  const own = { what: 'root', keys: draft.keys, role: draft.roles.root }
  const former = base ? [{ what: 'root (as it was)', keys: base.root.keys, role: base.root.roles.root }] : []
  return parseRoot(signFile(signed, [own, ...former], [], keys))
}

function isValid(metadata: Metadata, signers: Signers | undefined): boolean {
  try {
    if (signers) requireThreshold(metadata, signers.keys, signers.role, signers.what)
    return signers !== undefined
  } catch {
    return false
  }
}

function metadataOf(state: AcceptedState): RepositoryMetadata {
  const { served } = state
  if (!served) throw new EdgeError('TRUST_INVALID', 'the repository has no complete metadata')
  return {
    state,
    root: trustedRoot(state),
    timestamp: parseTimestamp(served.timestamp),
    snapshot: parseSnapshot(served.snapshot),
    roles: new Map([...served.roles].map(([name, bytes]) => [name, parseTargets(bytes, name)])),
  }
}

/** @param hiddenRoot a root version to take for absent. */
async function acceptFrom(
  storage: RepositoryStorage,
  first: Uint8Array,
  hiddenRoot?: number,
): Promise<AcceptedState> {
  return acceptUpdate({
    state: initialState(first),
    now: new Date(0),
    ignoreExpiry: true,
    fetchMetadata: async (name, maxBytes) => {
      if (name === `${hiddenRoot}.root.json`) return undefined
      return storage.read(FOLDER + name, {
        offset: 0,
        length: await lengthOf(storage, FOLDER + name, maxBytes),
      })
    },
  })
}

async function lengthOf(storage: RepositoryStorage, path: string, maxBytes: number): Promise<number> {
  return Math.min((await storage.size(path)) ?? 0, maxBytes + 1, READ_BYTES_MAX)
}

async function newestRoot(storage: RepositoryStorage, first: Uint8Array): Promise<Root> {
  let newest = parseRoot(first)
  for (;;) {
    const next = await storage.read(pathOf('root', newest.version + 1))
    if (!next) return newest
    newest = verifyNextRoot(newest, next)
  }
}

function pathOf(role: string, version: number): string {
  return `${FOLDER}${version}.${fileNameOf(role)}.json`
}

function metaOf(version: number, bytes: Uint8Array): JsonObject {
  return { version, length: bytes.length, hashes: { sha256: sha256Of(bytes) } }
}

async function writeNew(storage: RepositoryStorage, files: readonly MetadataFile[]): Promise<void> {
  for (const { path, bytes } of files) await storage.write(path, bytes, { ifAbsent: true })
}

async function requireUnmoved(
  storage: RepositoryStorage,
  base: RepositoryMetadata | undefined,
): Promise<void> {
  const bytes = await storage.read(`${FOLDER}timestamp.json`)
  const version = bytes ? parseTimestamp(bytes).version : 0
  if (version === (base?.timestamp.version ?? 0)) return
  throw new EdgeError(
    'PUBLISH_CONFLICT',
    `somebody else published in between (timestamp ${version}): publish again`,
  )
}

/** Roots stay for ever: a tower may have missed any number of them. */
async function removeOldVersions(
  storage: RepositoryStorage,
  present: ReadonlySet<string>,
  written: readonly MetadataFile[],
): Promise<void> {
  for (const { path } of written) {
    const [, version, role] = VERSIONED.exec(path) ?? []
    for (const old of present) {
      const [, oldVersion, oldRole] = VERSIONED.exec(old) ?? []
      const superseded = oldRole === role && Number(oldVersion) < Number(version) - OLD_VERSIONS_KEPT
      if (superseded && role !== 'root') await storage.remove(old)
    }
  }
}
