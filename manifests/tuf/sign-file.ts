/**
 * A signed object as a TUF file: compact JSON, signed by every key at hand that one of the given
 * roles lists, and proven to reach the threshold of the first of them.
 */
import { EdgeError } from '../errors.ts'
import { canonicalBytes, type JsonObject } from './json.ts'
import type { RoleKeys, Root, Targets } from './metadata.ts'
import { delegationNamed } from './delegation.ts'
import type { TufKey } from './public-key.ts'
import type { SigningKey } from './signing-key.ts'

/** Who may sign for a role: its keys, by the metadata that delegates to it. */
export interface Signers {
  readonly what: string
  readonly keys: ReadonlyMap<string, TufKey>
  readonly role: RoleKeys
}

/** Of any role: top-level ones by the root, others by the first of `roles` that delegates to them. */
export function signersOf(name: string, root: Root, roles: Iterable<Targets>): Signers | undefined {
  if (name === 'root' || name === 'timestamp' || name === 'snapshot' || name === 'targets') {
    return { what: name, keys: root.keys, role: root.roles[name] }
  }
  for (const { delegations } of roles) {
    const role = delegationNamed(delegations, name)
    if (delegations && role) return { what: name, keys: delegations.keys, role }
  }
  return undefined
}

/**
 * @param signers all of them must reach their thresholds.
 * @param also more keys that sign when they are at hand: those of the root before a rotation.
 * @throws EdgeError `KEY_ABSENT` naming what is missing.
 */
export function signFile(
  signed: JsonObject,
  signers: readonly Signers[],
  also: readonly (Signers | undefined)[],
  ring: readonly SigningKey[],
): Buffer {
  for (const each of signers) requireKeys(each, ring)
  const wanted = new Set([...signers, ...also].flatMap(each => [...(each?.role.keyIds ?? [])]))
  const message = canonicalBytes(signed)
  const signatures = ring
    .filter(({ keyId }) => wanted.has(keyId))
    .map(key => ({ keyid: key.keyId, sig: key.sign(message) }))
  return Buffer.from(JSON.stringify({ signatures, signed }))
}

export function holdsKeys({ role }: Signers, ring: readonly SigningKey[]): boolean {
  return ring.filter(({ keyId }) => role.keyIds.has(keyId)).length >= role.threshold
}

function requireKeys(signers: Signers, ring: readonly SigningKey[]): void {
  if (holdsKeys(signers, ring)) return
  const { what, role } = signers
  const held = ring.filter(({ keyId }) => role.keyIds.has(keyId)).length
  const missing = [...role.keyIds]
    .filter(id => !ring.some(({ keyId }) => keyId === id))
    .map(id => id.slice(0, 12))
  throw new EdgeError(
    'KEY_ABSENT',
    `${what} needs ${role.threshold} of ${role.keyIds.size} keys, ${held} are here; name more key folders (missing: ${missing.join(', ')})`,
  )
}
