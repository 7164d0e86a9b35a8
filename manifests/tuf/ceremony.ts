/**
 * What the holders of a repository's keys do: begin it, let publishers in and out, change keys,
 * renew what expires, deny items. Each is one commit; see docs/trust.md for who does what when.
 */
import { sha256Of } from '../digest.ts'
import { EdgeError } from '../errors.ts'
import type { RepositoryStorage } from '../publish/storage.ts'
import { findTarget } from './accepted-state.ts'
import { DENYLIST_TARGET, encodeDenylist, parseDenylist, type DenylistEntry } from './denylist.ts'
import type { JsonObject } from './json.ts'
import type { DelegatedRole, Targets, TopLevelRole } from './metadata.ts'
import { EMPTY_TARGETS } from './release-signer.ts'
import { commitMetadata, EXPIRY_FIELD, expiryDaysOf } from './repository.ts'
import type { CommitContext, ExpiryDays, MetadataEdit, RepositoryMetadata } from './repository.ts'
import { holdsKeys, signersOf } from './sign-file.ts'
import type { PublicKey } from './signing-key.ts'

export interface RoleSetup {
  readonly keys: readonly PublicKey[]
  readonly threshold: number
}

export interface Publisher extends RoleSetup {
  readonly name: string
  /** Target path patterns; `*` matches within one segment. */
  readonly paths: readonly string[]
}

const PUBLISHER_NAME = /^[a-z][a-z0-9._-]{0,63}$/
const RESERVED_NAMES: ReadonlySet<string> = new Set(['root', 'targets', 'snapshot', 'timestamp', 'mirrors'])
/** Letters whose meaning in a pattern differs between TUF clients. */
const AMBIGUOUS = /[[\]{}!()\\,]/
const RENEW_BELOW = 2 / 3
const DAY_MS = 86_400_000

/** Writes version 1 of everything. @throws EdgeError `PUBLISH_CONFLICT` when there is a repository. */
export async function createRepository(
  context: CommitContext,
  setup: Readonly<Record<TopLevelRole, RoleSetup>>,
  expiryDays?: Partial<ExpiryDays>,
): Promise<void> {
  if ((await context.storage.size('metadata/timestamp.json')) !== undefined) {
    throw new EdgeError('PUBLISH_CONFLICT', 'there is a repository already')
  }
  const all = Object.values(setup).flatMap(({ keys }) => keys)
  const root = {
    consistent_snapshot: true,
    ...(expiryDays && { [EXPIRY_FIELD]: expiryDays }),
    keys: keyTable(all),
    roles: Object.fromEntries(
      Object.entries(setup).map(([role, { keys, threshold }]) => [role, roleJson(keys, threshold)]),
    ),
  }
  await removeUnfinished(context.storage)
  await commitMetadata(context, undefined, { root, roles: new Map([['targets', EMPTY_TARGETS]]) })
}

/**
 * Lets a publisher sign for its paths, or changes keys and paths of one that is there.
 * Its own first metadata is written too when its key is at hand.
 *
 * @throws EdgeError `REQUEST_INVALID` for a name or pattern that clients understand differently.
 */
export async function setPublisher(
  context: CommitContext,
  base: RepositoryMetadata,
  publisher: Publisher,
): Promise<void> {
  const { name, keys, threshold, paths } = publisher
  requirePublisherName(name)
  for (const path of paths) requirePattern(path)
  const top = topOf(base)
  const others = (top.delegations?.roles ?? []).filter(role => role.name !== name)
  const role = { name, ...roleJson(keys, threshold), terminating: false, paths }
  const replaced = top.delegations?.roles.findIndex(role => role.name === name) ?? -1
  const listed = others.map(delegatedJson)
  listed.splice(replaced < 0 ? listed.length : replaced, 0, role)
  const targets = withDelegations(top, listed, keys)

  const held = context.keys.filter(({ keyId }) => keys.some(key => key.keyId === keyId)).length
  const own = base.roles.get(name)?.signed ?? EMPTY_TARGETS
  const roles = new Map([['targets', targets]])
  if (held >= threshold) roles.set(name, own)
  else if (base.roles.has(name))
    throw new EdgeError('KEY_ABSENT', `${name} has releases: its new key must be here to sign them again`)
  await commitMetadata(context, base, { roles })
}

/** Nothing of this publisher is served any longer, once towers have heard of it. */
export async function removePublisher(
  context: CommitContext,
  base: RepositoryMetadata,
  name: string,
): Promise<void> {
  const top = topOf(base)
  const others = (top.delegations?.roles ?? []).filter(role => role.name !== name)
  if (others.length === (top.delegations?.roles.length ?? 0))
    throw new EdgeError('REQUEST_INVALID', `there is no publisher ${name}`)
  await commitMetadata(context, base, {
    roles: new Map([['targets', withDelegations(top, others.map(delegatedJson), [])]]),
  })
}

/**
 * Replaces all keys of a top-level role; what the role had signed is signed again. A fast-forward
 * attack with a stolen key ends here: towers drop the floors that only that key had set (5.3.11).
 */
export async function rotateRole(
  context: CommitContext,
  base: RepositoryMetadata,
  role: TopLevelRole,
  { keys, threshold }: RoleSetup,
): Promise<void> {
  const { signed } = base.root
  const roles = { ...(signed.roles as JsonObject), [role]: roleJson(keys, threshold) }
  const used = new Set(Object.values(roles).flatMap(entry => (entry as { keyids: readonly string[] }).keyids))
  const table = { ...(signed.keys as JsonObject), ...keyTable(keys) }
  const root = {
    ...signed,
    roles,
    keys: Object.fromEntries(Object.entries(table).filter(([id]) => used.has(id))),
  }
  await commitMetadata(context, base, { root })
}

