/**
 * The rules by which new metadata replaces what is trusted: TUF 5.3 to 5.6, one pure function per
 * role. Each takes what is trusted and untrusted bytes, and returns the new trusted metadata or
 * throws; nothing is remembered here, no clock is read.
 *
 * @throws EdgeError `TRUST_INVALID` (not metadata), `TRUST_SIGNATURE` (threshold not reached),
 * `TRUST_ROLLBACK` (a version went backwards), `TRUST_MISMATCH` (mix and match), `TRUST_EXPIRED`
 * (freeze). What was trusted stays trusted then.
 */
import { hash } from 'node:crypto'
import { EdgeError } from '../errors.ts'
import { delegationNamed } from './delegation.ts'
import { timeText } from './json.ts'
import { parseRoot, parseSnapshot, parseTargets, parseTimestamp } from './metadata.ts'
import type {
  FileMeta,
  Metadata,
  RoleKeys,
  Root,
  Snapshot,
  Targets,
  Timestamp,
  TufTarget,
} from './metadata.ts'
import { isSignedBy, type TufKey } from './public-key.ts'

const KNOWN_HASHES: ReadonlySet<string> = new Set(['sha256', 'sha384', 'sha512'])

/** A root that was handed over by a person: only its own signatures can be checked (5.2). */
export function verifyInitialRoot(bytes: Uint8Array): Root {
  const root = parseRoot(bytes)
  requireThreshold(root, root.keys, root.roles.root, 'root')
  return root
}

/** 5.3.4 and 5.3.5: signed by the old and the new threshold, and exactly the next version. */
export function verifyNextRoot(trusted: Root, bytes: Uint8Array): Root {
  const root = parseRoot(bytes)
  requireThreshold(root, trusted.keys, trusted.roles.root, `root (by version ${trusted.version})`)
  requireThreshold(root, root.keys, root.roles.root, 'root')
  if (root.version !== trusted.version + 1) {
    throw new EdgeError('TRUST_ROLLBACK', `root is version ${root.version}, not ${trusted.version + 1}`)
  }
  return root
}

/** 5.4. @returns `undefined` when the version is the trusted one: then nothing has changed. */
export function verifyTimestamp(
  root: Root,
  trusted: Timestamp | undefined,
  bytes: Uint8Array,
): Timestamp | undefined {
  const timestamp = parseTimestamp(bytes)
  requireThreshold(timestamp, root.keys, root.roles.timestamp, 'timestamp')
  if (!trusted) return timestamp
  requireNotBelow(timestamp.version, trusted.version, 'timestamp')
  if (timestamp.version === trusted.version) return undefined
  requireNotBelow(timestamp.snapshot.version, trusted.snapshot.version, 'snapshot in timestamp')
  return timestamp
}

/** 5.5 without expiry. */
export function verifySnapshot(
  root: Root,
  timestamp: Timestamp,
  trusted: Snapshot | undefined,
  bytes: Uint8Array,
): Snapshot {
  requireFile(bytes, timestamp.snapshot, 'snapshot')
  const snapshot = parseSnapshot(bytes)
  requireThreshold(snapshot, root.keys, root.roles.snapshot, 'snapshot')
  requireVersion(snapshot.version, timestamp.snapshot.version, 'snapshot')
  for (const [role, { version }] of trusted?.meta ?? []) {
    const meta = snapshot.meta.get(role)
    if (!meta) throw new EdgeError('TRUST_ROLLBACK', `snapshot no longer lists ${role}`)
    requireNotBelow(meta.version, version, `${role} in snapshot`)
  }
  return snapshot
}

/** 5.6 without expiry, for the top-level role (`delegator` is the root) and delegated ones. */
export function verifyTargets(
  delegator: Root | Targets,
  role: string,
  meta: FileMeta,
  bytes: Uint8Array,
): Targets {
  requireFile(bytes, meta, role)
  const targets = verifyDelegated(delegator, role, bytes)
  requireVersion(targets.version, meta.version, role)
  return targets
}

