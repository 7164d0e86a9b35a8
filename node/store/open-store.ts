/**
 * The store over a folder:
 *
 *   owner.lock · store-format · node.db · hot/extents-v1/ · warm/extents-v1/ · ballast
 *
 * Opening takes the lock and the database, and looks at nothing else: whatever needs a round over
 * the store runs in the background while content is served (`upkeep.ts`).
 */
import { mkdirSync } from 'node:fs'
import { rawCidOf, type Cid } from '../../manifests/cid.ts'
import { sha256Of } from '../../manifests/digest.ts'
import { EdgeError, isEdgeError } from '../../manifests/errors.ts'
import type { Abortable, ChunkRef, ChunkRule, DagNode } from '../../manifests/extent.ts'
import { Admission } from './admission.ts'
import { dropBallast } from './ballast.ts'
import { isFullError, isReadOnlyError, systemCodeOf } from './disk-errors.ts'
import { checkFormat } from './format-mark.ts'
import { Healer } from './healer.ts'
import { lockStore } from './lock.ts'
import { proveBlock } from './node-table.ts'
import type { NodeView } from './node-view.ts'
import { StoreParts } from './parts.ts'
import { Reservations, type Reservation } from './reservations.ts'
import { retainOnly } from './retain.ts'
import { HELD } from './schema.ts'
import { scrub } from './scrubber.ts'
import type {
  ContentStore,
  DiskTier,
  Expected,
  HealSource,
  Hold,
  NumberedNode,
  StoreEvent,
  StoreOptions,
  StoreUsage,
  StoreWatcher,
  VerifyOptions,
  VerifyProgress,
  Wanted,
} from './store.ts'
import { removeExtent } from './tiers.ts'
import { Upkeep } from './upkeep.ts'

/** The item of no bytes: here without being stored. */
const EMPTY = rawCidOf(sha256Of(''))
const HEAL_MS = 2000
const NODES_AT_ONCE = 100
const HOLDS_AT_ONCE = 200
const TOLD_AT_ONCE = 500

/** @throws EdgeError `STORE_LOCKED`, `STORE_READ_ONLY`, `STORE_FORMAT`, `STORE_FULL` */
export async function openStore(options: StoreOptions): Promise<ContentStore> {
  const owner = options.mode !== 'reader'
  if (owner) makeFolder(options.folder)
  try {
    return await openOnce(options, owner)
  } catch (error) {
    // a full disk has the ballast to give, so that the node starts (I7)
    const full = isFullError(error) || isEdgeError(error, 'STORE_FULL')
    if (!full || !owner || !dropBallast(options.folder)) throw error
    return openOnce(options, owner)
  }
}

async function openOnce(options: StoreOptions, owner: boolean): Promise<ContentStore> {
  const lock = owner ? lockStore(options.folder) : undefined
  try {
    await checkFormat(options.folder, owner)
    return new TowerStore(options, lock)
  } catch (error) {
    lock?.[Symbol.dispose]()
    throw error
  }
}

class TowerStore implements ContentStore {
  readonly folder: string
  readonly #options: StoreOptions
  readonly #lock: Disposable | undefined
  readonly #parts: StoreParts
  readonly #upkeep: Upkeep
  readonly #admission: Admission
  readonly #healer: Healer
  readonly #reservations = new Reservations()
  #closing: Promise<void> | undefined

