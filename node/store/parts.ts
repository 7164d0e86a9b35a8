/**
 * What a store is made of, joined together: every part, and what one does when another finds damage.
 */
import { randomUUID } from 'node:crypto'
import { join } from 'node:path'
import { LRUCache } from 'lru-cache'
import type { Cid } from '../../manifests/cid.ts'
import { isEdgeError } from '../../manifests/errors.ts'
import { CommitQueue } from './commit-queue.ts'
import { Database } from './database.ts'
import { EventLog } from './event-log.ts'
import { ExtentFiles } from './extent-files.ts'
import { ExtentReader } from './extent-reader.ts'
import { ExtentTable, type Located } from './extent-table.ts'
import { NodeTable } from './node-table.ts'
import { OpenFiles } from './open-files.ts'
import { LearnedPolicy } from './policy/learned-policy.ts'
import type { TierPolicy } from './policy/policy.ts'
import { PolicyMemory } from './policy-memory.ts'
import { Quarantine, type Damage } from './quarantine.ts'
import type { Salvage } from './salvage.ts'
import { nodeFromContent } from './prove-extent.ts'
import { SCHEMA } from './schema.ts'
import { SmallBlocks } from './small-blocks.ts'
import { Space } from './space.ts'
import type { DiskTier, StoreOptions, StoreWatcher } from './store.ts'
import { Tiers } from './tiers.ts'
import { Turns } from './turns.ts'

const OPEN_FILES_MAX = 256
const UNMAKEABLE_MS = 5000
/** A twentieth of the capacity, within these. */
const PASSING_BYTES_MIN = 16 * 1024 * 1024
const PASSING_BYTES_MAX = 256 * 1024 * 1024

export class StoreParts {
  readonly owner: boolean
  readonly now: () => number
  readonly files: Readonly<Record<DiskTier, ExtentFiles>>
  readonly database: Database
  readonly table: ExtentTable
  readonly nodes: NodeTable
  readonly small: SmallBlocks
  readonly openFiles: OpenFiles
  readonly quarantine: Quarantine
  readonly commits: CommitQueue
  readonly events: EventLog
  readonly reader: ExtentReader
  readonly space: Space
  readonly tiers: Tiers
  readonly memory: PolicyMemory
  readonly turns = new Turns<Cid>()
  readonly watchers: StoreWatcher[] = []
  /** Databases that were set aside and still have something to give. */
  readonly salvages: Salvage[] = []
  /** Rows are being made again: an extent without one may still be here. */
  rebuilding = false
  stopped = false
  readonly #options: StoreOptions
  /** Nodes that could not be made from content a moment ago. */
  readonly #unmakeable = new LRUCache<Cid, true>({ max: 1000, ttl: UNMAKEABLE_MS })

  /** @param onDamage the database was set aside (as a file, unless it was of no use) and is empty now. */
  constructor(options: StoreOptions, owner: boolean, onDamage: (asidePath: string | undefined) => void) {
    const { folder, warmFolder = join(folder, 'warm'), hotBytesMax, warmBytesMax, reserveBytes } = options
    this.#options = options
    this.owner = owner
    this.now = options.now ?? Date.now
    this.files = { hot: new ExtentFiles(join(folder, 'hot')), warm: new ExtentFiles(warmFolder) }
    if (owner) {
      this.files.hot.prepare()
      this.files.warm.prepare()
    }
    let opened = false
    let damagedAtStart: { aside: string | undefined } | undefined
    this.database = new Database({
      path: join(folder, 'node.db'),
      schema: SCHEMA,
      readOnly: !owner,
      derived: false,
      onDamage: (_cause, aside) => {
        if (!opened) damagedAtStart = { aside }
        else this.#begunAnew(() => onDamage(aside))
      },
    })
    this.table = new ExtentTable(this.database, !owner, cid => this.rebuilding && this.#adoptNow(cid))
    this.nodes = new NodeTable(
      this.database,
      cid => this.#nodeRotted(cid),
      cid => this.#lostNode(cid),
    )
    this.small = new SmallBlocks(this.database)
    this.openFiles = new OpenFiles(options.openFilesMax ?? OPEN_FILES_MAX)
    this.quarantine = new Quarantine(this.database, !owner)
    this.commits = new CommitQueue(this.database)
    this.events = new EventLog(this.database, this.now)
    this.memory = new PolicyMemory(this.database)
    this.reader = new ExtentReader({
      ...this.#shared(),
      onDamage: (cid, damage, why) => this.damaged(cid, damage, why),
      onMisplaced: (extent, tier) => this.#misplaced(extent, tier),
    })
    this.space = new Space(
      { folder: join(folder, 'hot'), warmFolder, hotBytesMax, warmBytesMax, reserveBytes },
      this.files,
    )
    this.tiers = new Tiers(
      {
        ...this.#shared(),
        reader: this.reader,
        onGone: (cid, bytes) => this.went(cid, bytes),
        passingBytesMax: options.passingBytesMax ?? passingBytesOf(hotBytesMax + warmBytesMax),
      },
      this.newPolicy(),
      hotBytesMax + warmBytesMax,
      hotBytesMax,
    )
    opened = true
    if (damagedAtStart) onDamage(damagedAtStart.aside)
  }

  /** Names this database; made with it. */
  get generation(): string {
    const known = this.database.get(`SELECT value FROM state WHERE name = 'generation'`)?.['value']
    if (typeof known === 'string' || !this.owner) return String(known ?? '')
    const made = randomUUID()
    this.database.run(`INSERT INTO state (name, value) VALUES ('generation', ?)`, made)
    return made
  }

  newPolicy(): TierPolicy {
    const { hotBytesMax, warmBytesMax, policy } = this.#options
    const capacityBytes = hotBytesMax + warmBytesMax
    return (
      policy?.(capacityBytes, hotBytesMax) ?? new LearnedPolicy({ capacityBytes, hotBytesMax, journal: true })
    )
  }

  /** Bytes failed their proof: nobody reads them again, and the extent counts as missing. */
  damaged(cid: Cid, damage: Damage, why: string): void {
    if (!this.owner) {
      // The owner replaces the file: the next read here opens that.
      this.openFiles.drop(cid)
      this.table.refresh(cid)
      return
    }
    if (this.quarantine.covers(cid, damage.first, damage.sizeBytes)) return
    this.quarantine.note(cid, damage)
    this.openFiles.drop(cid)
    this.commitQuietly(() => {
      this.quarantine.write(cid, damage, why)
      this.table.setDamaged(cid)
      this.events.add('quarantined', cid, `at ${damage.first}: ${why}`)
    })
    this.went(cid, this.table.find(cid)?.sizeBytes ?? 0)
  }

  came(cid: Cid, sizeBytes: number): void {
    for (const watcher of this.watchers) watcher.extentCame?.(cid, sizeBytes)
  }

  went(cid: Cid, sizeBytes: number): void {
    for (const watcher of this.watchers) watcher.extentWent?.(cid, sizeBytes)
  }

  /** For notes that may be lost: a full disk or a database under repair must not stop a read. */
  commitQuietly(work: () => void): void {
    this.commits.commit(work).catch(() => undefined)
  }

  #shared() {
    const { table, nodes, small, files, openFiles, quarantine, commits, events, turns, now } = this
    return { table, nodes, small, files, openFiles, quarantine, commits, events, turns, now }
  }