/** Whether `delegator` vouches for these bytes as `role`: authentic, whatever the version. */
export function verifyDelegated(delegator: Root | Targets, role: string, bytes: Uint8Array): Targets {
  const targets = parseTargets(bytes, role)
  requireDelegated(delegator, role, targets)
  return targets
}

/** The same for metadata that is parsed already: a cached role never inherits authority. */
export function requireDelegated(delegator: Root | Targets, role: string, targets: Targets): void {
  if ('roles' in delegator) {
    requireThreshold(targets, delegator.keys, delegator.roles.targets, role)
    return
  }
  const delegation = delegationNamed(delegator.delegations, role)
  if (!delegation || !delegator.delegations)
    throw new EdgeError('TRUST_SIGNATURE', `${role} is not delegated to`)
  requireThreshold(targets, delegator.delegations.keys, delegation, role)
}

/** 5.3.10, 5.4.4, 5.5.6, 5.6.5. */
export function requireUnexpired({ expiresMs }: Metadata, nowMs: number, role: string): void {
  if (expiresMs > nowMs) return
  throw new EdgeError(
    'TRUST_EXPIRED',
    `${role} expired at ${timeText(expiresMs)}; it is ${timeText(nowMs)}. The publisher has to run \`tower keys renew\`; check this machine's clock`,
  )
}

/** Length and hashes of a target's bytes. @throws EdgeError `TRUST_MISMATCH`, `TRUST_INVALID` */
export function requireTargetBytes(
  bytes: Uint8Array,
  { lengthBytes, hashes }: TufTarget,
  path: string,
): void {
  requireFile(bytes, { version: 1, lengthBytes, hashes }, path)
}

/** Whether what we hold is the file that `meta` speaks of. */
export function isFile(bytes: Uint8Array, version: number, meta: FileMeta): boolean {
  try {
    requireFile(bytes, meta, '')
  } catch {
    return false
  }
  return version === meta.version
}

/** 5.3.4: keys count once, by id and by material; signatures that do not verify are passed over. */
export function requireThreshold(
  { signatures, canonical }: Metadata,
  keys: ReadonlyMap<string, TufKey>,
  { keyIds, threshold }: RoleKeys,
  what: string,
): void {
  const signers = new Set<string>()
  for (const keyId of keyIds) {
    const key = keys.get(keyId)
    const signature = signatures.get(keyId)
    if (key && signature && isSignedBy(key, canonical, signature)) signers.add(key.material)
    if (signers.size >= threshold) return
  }
  throw new EdgeError('TRUST_SIGNATURE', `${what}: ${signers.size} valid signatures, ${threshold} are needed`)
}

function requireFile(bytes: Uint8Array, { lengthBytes, hashes }: FileMeta, what: string): void {
  if (lengthBytes !== undefined && bytes.length !== lengthBytes) {
    throw new EdgeError('TRUST_MISMATCH', `${what} has ${bytes.length} bytes, ${lengthBytes} are signed`)
  }
  if (hashes.size === 0) return
  const known = [...hashes].filter(([algorithm]) => KNOWN_HASHES.has(algorithm))
  if (known.length === 0) throw new EdgeError('TRUST_INVALID', `${what}: no hash algorithm that we know`)
  for (const [algorithm, expected] of known) {
    const actual = hash(algorithm, bytes, 'hex')
    if (actual !== expected) {
      throw new EdgeError('TRUST_MISMATCH', `${what} has ${algorithm} ${actual}, ${expected} is signed`)
    }
  }
}

function requireVersion(version: number, expected: number, what: string): void {
  if (version === expected) return
  throw new EdgeError('TRUST_MISMATCH', `${what} is version ${version}, ${expected} is signed`)
}

function requireNotBelow(version: number, floor: number, what: string): void {
  if (version >= floor) return
  throw new EdgeError('TRUST_ROLLBACK', `${what} is version ${version}, ${floor} was accepted before`)
}
