/**
 * Hot and warm: does what the tier policy decides. The policy is asked, and its answer is binding;
 * the files follow in the background, one at a time. What an extent's place should be is always
 * asked anew, so a decision that was overtaken costs nothing and a crash in between leaves nothing
 * to undo: start-up offers what is here to the policy again.
 *
 * A move is: the new file durable, then the row, then the old file gone. Small blocks stay in the
 * database and only change their row; they are counted with their tier.
 */
import { EdgeError, isEdgeError } from '../../manifests/errors.ts'
import type { Cid } from '../../manifests/cid.ts'
import type { CommitQueue } from './commit-queue.ts'
import type { EventLog } from './event-log.ts'
import type { ExtentFiles } from './extent-files.ts'
import type { ExtentReader } from './extent-reader.ts'
import type { BriefRow, ExtentTable, Located } from './extent-table.ts'
import type { OpenFiles } from './open-files.ts'
import { Passing } from './passing.ts'
import type { Decision, Exemption, TierPolicy } from './policy/policy.ts'
import type { Quarantine } from './quarantine.ts'
import { HELD } from './schema.ts'
import type { SmallBlocks } from './small-blocks.ts'
import type { DiskTier, StoreEvent } from './store.ts'
import type { Turns } from './turns.ts'

const ROWS_AT_ONCE = 500
const TOUCHES_KEPT_MAX = 20_000
const MISSED_MAX = 20_000

export interface TierParts {
  readonly table: ExtentTable
  readonly small: SmallBlocks
  readonly files: Readonly<Record<DiskTier, ExtentFiles>>
  readonly openFiles: OpenFiles
  readonly reader: ExtentReader
  readonly quarantine: Quarantine
  readonly commits: CommitQueue
  readonly events: EventLog
  readonly turns: Turns<Cid>
  readonly now: () => number
  readonly onGone: (cid: Cid, sizeBytes: number) => void
  /** What was fetched for somebody and is not kept: so much of it stays for a moment. */
  readonly passingBytesMax: number
}

export class Tiers {
  readonly #parts: TierParts
  #policy: TierPolicy
  /** Extents whose place may not be what the policy wants. */
  readonly #restless = new Set<number>()
  readonly #passing: Passing
  /** Asked for and not here, of late. */
  readonly #missed = new Set<number>()
  /** Requests per day that a plan expects of extents which are still to come. */
  readonly #expected = new Map<number, number>()
  #moving: Promise<void> | undefined
  #loaded = false
  /** Requests that came before the policy knew what is here: key, size, time. */
  #touches: [key: number, sizeBytes: number, atSeconds: number, here: boolean][] = []
  #stopped = false
  #capacity: { readonly capacityBytes: number; readonly hotBytesMax: number }

  constructor(parts: TierParts, policy: TierPolicy, capacityBytes: number, hotBytesMax: number) {
    this.#parts = parts
    this.#policy = policy
    this.#passing = new Passing(parts.passingBytesMax)
    this.#capacity = { capacityBytes, hotBytesMax }
  }

  get policy(): TierPolicy {
    return this.#policy
  }

  /** Begins anew: the extents' numbers have changed. */
  restart(policy: TierPolicy): void {
    this.#policy = policy
    this.#loaded = false
    this.#restless.clear()
    this.#expected.clear()
    this.#touches = []
  }

  get loaded(): boolean {
    return this.#loaded
  }

