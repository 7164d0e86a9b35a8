/**
 * How content comes in: proven, placed, written durably, and only then known (I1, I3).
 *
 * Small extents share a transaction with whoever else waits; larger ones are a file each, written a
 * few at a time, and then a row.
 */
import { EdgeError, isEdgeError } from '../../manifests/errors.ts'
import { codecOf, type Cid } from '../../manifests/cid.ts'
import type { ChunkRule, DagNode } from '../../manifests/extent.ts'
import type { CommitQueue } from './commit-queue.ts'
import type { ExtentFiles } from './extent-files.ts'
import type { ExtentTable, Located } from './extent-table.ts'
import type { NodeTable } from './node-table.ts'
import type { OpenFiles } from './open-files.ts'
import { proveExtent } from './prove-extent.ts'
import type { Quarantine } from './quarantine.ts'
import { SMALL_BYTES_MAX } from './schema.ts'
import type { SmallBlocks } from './small-blocks.ts'
import type { Space } from './space.ts'
import { ASKED_FOR, type DiskTier } from './store.ts'
import type { Tiers } from './tiers.ts'

const WRITES_AT_ONCE = 4
const ROOM_ATTEMPTS = 2

export interface AdmissionParts {
  readonly table: ExtentTable
  readonly nodes: NodeTable
  readonly small: SmallBlocks
  readonly files: Readonly<Record<DiskTier, ExtentFiles>>
  readonly openFiles: OpenFiles
  readonly quarantine: Quarantine
  readonly commits: CommitQueue
  readonly tiers: Tiers
  readonly space: Space
  readonly now: () => number
}

export class Admission {
  readonly #parts: AdmissionParts
  readonly #adaptToDisk: () => Promise<void>
  #writing = 0
  readonly #waiting: (() => void)[] = []

  constructor(parts: AdmissionParts, adaptToDisk: () => Promise<void>) {
    this.#parts = parts
    this.#adaptToDisk = adaptToDisk
  }

  /** One at a time per extent. @returns false when it was here already. */
  async admit(cid: Cid, bytes: Uint8Array, rule: ChunkRule, why: string): Promise<boolean> {
    const { table, nodes, quarantine, tiers } = this.#parts
    const view = codecOf(cid) === 'raw' ? undefined : nodes.view(cid)
    const node = await proveExtent(cid, bytes, rule, view)
    const before = table.find(cid)
    if (before?.tier && !quarantine.isDamaged(cid) && (await this.#isThere(before, bytes.length))) {
      if (node) await this.#parts.commits.commit(() => nodes.insert(node))
      return false
    }

    const id = before?.id ?? table.idForNew(cid)
    let tier = await this.#place(id, bytes.length, why === ASKED_FOR && !before?.held)
    try {
      await this.#makeRoom(tier, bytes.length)
      if (bytes.length > SMALL_BYTES_MAX) tier = await this.#writeSomewhere(id, tier, cid, bytes)
      await this.#commit(id, cid, bytes, tier, node, before, why)
    } catch (error) {
      if (before?.tier) tiers.settle(id, bytes.length, before.held)
      else tiers.forget(id)
      throw error
    }
    this.#parts.space.took(tier, bytes.length)
    this.#parts.openFiles.drop(cid)
    if (before?.tier && before.tier !== tier && !before.small)
      await this.#parts.files[before.tier].remove(cid)
    tiers.settle(id, bytes.length, table.find(cid)?.held ?? 0)
    return true
  }

  /** What the books say may be too little by now: somebody may have given space back. */
  async #place(id: number, sizeBytes: number, isAskedFor: boolean): Promise<DiskTier> {
    const { tiers } = this.#parts
    try {
      return tiers.place(id, sizeBytes, isAskedFor)
    } catch (error) {
      if (!isEdgeError(error, 'STORE_FULL')) throw error
      await this.#adaptToDisk()
      return tiers.place(id, sizeBytes, isAskedFor)
    }
  }

  #commit(
    id: number,
    cid: Cid,
    bytes: Uint8Array,
    tier: DiskTier,
    node: DagNode | undefined,
    before: Located | undefined,
    why: string,
  ): Promise<void> {
    const { table, nodes, small, quarantine, commits, now } = this.#parts
    const isSmall = bytes.length <= SMALL_BYTES_MAX
    return commits.commit(() => {
      const extent = { id, cid, sizeBytes: bytes.length, tier, small: isSmall, held: before?.held ?? 0, why }
      table.insert({ ...extent, verifiedAtMs: now() })
      if (isSmall) small.put(id, cid, bytes)
      if (node) nodes.insert(node)
      quarantine.clear(cid)
    })
  }

  async #isThere(row: Located, sizeBytes: number): Promise<boolean> {
    if (row.small || !row.tier) return this.#parts.small.get(row.id)?.length === sizeBytes
    return (await this.#parts.files[row.tier].sizeOf(row.cid)) === sizeBytes
  }

  /** The disk may be fuller than the books say: then others leave first. @throws EdgeError `STORE_FULL` (I7) */
  async #makeRoom(tier: DiskTier, sizeBytes: number): Promise<void> {
    const { space, tiers } = this.#parts
    await space.measure()
    for (let attempt = 0; space.spareBytes(tier) < sizeBytes; attempt++) {
      const shortfall = sizeBytes - space.spareBytes(tier)
      if (attempt >= ROOM_ATTEMPTS) {
        throw new EdgeError(
          'STORE_FULL',
          `the disk is ${shortfall} bytes short of ${sizeBytes} and the reserve`,
        )
      }
      tiers.shrinkBy(shortfall)
      await tiers.settled()
      await space.measure(true)
    }
  }

  /** A tier whose disk has gone or turned read-only leaves the other one. */
  async #writeSomewhere(id: number, tier: DiskTier, cid: Cid, bytes: Uint8Array): Promise<DiskTier> {
    try {
      await this.#writeFile(tier, cid, bytes)
      return tier
    } catch (error) {
      if (isEdgeError(error, 'STORE_FULL')) throw error
      const other = tier === 'hot' ? 'warm' : 'hot'
      await this.#writeFile(other, cid, bytes).catch(() => {
        throw error
      })
      this.#parts.tiers.misplaced(id, bytes.length, other)
      return other
    }
  }

  async #writeFile(tier: DiskTier, cid: Cid, bytes: Uint8Array): Promise<void> {
    if (this.#writing >= WRITES_AT_ONCE) await new Promise<void>(resolve => this.#waiting.push(resolve))
    else this.#writing++
    try {
      await this.#parts.files[tier].write(cid, bytes)
    } finally {
      const next = this.#waiting.shift()
      if (next) next()
      else this.#writing--
    }
  }
}