  constructor(options: StoreOptions, lock: Disposable | undefined) {
    this.folder = options.folder
    this.#options = options
    this.#lock = lock
    let upkeep: Upkeep | undefined
    let aside: string | undefined
    this.#parts = new StoreParts(options, lock !== undefined, path => {
      if (upkeep) upkeep.start(path)
      else aside = path
    })
    upkeep = new Upkeep(this.#parts, options)
    this.#upkeep = upkeep
    this.#admission = new Admission(this.#parts, () => this.#upkeep.adaptToDisk(true))
    this.#healer = new Healer({
      nodes: this.#parts.nodes,
      reader: this.#parts.reader,
      healMs: options.healMs ?? HEAL_MS,
      isHere: cid => this.has(cid),
      admit: (cid, bytes, source) => this.#admitHealed(cid, bytes, source),
      admitNode: (node, source) => this.#admitHealedNode(node, source),
    })
    upkeep.start(aside)
  }

  get generation(): string {
    return this.#parts.generation
  }

  has(cid: Cid): boolean {
    return this.tierOf(cid) !== null && !this.#parts.quarantine.isDamaged(cid)
  }

  absentOf(cids: readonly Cid[]): Set<Cid> {
    const absent = this.#parts.table.absentOf(cids)
    absent.delete(EMPTY)
    if (this.#parts.rebuilding) for (const cid of absent) if (this.has(cid)) absent.delete(cid)
    return absent
  }

  tierOf(cid: Cid): DiskTier | null {
    return cid === EMPTY ? 'hot' : (this.#parts.table.find(cid)?.tier ?? null)
  }

  cidOfKey(key: string): Cid | undefined {
    return this.#parts.nodes.cidOfKey(key) ?? this.#parts.table.cidOfKey(key)
  }

  verifiedAtOf(cid: Cid): number | undefined {
    const row = this.#parts.table.find(cid)
    return row?.tier && row.verifiedAtMs > 0 ? row.verifiedAtMs : undefined
  }

  touch(cid: Cid, sizeBytes: number): void {
    if (!this.#parts.owner || cid === EMPTY) return
    const row = this.#parts.table.find(cid)
    this.#parts.tiers.touch(row?.id ?? this.#parts.table.idForNew(cid), sizeBytes, row?.tier != null)
  }

  async expect(expected: Iterable<Expected>): Promise<void> {
    if (!this.#parts.owner) return
    const { table, tiers } = this.#parts
    tiers.expectAnew()
    let told = 0
    for (const { cid, sizeBytes, requestsPerDay } of expected) {
      const row = table.find(cid)
      if (!row?.tier && requestsPerDay === 0) continue
      tiers.expect(row?.id ?? table.idForNew(cid), sizeBytes, requestsPerDay, row?.tier != null)
      if (++told % TOLD_AT_ONCE === 0) await new Promise(resolve => setImmediate(resolve))
    }
  }

  node(cid: Cid): Uint8Array | undefined {
    return this.#parts.nodes.bytes(cid)
  }

  view(cid: Cid): NodeView | undefined {
    return this.#parts.nodes.view(cid)
  }

  nodesAfter(after: number, limit: number): readonly NumberedNode[] {
    return this.#parts.nodes.numberedAfter(after, limit)
  }

  nodeNumbered(number: number): Cid | undefined {
    return this.#parts.nodes.numbered(number)
  }

  async admitNodes(nodes: Iterable<DagNode>): Promise<void> {
    this.#mustOwn()
    let group: DagNode[] = []
    const stored: Promise<void>[] = []
    for (const node of nodes) {
      proveBlock(node)
      if (this.#parts.nodes.bytes(node.cid)) continue
      group.push(node)
      if (group.length >= NODES_AT_ONCE) stored.push(this.#storeNodes(group.splice(0)))
    }
    if (group.length > 0) stored.push(this.#storeNodes(group))
    await Promise.all(stored)
  }

  async admitExtent(cid: Cid, bytes: Uint8Array, rule: ChunkRule, why: string): Promise<void> {
    this.#mustOwn()
    if (cid === EMPTY) return
    await this.#upkeep.ready
    const came = await this.#parts.turns.take(cid, () => this.#admission.admit(cid, bytes, rule, why))
    if (came) this.#parts.came(cid, bytes.length)
  }

  readChunkInto(extent: Cid, offset: number, chunk: ChunkRef, buffer: Buffer): void {
    if (extent !== EMPTY) this.#parts.reader.readChunkInto(extent, offset, chunk, buffer)
  }

  async readChunk(
    extent: Cid,
    offset: number,
    chunk: ChunkRef,
    buffer: Buffer,
    options: Abortable,
  ): Promise<void> {
    if (extent !== EMPTY) await this.#parts.reader.readChunk(extent, offset, chunk, buffer, options)
  }

  async readExtent(cid: Cid, options: Abortable): Promise<Buffer> {
    return cid === EMPTY ? Buffer.alloc(0) : this.#parts.reader.readExtent(cid, options)
  }

  async readRange(cid: Cid, offset: number, length: number, options: Abortable): Promise<Buffer> {
    return this.#parts.reader.readRange(cid, offset, offset + length, options)
  }

  quarantine(cid: Cid, why: string, chunk?: { readonly offset: number; readonly sizeBytes: number }): void {
    const sizeBytes = chunk?.sizeBytes ?? this.#parts.table.find(cid)?.sizeBytes ?? 0
    this.#parts.damaged(cid, { first: chunk?.offset ?? 0, sizeBytes }, why)
  }

  async healChunk(extent: Cid, offset: number, chunk: ChunkRef, options: Abortable): Promise<Buffer> {
    if (extent === EMPTY) return Buffer.alloc(0)
    const { healElsewhere } = this.#options
    if (healElsewhere && !this.#parts.owner) {
      const bytes = await healElsewhere(extent, offset, chunk, options)
      if (sha256Of(bytes) === chunk.digest) return bytes
      throw new EdgeError('CHUNK_CORRUPT', `chunk ${chunk.digest} as the owner gave it`)
    }
    this.#mustOwn()
    return this.#healer.chunk(extent, offset, chunk, options)
  }

  async healNode(cid: Cid, options: Abortable): Promise<Uint8Array> {
    this.#mustOwn()
    return this.#healer.node(cid, options)
  }

  onHeal(source: HealSource): void {
    this.#healer.addSource(source)
  }

  async hold(cids: Iterable<Cid>, why: Hold): Promise<void> {
    const { table, tiers } = this.#parts
    const fresh = [...cids].filter(cid => ((table.find(cid)?.held ?? 0) & HELD[why]) === 0)
    await this.#inGroups(fresh, cid => table.setHeld(cid, why))
    await this.#upkeep.ready
    for (const cid of fresh) {
      const row = table.find(cid)
      if (row?.tier) tiers.hold(row.id, row.sizeBytes, why)
    }
  }

  async release(cids: Iterable<Cid>, why: Hold): Promise<void> {
    const { table, tiers } = this.#parts
    const held = [...cids].filter(cid => ((table.find(cid)?.held ?? 0) & HELD[why]) !== 0)
    await this.#inGroups(held, cid => table.unsetHeld(cid, why))
    await this.#upkeep.ready
    for (const cid of held) {
      const row = table.find(cid)
      if (row) tiers.release(row.id, why)
    }
  }

  async remove(cids: Iterable<Cid>, why: string): Promise<number> {
    this.#mustOwn()
    let freed = 0
    const leaving: Promise<void>[] = []
    for (const cid of cids) {
      leaving.push(
        this.#parts.turns.take(cid, async () => {
          const row = this.#parts.table.find(cid)
          if (row && row.held !== 0) return
          if (row?.tier) {
            const onGone = (gone: Cid, bytes: number) => this.#parts.went(gone, bytes)
            await removeExtent({ ...this.#parts, onGone }, row, 'removed', why)
            this.#parts.tiers.forget(row.id)
            freed += row.sizeBytes
          }
          await this.#parts.commits.commit(() => this.#parts.nodes.remove(cid))
        }),
      )
      if (leaving.length >= HOLDS_AT_ONCE) await Promise.all(leaving.splice(0))
    }
    await Promise.all(leaving)
    return freed
  }

  async retain(wanted: Wanted, why: string): Promise<number> {
    this.#mustOwn()
    return retainOnly(this.#parts, wanted, (cids, reason) => this.remove(cids, reason), why)
  }

  async reserve(bytes: number, why: string): Promise<Reservation> {
    this.#mustOwn()
    await this.#upkeep.ready
    await this.#upkeep.adaptToDisk(true)
    const { exemptBytes } = this.#parts.tiers.policy.usage()
    return this.#reservations.reserve(bytes, this.#parts.tiers.capacityBytes - exemptBytes, why)
  }

  async *verify(options: VerifyOptions): AsyncGenerator<VerifyProgress> {
    await this.#upkeep.settled()
    yield* scrub(
      {
        ...this.#parts,
        healExtent: cid => this.#healer.extent(cid, options),
        healNode: cid =>
          this.#healer.node(cid, options).then(
            () => true,
            () => false,
          ),
      },
      options,
    )
  }

  usage(): StoreUsage {
    const { table, tiers, space, events, quarantine } = this.#parts
    const { usedBytes, hotBytes, exemptBytes } = tiers.policy.usage()
    const { extents, verifiedSinceMs } = table.totals()
    return {
      extents,
      hotBytes,
      hotBytesMax: this.#options.hotBytesMax,
      warmBytes: usedBytes - hotBytes,
      warmBytesMax: this.#options.warmBytesMax,
      capacityBytes: tiers.capacityBytes,
      heldBytes: exemptBytes,
      reservedBytes: this.#reservations.bytes,
      quarantined: quarantine.size,
      healed: events.healed,
      healedBy: events.healedBy(),
      heals: events.heals(),
      freeBytes: space.freeBytes,
      reserveBytes: this.#options.reserveBytes,
      verifiedSince: verifiedSinceMs,
    }
  }

  events(limit: number): readonly StoreEvent[] {
    return this.#parts.events.last(limit)
  }

  watch(watcher: StoreWatcher): void {
    this.#parts.watchers.push(watcher)
  }

  settled(): Promise<void> {
    return this.#upkeep.settled()
  }

  [Symbol.asyncDispose](): Promise<void> {
    this.#closing ??= this.#close()
    return this.#closing
  }

  async #close(): Promise<void> {
    this.#parts.stopped = true
    await this.#parts.tiers.stop()
    await this.#upkeep.stop()
    this.#parts.commits.flush()
    for (const salvage of this.#parts.salvages) salvage[Symbol.dispose]()
    this.#parts.openFiles[Symbol.dispose]()
    this.#parts.database[Symbol.dispose]()
    this.#lock?.[Symbol.dispose]()
  }

  async #admitHealed(cid: Cid, bytes: Uint8Array, source: string): Promise<void> {
    await this.admitExtent(cid, bytes, 'fastcdc-v1', `heal: ${source}`)
    this.#parts.commitQuietly(() => this.#parts.events.add('healed', cid, `from ${source}`))
  }

  async #admitHealedNode(node: DagNode, source: string): Promise<void> {
    await this.admitNodes([node])
    this.#parts.commitQuietly(() => this.#parts.events.add('healed', node.cid, `from ${source}`))
  }

  async #storeNodes(group: readonly DagNode[]): Promise<void> {
    const { nodes, commits, watchers } = this.#parts
    await commits.commit(() => {
      for (const node of group) nodes.insert(node)
    })
    for (const { cid } of group) for (const watcher of watchers) watcher.nodeCame?.(cid)
  }

  async #inGroups(cids: Iterable<Cid>, work: (cid: Cid) => void): Promise<void> {
    this.#mustOwn()
    let group: Cid[] = []
    const store = (taken: readonly Cid[]) => this.#parts.commits.commit(() => taken.forEach(work))
    for (const cid of cids) {
      group.push(cid)
      if (group.length < HOLDS_AT_ONCE) continue
      await store(group)
      group = []
    }
    if (group.length > 0) await store(group)
  }

  #mustOwn(): void {
    if (this.#closing) throw new EdgeError('NOT_READY', 'the store is closed')
    if (!this.#parts.owner)
      throw new EdgeError('STORE_READ_ONLY', 'this process only reads: another one owns the store')
  }
}

function makeFolder(folder: string): void {
  try {
    mkdirSync(folder, { recursive: true })
  } catch (cause) {
    const isTaken = ['EEXIST', 'ENOTDIR'].includes(systemCodeOf(cause) ?? '')
    if (!isTaken && !isReadOnlyError(cause)) throw cause
    const why = isTaken ? 'a file is in its place' : "give the node's user write access"
    throw new EdgeError('STORE_READ_ONLY', `${folder} cannot be made: ${why}`, { cause })
  }
}
