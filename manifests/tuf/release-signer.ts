/**
 * Makes a manifest the current one: the delegated role that may speak about it, then snapshot and
 * timestamp. What `publishRelease` is handed.
 */
import { sha256Of, type Sha256 } from '../digest.ts'
import { EdgeError } from '../errors.ts'
import type { ReleaseSigner } from '../publish/release-signer.ts'
import { findTarget } from './accepted-state.ts'
import { delegationsFor } from './delegation.ts'
import type { JsonObject } from './json.ts'
import type { Targets } from './metadata.ts'
import { commitMetadata, loadRepository, type RepositoryMetadata } from './repository.ts'
import { holdsKeys, signersOf } from './sign-file.ts'
import type { SigningKey } from './signing-key.ts'

export interface SignerOptions {
  readonly keys: readonly SigningKey[]
  /** Which role signs; without it, the first that may and whose keys are here. */
  readonly publisher?: string | undefined
  /** A root that is trusted already, instead of the repository's first one. */
  readonly pinnedRoot?: Uint8Array | undefined
}

export function releaseSigner({ keys, publisher, pinnedRoot }: SignerOptions): ReleaseSigner {
  return {
    async current(targetPath, storage) {
      const { state } = await loadRepository(storage, pinnedRoot)
      const found = findTarget(state, targetPath)
      return found && { sha256: found.sha256 as Sha256, sizeBytes: found.lengthBytes }
    },

    async sign({ targetPath, bytes }, storage, now) {
      const base = await loadRepository(storage, pinnedRoot)
      const found = findTarget(base.state, targetPath)
      const sha256 = sha256Of(bytes)
      if (found?.sha256 === sha256) return
      const name = publisherOf(base, targetPath, keys, publisher)
      if (found && precedes(base, found.role, name, targetPath)) {
        throw new EdgeError(
          'KEY_NOT_AUTHORISED',
          `${targetPath} is published by ${found.role}, which comes before ${name}`,
        )
      }

      const signed = base.roles.get(name)?.signed ?? EMPTY_TARGETS
      const targets = {
        ...(signed.targets as JsonObject),
        [targetPath]: { length: bytes.length, hashes: { sha256 } },
      }
      await commitMetadata({ storage, keys, now }, base, { roles: new Map([[name, { ...signed, targets }]]) })
    },
  }
}

export const EMPTY_TARGETS: JsonObject = { targets: {} }

/** @throws EdgeError `KEY_NOT_AUTHORISED`, `KEY_ABSENT` */
function publisherOf(
  base: RepositoryMetadata,
  path: string,
  keys: readonly SigningKey[],
  wanted: string | undefined,
): string {
  if (keys.length === 0) throw new EdgeError('KEY_ABSENT', 'no signing key was given')
  const allowed = allowedRoles(base, path)
  const named = allowed.filter(name => wanted === undefined || name === wanted)
  const usable = named.find(name => {
    const signers = signersOf(name, base.root, base.roles.values())
    return signers !== undefined && holdsKeys(signers, keys)
  })
  if (usable !== undefined) return usable
  const who = allowed.filter(name => name !== 'targets').join(', ') || 'no publisher'
  throw new EdgeError(
    'KEY_NOT_AUTHORISED',
    `the keys here may not sign ${path}${wanted ? ` as ${wanted}` : ''}; allowed: ${who}. The holder of the targets key can add one: tower keys add`,
  )
}

/** Roles that may speak about a path, in the order in which clients ask them; `targets` for want of others. */
function allowedRoles({ roles }: RepositoryMetadata, path: string): string[] {
  const allowed: string[] = []
  const visit = (targets: Targets | undefined): boolean => {
    for (const { name, terminating } of delegationsFor(targets?.delegations, path)) {
      if (allowed.includes(name)) continue
      allowed.push(name)
      if (visit(roles.get(name)) || terminating) return true
    }
    return false
  }
  visit(roles.get('targets'))
  return [...allowed, 'targets']
}

/** Whether clients would go on finding the target with another role, whatever `name` says. */
function precedes(base: RepositoryMetadata, other: string, name: string, path: string): boolean {
  if (other === name || name === 'targets') return false
  const order = allowedRoles(base, path)
  return other === 'targets' || order.indexOf(other) < order.indexOf(name)
}
