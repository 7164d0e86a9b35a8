/**
 * What the node keeps and where: the interface between the store, which moves bytes, and the
 * policy, which only decides. Policies are pure: no files, no clock, no timers; keys are integers
 * that the store gives out (an extent's row number), time is handed in.
 *
 * Two decisions, never mixed: does the node keep these bytes at all (hot and warm together), and do
 * they live on the hot tier (speed only). A decision is binding: once `request` or `admit` has
 * returned, the policy counts with what it said. A store that cannot follow (the fetch failed, the
 * disk is gone) says so with `remove` or `resize`.
 */

export type Place = 'hot' | 'warm'

export interface Decision {
  /** `hit`: it was here. `admit`: it was not and is kept from now on. `reject`: not kept. */
  readonly outcome: 'hit' | 'admit' | 'reject'
  /** Where it lives from now on; null when rejected. */
  readonly place: Place | null
  /** Keys that leave the node, lowest value first: delete these before writing the newcomer. */
  readonly evict: readonly number[]
  /** Keys that move from hot to warm. */
  readonly demote: readonly number[]
  /** Whether the requested key itself moves from warm to hot. */
  readonly promote: boolean
}

/** The least a policy does: what the bench compares. Decisions are valid until the next call. */
export interface KeepPolicy {
  readonly name: string
  readonly usedBytes: number
  /**
   * Somebody asked for `key`. Every request is told, hits and misses alike: this is all a policy
   * learns from.
   * @param reachable whether the bytes can be had now; when not, a miss is only remembered.
   */
  request(key: number, sizeBytes: number, nowSeconds: number, reachable?: boolean): Decision
}

/** Why an entry may not be evicted (I4); reasons add up. */
export const EXEMPT = { pinned: 1, mustHave: 2, inFill: 4 } as const
export type Exemption = keyof typeof EXEMPT

export interface PolicyUsage {
  readonly residents: number
  readonly known: number
  readonly usedBytes: number
  readonly hotBytes: number
  readonly exemptBytes: number
  /** Memory held by the policy's own tables. */
  readonly memoryBytes: number
}

export interface TierPolicy extends KeepPolicy {
  /**
   * Offers bytes that nobody asked for (a warmer brings them), or says anew what is expected of
   * bytes that are here. Kept when worth more than what would have to leave; until somebody asks,
   * the expectation is a floor under its value.
   * @param requestsPerDay what the planner expects; see `warmers/value.ts`.
   */
  admit(key: number, sizeBytes: number, requestsPerDay: number): Decision
  /**
   * Offers bytes that somebody asked for a moment ago, when they were not here (`request` has counted
   * that): kept when worth more than what would have to leave.
   */
  admitAsked(key: number, sizeBytes: number): Decision
  /**
   * Keeps `key` whatever it is worth: pinned, must-have, or being filled. Others leave for it.
   * What cannot fit beside all that is exempt already is rejected, and nothing is evicted.
   */
  exempt(key: number, sizeBytes: number, why: Exemption): Decision
  /** Ends one reason. The extent stays, and may be evicted from now on. */
  release(key: number, why: Exemption): void
  /** Found on disk though never decided here (a lost snapshot). Counted even above capacity. */
  adopt(key: number, sizeBytes: number, place: Place): void
  /** The bytes are gone (quarantined, deleted, never arrived). What is known of demand is kept. */
  remove(key: number): void
  /** Whether the policy counts `key` as here, and where. */
  placeOf(key: number): Place | null
  /** Other capacities. @returns who leaves and who moves; what is exempt stays in any case. */
  resize(capacityBytes: number, hotBytesMax: number): Pick<Decision, 'evict' | 'demote'>
  usage(): PolicyUsage

  /** What changed since the last call, at most `recordsMax` extents; undefined when nothing did. */
  drainChanges(recordsMax: number): Uint8Array | undefined
  /** Everything, in pieces that may be written one by one while the node goes on. */
  checkpoint(recordsMax: number): Generator<Uint8Array>
  /**
   * Into a policy that knows nothing yet: pieces in the order they were taken. Yields every few
   * milliseconds, so that a node with millions of extents serves meanwhile; the policy must not be
   * asked for anything else until it has ended.
   * @returns how many pieces were refused as damaged.
   */
  restore(pieces: Iterable<Uint8Array>): Generator<void, number>
}
