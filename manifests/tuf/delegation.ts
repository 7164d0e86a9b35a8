/**
 * Which delegated roles may speak about a target path, in order of priority (TUF 4.5, TAP 15).
 */
import { sha256Of } from '../digest.ts'
import type { DelegatedRole, Delegations, RoleKeys, SuccinctRoles } from './metadata.ts'

export interface Delegation extends RoleKeys {
  readonly name: string
  readonly terminating: boolean
}

/** The roles of `delegations` that match `path`, in order; empty when there are none. */
export function delegationsFor(delegations: Delegations | undefined, path: string): readonly Delegation[] {
  if (!delegations) return []
  if (delegations.succinct) return [binFor(delegations.succinct, path)]
  return delegations.roles.filter(role => isDelegatedTo(role, path))
}

/** What `delegations` say about a role of that name. */
export function delegationNamed(delegations: Delegations | undefined, name: string): Delegation | undefined {
  if (!delegations?.succinct) return delegations?.roles.find(role => role.name === name)
  const { bitLength, namePrefix } = delegations.succinct
  const bin = Number.parseInt(name.slice(namePrefix.length + 1), 16)
  if (!(bin >= 0 && bin < 2 ** bitLength)) return undefined
  const delegation = binOf(delegations.succinct, bin)
  return delegation.name === name ? delegation : undefined
}

export function isDelegatedTo({ paths, pathHashPrefixes }: DelegatedRole, path: string): boolean {
  if (paths) return paths.some(pattern => matchesPattern(path, pattern))
  const hash = sha256Of(path)
  return (pathHashPrefixes ?? []).some(prefix => hash.startsWith(prefix))
}

/**
 * Shell wildcards `*` and `?`, neither of which matches a `/`; everything else is literal and case
 * counts. Linear in practice, quadratic at worst: there is no backtracking over more than one star.
 */
export function matchesPattern(path: string, pattern: string): boolean {
  // Almost all patterns of a big repository end here, at the first letter or soon after.
  for (let at = 0; at < pattern.length && pattern[at] !== '*' && pattern[at] !== '?'; at++) {
    if (pattern[at] !== path[at]) return false
  }
  const segments = path.split('/')
  const patterns = pattern.split('/')
  return (
    segments.length === patterns.length &&
    segments.every((segment, at) => matchesSegment(segment, patterns[at] ?? ''))
  )
}

function matchesSegment(text: string, pattern: string): boolean {
  let at = 0
  let from = 0
  let star = -1
  let resume = 0
  while (at < text.length) {
    if (from < pattern.length && pattern[from] === '*') {
      star = from++
      resume = at
    } else if (from < pattern.length && (pattern[from] === '?' || pattern[from] === text[at])) {
      at++
      from++
    } else if (star >= 0) {
      from = star + 1
      at = ++resume
    } else return false
  }
  while (pattern[from] === '*') from++
  return from === pattern.length
}

/** The bin is the first `bitLength` bits of the path's SHA-256. */
function binFor(succinct: SuccinctRoles, path: string): Delegation {
  const head = Number.parseInt(sha256Of(path).slice(0, 8), 16)
  return binOf(succinct, head >>> (32 - succinct.bitLength))
}

function binOf({ bitLength, namePrefix, keyIds, threshold }: SuccinctRoles, bin: number): Delegation {
  const digits = (2 ** bitLength - 1).toString(16).length
  return {
    name: `${namePrefix}-${bin.toString(16).padStart(digits, '0')}`,
    terminating: true,
    keyIds,
    threshold,
  }
}