  #begunAnew(next: () => void): void {
    this.table.clear()
    this.nodes.clear()
    this.quarantine.reload()
    this.memory.clear()
    this.tiers.restart(this.newPolicy())
    for (const watcher of this.watchers) watcher.begunAnew?.()
    next()
  }

  /** An extent that a lost row knew: its file is still there. */
  #adoptNow(cid: Cid): boolean {
    const tier = (['hot', 'warm'] as const).find(each => this.files[each].has(cid))
    if (!tier) return false
    const sizeBytes = this.files[tier].sizeNow(cid)
    this.database.transaction(() =>
      this.table.insert({
        id: this.table.idForNew(cid),
        cid,
        sizeBytes,
        tier,
        small: false,
        held: 0,
        verifiedAtMs: 0,
        why: 'found on disk',
      }),
    )
    return true
  }

  /** A node that the table has lost: in a database set aside, or by cutting its extent again. */
  #lostNode(cid: Cid): Uint8Array | undefined {
    for (const salvage of this.salvages) {
      const bytes = salvage.findNode(cid)
      if (bytes) return bytes
    }
    if (!this.table.find(cid)?.tier || this.#unmakeable.has(cid)) return undefined
    const bytes = nodeFromContent(this.reader, cid)
    if (!bytes) this.#unmakeable.set(cid, true)
    else if (this.owner) this.commitQuietly(() => this.nodes.insert({ cid, bytes }))
    return bytes
  }

  #nodeRotted(cid: Cid): void {
    if (!this.owner) return
    this.commitQuietly(() => {
      this.nodes.removeWrong(cid)
      this.events.add('quarantined', cid, 'its node in the database is wrong')
    })
  }

  #misplaced(extent: Located, tier: DiskTier | null): void {
    if (!this.owner) return
    this.table.refresh(extent.cid)
    void this.#checkPlace(extent, tier).catch((error: unknown) => {
      if (!isEdgeError(error)) throw error
    })
  }

  /** The row follows the file, unless the disk that should have it is not there. */
  async #checkPlace(extent: Located, found: DiskTier | null): Promise<void> {
    if (!extent.small && extent.tier && !(await this.files[extent.tier].isThere())) return
    await this.turns.take(extent.cid, async () => {
      const row = this.table.find(extent.cid)
      if (row?.tier !== extent.tier || (row.tier && !row.small && this.files[row.tier].has(row.cid))) return
      await this.commits.commit(() => {
        this.table.setTier(row, found)
        this.events.add('damaged', row.cid, found ? `was in the ${found} tier` : 'its bytes are gone')
      })
      if (found) return
      this.tiers.forget(row.id)
      this.went(row.cid, row.sizeBytes)
    })
  }
}

function passingBytesOf(capacityBytes: number): number {
  return Math.min(Math.max(capacityBytes / 20, PASSING_BYTES_MIN), PASSING_BYTES_MAX)
}
