/** Decisions of policies that know one place only and are compared, not used. */
import type { Decision } from '../../../node/store/policy/policy.ts'

const NOBODY: readonly number[] = []
export const HIT: Decision = { outcome: 'hit', place: 'warm', evict: NOBODY, demote: NOBODY, promote: false }
export const REJECT: Decision = { ...HIT, outcome: 'reject', place: null }

export function admitted(evict: readonly number[]): Decision {
  return { ...HIT, outcome: 'admit', evict }
}