/**
 * Signs again what is past a third of its time, as far as keys are at hand; snapshot and timestamp
 * always. @returns the roles that were renewed, and those near their end whose keys are not here.
 */
export async function renew(
  context: CommitContext,
  base: RepositoryMetadata,
): Promise<{ readonly renewed: readonly string[]; readonly lacking: readonly string[] }> {
  const { keys, now } = context
  const expiryDays = expiryDaysOf(base.root.signed)
  const isDue = (expiresMs: number, days: number) => expiresMs - now.getTime() < days * DAY_MS * RENEW_BELOW
  const has = (name: string) => {
    const signers = signersOf(name, base.root, base.roles.values())
    return signers !== undefined && holdsKeys(signers, keys)
  }
  const due = [...base.roles].filter(([name, { expiresMs }]) =>
    isDue(expiresMs, name === 'targets' ? expiryDays.targets : expiryDays.publisher),
  )
  const roles = new Map(due.filter(([name]) => has(name)).map(([name, { signed }]) => [name, signed]))
  const rootDue = isDue(base.root.expiresMs, expiryDays.root)
  const edit: MetadataEdit = { roles, ...(rootDue && has('root') && { root: base.root.signed }) }
  await commitMetadata(context, base, edit)
  const wanted = [...due.map(([name]) => name), ...(rootDue ? ['root'] : [])]
  return {
    renewed: [...wanted.filter(has), 'snapshot', 'timestamp'],
    lacking: wanted.filter(name => !has(name)),
  }
}

/** @throws EdgeError `TRUST_MISMATCH` when the denylist in the repository is not the one signed. */
export async function readDenylist(
  storage: RepositoryStorage,
  base: RepositoryMetadata,
): Promise<readonly DenylistEntry[]> {
  const found = findTarget(base.state, DENYLIST_TARGET)
  if (!found) return []
  const bytes = await storage.read(denylistPath(found.sha256))
  if (!bytes || sha256Of(bytes) !== found.sha256) {
    throw new EdgeError('TRUST_MISMATCH', 'the denylist in the repository is not the one that was signed')
  }
  return parseDenylist(bytes).entries
}

export async function writeDenylist(
  context: CommitContext,
  base: RepositoryMetadata,
  entries: readonly DenylistEntry[],
): Promise<void> {
  const bytes = encodeDenylist(entries)
  parseDenylist(bytes)
  const sha256 = sha256Of(bytes)
  const { signed } = topOf(base)
  const targets = {
    ...(signed.targets as JsonObject),
    [DENYLIST_TARGET]: { length: bytes.length, hashes: { sha256 } },
  }
  await context.storage.write(denylistPath(sha256), bytes)
  await commitMetadata(context, base, { roles: new Map([['targets', { ...signed, targets }]]) })
}

/** @throws EdgeError `REQUEST_INVALID` for what could be another role or file to some client. */
export function requirePublisherName(name: string): void {
  if (PUBLISHER_NAME.test(name) && !RESERVED_NAMES.has(name)) return
  throw new EdgeError(
    'REQUEST_INVALID',
    `${JSON.stringify(name)} is no name for a publisher: a-z, 0-9, . _ - are`,
  )
}

function denylistPath(sha256: string): string {
  return `targets/${sha256}.${DENYLIST_TARGET}`
}

function topOf({ roles }: RepositoryMetadata): Targets {
  const top = roles.get('targets')
  if (!top) throw new EdgeError('TRUST_INVALID', 'the repository has no targets role')
  return top
}

function withDelegations(
  { signed, delegations }: Targets,
  roles: readonly { keyids: readonly string[] }[],
  added: readonly PublicKey[],
): JsonObject {
  const used = new Set(roles.flatMap(({ keyids }) => keyids))
  const known = [...(delegations?.keys.values() ?? [])].map(({ keyId, json }) => ({ keyId, json }))
  const keys = keyTable([...known, ...added].filter(({ keyId }) => used.has(keyId)))
  return { ...signed, delegations: { keys, roles } }
}

function delegatedJson({ name, keyIds, threshold, terminating, paths, pathHashPrefixes }: DelegatedRole) {
  const scope = paths ? { paths } : { path_hash_prefixes: pathHashPrefixes }
  return { name, keyids: [...keyIds], threshold, terminating, ...scope }
}

function roleJson(keys: readonly PublicKey[], threshold: number) {
  const keyids = [...new Set(keys.map(({ keyId }) => keyId))]
  if (keyids.length < threshold) {
    throw new EdgeError(
      'REQUEST_INVALID',
      `a threshold of ${threshold} needs as many keys, there are ${keyids.length}`,
    )
  }
  return { keyids, threshold }
}

function keyTable(keys: readonly PublicKey[]): JsonObject {
  return Object.fromEntries(keys.map(({ keyId, json }) => [keyId, json]))
}

function requirePattern(pattern: string): void {
  const odd =
    pattern === '' ||
    pattern.startsWith('/') ||
    pattern.split('/').some(part => ['', '.', '..'].includes(part))
  if (odd || AMBIGUOUS.test(pattern)) {
    throw new EdgeError(
      'REQUEST_INVALID',
      `${JSON.stringify(pattern)}: a pattern is a relative path with * and ?, such as health/*/manifest.json`,
    )
  }
}

/** What an interrupted first commit left: nobody can have trusted it, since the timestamp is missing. */
async function removeUnfinished(storage: RepositoryStorage): Promise<void> {
  const left = await storage.list('metadata/')
  if (left.some(path => !path.startsWith('metadata/1.'))) {
    throw new EdgeError(
      'PUBLISH_CONFLICT',
      'the repository has metadata but no timestamp.json: put that file back',
    )
  }
  for (const path of left) await storage.remove(path)
}