  /** Tells the policy what is here, in slices; requests that came meanwhile are handed on at the end. */
  async load(): Promise<void> {
    const { table } = this.#parts
    const policy = this.#policy
    for (let after = 0; !this.#stopped; ) {
      const rows = table.briefRowsAfter(after, ROWS_AT_ONCE)
      if (rows.length === 0) break
      for (const row of rows) this.#introduce(row)
      after = rows.at(-1)!.id
      await new Promise(resolve => setImmediate(resolve))
    }
    // what was adopted above the capacity (it may have been halved) leaves now
    const { capacityBytes, hotBytesMax } = this.#capacity
    this.#apply(policy.resize(capacityBytes, hotBytesMax))
    this.#loaded = true
    for (const [key, sizeBytes, at, here] of this.#touches)
      this.#apply(policy.request(key, sizeBytes, at, here), key)
    this.#touches = []
  }

  /** Found on disk behind our back. */
  adopt(row: Located): void {
    if (this.#loaded) this.#introduce(row)
  }

  /** Somebody asked for it. A miss is remembered by the policy, too. */
  touch(key: number, sizeBytes: number, here: boolean): void {
    const seconds = this.#parts.now() / 1000
    if (this.#loaded) {
      const decision = this.#policy.request(key, sizeBytes, seconds, here)
      if (here) this.#asked(key, decision)
      else this.#missed.add(key)
      if (this.#missed.size > MISSED_MAX) this.#missed.clear()
    } else if (this.#touches.length < TOUCHES_KEPT_MAX) this.#touches.push([key, sizeBytes, seconds, here])
  }

  /** What is on its way through may have been taken by that, and then has a place of its own. */
  #asked(key: number, decision: Decision): void {
    this.#apply(decision, key)
    if (decision.outcome === 'hit') return
    if (decision.outcome === 'admit') this.#passing.delete(key)
    else if (this.#passing.has(key)) return
    this.#restless.add(key)
    this.#move()
  }

  /**
   * A place for an extent that is about to be written; until `settle`, it cannot be evicted. What is
   * fetched because somebody asked passes through: whether it is kept is decided when it is read.
   * @throws EdgeError `STORE_FULL`
   */
  place(key: number, sizeBytes: number, isAskedFor: boolean): DiskTier {
    if (isAskedFor && !this.#policy.placeOf(key)) {
      const { capacityBytes, hotBytesMax } = this.#capacity
      return capacityBytes > hotBytesMax ? 'warm' : 'hot'
    }
    const decision = this.#policy.exempt(key, sizeBytes, 'inFill')
    if (decision.outcome === 'reject') {
      throw new EdgeError('STORE_FULL', `${sizeBytes} bytes do not fit beside what may not be evicted`)
    }
    this.#apply(decision, key)
    return this.#policy.placeOf(key) ?? decision.place ?? 'warm'
  }

  /** The extent was written, and is held as its row says. */
  settle(key: number, sizeBytes: number, held: number): void {
    this.#holdAll(key, sizeBytes, held)
    if (this.#policy.placeOf(key)) {
      this.#policy.release(key, 'inFill')
      const expected = this.#expected.get(key)
      if (expected !== undefined) this.#apply(this.#policy.admit(key, sizeBytes, expected), key)
      this.#passing.delete(key)
      this.#restless.add(key)
    } else {
      for (const gone of this.#passing.add(key, sizeBytes)) this.#restless.add(gone)
      // it may come after its bytes were given, chunk by chunk
      if (this.#missed.has(key)) this.#asked(key, this.#policy.admitAsked(key, sizeBytes))
    }
    this.#missed.delete(key)
    this.#expected.delete(key)
    if (this.#restless.size > 0) this.#move()
  }

  /**
   * What a plan expects of an extent: a floor under its value until somebody asks for it; 0 lets it
   * go first.
   * @param here whether it is on disk; of one that is not, it is remembered until it comes or the
   * next plan begins (`expectAnew`).
   */
  expect(key: number, sizeBytes: number, requestsPerDay: number, here: boolean): void {
    if (!this.#loaded) return
    if (this.#policy.placeOf(key)) this.#apply(this.#policy.admit(key, sizeBytes, requestsPerDay), key)
    else if (!here) this.#expected.set(key, requestsPerDay)
  }

  expectAnew(): void {
    this.#expected.clear()
  }

  /** It could only be written elsewhere. */
  misplaced(key: number, sizeBytes: number, tier: DiskTier): void {
    if (this.#policy.placeOf(key)) this.#policy.adopt(key, sizeBytes, tier)
  }

  /** It was not written after all, or is gone. */
  forget(key: number): void {
    this.#passing.delete(key)
    this.#policy.remove(key)
  }

  hold(key: number, sizeBytes: number, why: Exemption): void {
    if (this.#loaded) this.#apply(this.#policy.exempt(key, sizeBytes, why), key)
  }

  release(key: number, why: Exemption): void {
    if (this.#loaded) this.#policy.release(key, why)
  }

  get capacityBytes(): number {
    return this.#capacity.capacityBytes
  }

  resize(capacityBytes: number, hotBytesMax: number): void {
    this.#capacity = { capacityBytes, hotBytesMax }
    if (this.#loaded) this.#apply(this.#policy.resize(capacityBytes, hotBytesMax))
  }

  /** The disk has less than was thought: so much has to leave. */
  shrinkBy(bytes: number): void {
    const capacityBytes = Math.max(0, this.#policy.usage().usedBytes - bytes)
    this.resize(capacityBytes, Math.min(this.#capacity.hotBytesMax, capacityBytes))
  }

  /** Resolves when every move that is due now has been made. */
  async settled(): Promise<void> {
    while (this.#moving) await this.#moving
  }

  async stop(): Promise<void> {
    this.#stopped = true
    await this.#moving
  }

  #introduce({ id, sizeBytes, tier, held }: BriefRow): void {
    const policy = this.#policy
    const known = policy.placeOf(id)
    if (!tier) {
      if (known) policy.remove(id)
      return
    }
    if (!known) policy.adopt(id, sizeBytes, tier)
    policy.release(id, 'inFill') // what was being written when the node went down
    for (const why of ['pinned', 'mustHave'] as const) if (!(held & HELD[why])) policy.release(id, why)
    this.#holdAll(id, sizeBytes, held)
    if (policy.placeOf(id) !== tier) {
      this.#restless.add(id)
      this.#move()
    }
  }

  #holdAll(key: number, sizeBytes: number, held: number): void {
    for (const why of ['pinned', 'mustHave'] as const) {
      if (held & HELD[why]) this.#apply(this.#policy.exempt(key, sizeBytes, why), key)
    }
  }

  #apply(
    { evict, demote, promote }: Pick<Decision, 'evict' | 'demote'> & Partial<Decision>,
    key?: number,
  ): void {
    for (const gone of evict) this.#restless.add(gone)
    for (const down of demote) this.#restless.add(down)
    if (promote && key !== undefined) this.#restless.add(key)
    if (this.#restless.size > 0) this.#move()
  }

  #move(): void {
    this.#moving ??= this.#moveAll().finally(() => {
      this.#moving = undefined
      if (this.#restless.size > 0 && !this.#stopped) this.#move()
    })
  }

  async #moveAll(): Promise<void> {
    while (!this.#stopped) {
      const keys = [...this.#restless].slice(0, ROWS_AT_ONCE)
      if (keys.length === 0) return
      const moves: Promise<void>[] = []
      for (const key of keys) {
        this.#restless.delete(key)
        const row = this.#parts.table.byId(key)
        if (row?.tier) moves.push(this.#parts.turns.take(row.cid, () => this.#follow(key)))
        if (moves.length >= 32) await Promise.allSettled(moves.splice(0))
      }
      await Promise.allSettled(moves)
    }
  }

  /** Makes the extent's place what the policy wants now. */
  async #follow(key: number): Promise<void> {
    const row = this.#parts.table.byId(key)
    if (!row?.tier) return
    const wanted = this.#policy.placeOf(key)
    if (wanted === row.tier || (wanted === null && this.#passing.has(key))) return
    try {
      if (wanted === null) await this.#evict(row)
      else await this.#moveTo(row, row.tier, wanted)
    } catch (error) {
      if (!isEdgeError(error)) throw error
      if (error.code === 'CHUNK_CORRUPT' || error.code === 'CHUNK_ABSENT') return // noted; healing brings it back
      // the tier cannot take it: it stays where it is, until the policy decides again
    }
  }

  async #evict(row: Located): Promise<void> {
    if (row.held !== 0) {
      this.#holdAll(row.id, row.sizeBytes, row.held) // I4, whatever the policy thought
      return
    }
    await removeExtent(this.#parts, row, 'evicted', 'to make room')
  }

  async #moveTo(row: Located, from: DiskTier, to: DiskTier): Promise<void> {
    const { files, reader, commits, table, openFiles, events } = this.#parts
    if (!row.small && !(await files[from].linkTo(files[to], row.cid))) {
      const bytes = await reader.readExtent(row.cid, { signal: new AbortController().signal })
      await files[to].write(row.cid, bytes)
    }
    await commits.commit(() => {
      table.setTier(row, to)
      events.add(
        to === 'hot' ? 'promoted' : 'demoted',
        row.cid,
        to === 'hot' ? 'asked for again' : 'to make room',
      )
    })
    if (row.small) return
    openFiles.drop(row.cid)
    await files[from].remove(row.cid)
  }
}

/** Row first, then the bytes: a crash in between leaves a file without a row, which start-up finds. */
export async function removeExtent(
  parts: Pick<
    TierParts,
    'table' | 'small' | 'files' | 'openFiles' | 'commits' | 'events' | 'quarantine' | 'onGone'
  >,
  row: Located,
  what: StoreEvent['what'],
  why: string,
): Promise<void> {
  await parts.commits.commit(() => {
    parts.table.setTier(row, null)
    if (row.small) parts.small.remove(row.id)
    parts.quarantine.clear(row.cid)
    parts.events.add(what, row.cid, why)
  })
  parts.openFiles.drop(row.cid)
  if (!row.small && row.tier) await parts.files[row.tier].remove(row.cid)
  parts.onGone(row.cid, row.sizeBytes)
}
