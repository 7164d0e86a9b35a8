/**
 * A static delta as an edge uses it: first its head, which names what it rebuilds, what that needs
 * and where the bytes are; then extents, part by part. The format is docs/delta.md.
 *
 *   const delta = await StaticDelta.open(head, ref)
 *   const nodes = delta.nameCatalog(manifest.catalog, oldExtentsOf)   // then rebuild the catalog
 *   const more = delta.nameItems(entries, oldExtentsOf)               // then everything else
 *   delta.recipeOf(cid)                                               // spans and bases: for the planner
 *   await delta.rebuild(cid, readDelta, readBase)
 *
 * Every failure is `DELTA_INVALID` or `DELTA_BASE_ABSENT`: take the full frame instead.
 */
import { LRUCache } from 'lru-cache'
import type { Cid } from '../cid.ts'
import { sha256Of } from '../digest.ts'
import { EdgeError } from '../errors.ts'
import type { ChunkRule, DagNode, ExtentRef } from '../extent.ts'
import type { DirectoryRef } from '../manifest.ts'
import { EXTENT_BYTES_MAX, itemDag } from '../unixfs.ts'
import { checkOf, type DeltaBase, type DeltaHead, type DeltaPart, parseHead, rebuiltOf } from './head.ts'
import { PartReader } from './rebuild.ts'
import { invalid } from './section.ts'

/** Enough of a catalog entry, or of the manifest's catalog, to name an item. */
export interface NamedItem {
  readonly root: Cid
  readonly sizeBytes: number
}

/** The extents of an older item by the key (8 bytes, hex) of its root; undefined when its nodes are not here. */
export type OldExtentsOf = (rootKey: string) => readonly ExtentRef[] | undefined
/** Bytes of the delta's file. */
export type ReadDelta = (offset: number, length: number) => Promise<Uint8Array>
/** Verified bytes of a base. @throws EdgeError `DELTA_BASE_ABSENT` */
export type ReadBase = (base: DeltaBase, offset: number, length: number) => Promise<Uint8Array>

export interface Recipe {
  /** Where the part is in the delta's file. Extents may share one: it is to be fetched once. */
  readonly span: { readonly offset: number; readonly length: number }
  /** All of them must be here. */
  readonly bases: readonly DeltaBase[]
}

interface Rebuilt {
  readonly cid: Cid
  readonly sizeBytes: number
  readonly rule: ChunkRule
  /** Its place among all rebuilt extents. */
  readonly index: number
  readonly part: number
}

/** Opened parts that are kept: 10 MiB of literals and 16 MiB of bases each, at most. */
const OPEN_PARTS_MAX = 1

export class StaticDelta {
  readonly #head: DeltaHead
  /** Index of each change's first rebuilt extent. */
  readonly #starts: readonly number[]
  /** Of each rebuilt extent. */
  readonly #partOf: readonly number[]
  readonly #rebuilt = new Map<Cid, Rebuilt>()
  /** In the order of the head; filled as items are named. */
  readonly #sizes: (number | undefined)[] = []
  readonly #open = new LRUCache<number, Promise<PartReader>>({ max: OPEN_PARTS_MAX })

  private constructor(head: DeltaHead) {
    this.#head = head
    let extent = 0
    this.#starts = head.changes.map(change => {
      const own = extent
      extent += rebuiltOf(change)
      return own
    })
    this.#partOf = head.parts.flatMap(({ extentCount }, part) => new Array<number>(extentCount).fill(part))
  }

  /**
   * @param head exactly the bytes that `ref` is about.
   * @throws EdgeError `DELTA_INVALID` when they are others, or make no sense.
   */
  static async open(head: Uint8Array, ref: DirectoryRef): Promise<StaticDelta> {
    if (head.length !== ref.size || sha256Of(head) !== ref.sha256)
      throw invalid(`its head is not the one signed, ${ref.sha256}`)
    return new StaticDelta(await parseHead(head, ref.rawSize))
  }

  get bases(): readonly DeltaBase[] {
    return this.#head.bases
  }

  /** Extents that can be rebuilt, of what was named so far. */
  get extents(): ReadonlyMap<
    Cid,
    { readonly cid: Cid; readonly sizeBytes: number; readonly rule: ChunkRule }
  > {
    return this.#rebuilt
  }

  /**
   * Makes the new catalog's extents known, and gives the nodes above them, verified.
   * @throws EdgeError `DELTA_BASE_ABSENT` when a catalog of several extents keeps some of a catalog that is not here.
   */
  nameCatalog(catalog: NamedItem, oldExtentsOf: OldExtentsOf): DagNode[] {
    const at = this.#head.changes.findIndex(({ ordinal }) => ordinal === -1)
    if (at < 0) return []
    const nodes = this.#name(at, catalog, 'catalog-v1', oldExtentsOf)
    if (!nodes)
      throw new EdgeError(
        'DELTA_BASE_ABSENT',
        'the older catalog, of which the new one keeps parts, is not here',
      )
    return nodes
  }

  /**
   * Makes the extents of changed items known, and gives the nodes above them, verified. An item
   * that keeps extents of one whose nodes are not here is passed over: its nodes are in the packs.
   *
   * @param entries the whole new catalog, in order.
   * @throws EdgeError `DELTA_INVALID` when the delta is not one for this catalog.
   */
  nameItems(entries: readonly NamedItem[], oldExtentsOf: OldExtentsOf): DagNode[] {
    return this.#head.changes.flatMap(({ ordinal }, at) => {
      if (ordinal === -1) return []
      const entry = entries[ordinal]
      if (!entry) throw invalid(`the catalog has no item ${ordinal}`)
      return this.#name(at, entry, 'fastcdc-v1', oldExtentsOf) ?? []
    })
  }

  /** What rebuilding an extent takes; undefined when this delta cannot, or its item was not named. */
  recipeOf(cid: Cid): Recipe | undefined {
    const rebuilt = this.#rebuilt.get(cid)
    if (!rebuilt) return undefined
    const { offset, storedBytes } = this.#head.parts[rebuilt.part]!
    const needs = this.#head.needs[rebuilt.index]!
    return { span: { offset, length: storedBytes }, bases: needs.map(base => this.#head.bases[base]!) }
  }

  /**
   * An extent's bytes, verified. Extents of one part are best asked for one after another: the last
   * part used is kept.
   *
   * @throws EdgeError `DELTA_INVALID`, `DELTA_BASE_ABSENT`; what `read` throws
   */
  async rebuild(cid: Cid, read: ReadDelta, readBase: ReadBase): Promise<Uint8Array> {
    const rebuilt = this.#rebuilt.get(cid)
    if (!rebuilt) throw invalid(`it does not rebuild ${cid}`)
    const reader = await this.#readerOf(rebuilt.part, read, readBase)
    return reader.verified(rebuilt.index - this.#head.parts[rebuilt.part]!.firstExtent, cid, rebuilt.rule)
  }

  #readerOf(part: number, read: ReadDelta, readBase: ReadBase): Promise<PartReader> {
    const kept = this.#open.get(part)
    if (kept) return kept
    const opened = this.#openPart(this.#head.parts[part]!, read, readBase)
    this.#open.set(part, opened)
    opened.catch(() => this.#open.delete(part))
    return opened
  }

  async #openPart(part: DeltaPart, read: ReadDelta, readBase: ReadBase): Promise<PartReader> {
    const stored = await read(part.offset, part.storedBytes)
    if (stored.length !== part.storedBytes || Buffer.compare(checkOf(stored), part.check) !== 0) {
      throw invalid(`the part at ${part.offset} is damaged`)
    }
    const bases = part.bases.map(base => this.#head.bases[base]!)
    const sizes = Array.from({ length: part.extentCount }, (_, at) => {
      const size = this.#sizes[part.firstExtent + at]
      if (size === undefined) throw invalid('items of a part were not named')
      return size
    })
    return PartReader.open(
      stored,
      sizes,
      bases.map(({ sizeBytes }) => sizeBytes),
      (base, offset, length) => readBase(bases[base]!, offset, length),
    )
  }

  /** @returns the nodes above the item's extents; undefined when kept extents are not known here. */
  #name(at: number, item: NamedItem, rule: ChunkRule, oldExtentsOf: OldExtentsOf): DagNode[] | undefined {
    const { table } = this.#head.changes[at]!
    let index = this.#starts[at]!
    const add = (cid: Cid, sizeBytes: number) => {
      if (sizeBytes > EXTENT_BYTES_MAX) throw invalid(`an extent of ${sizeBytes} bytes`)
      this.#sizes[index] = sizeBytes
      this.#rebuilt.set(cid, { cid, sizeBytes, rule, index, part: this.#partOf[index]! })
      index += 1
    }
    if (!table) {
      add(item.root, item.sizeBytes)
      return []
    }
    for (const run of table.runs) {
      if (run.kind === 'new')
        for (const extent of run.extents) if (extent.rebuilt) add(extent.cid, extent.sizeBytes)
    }
    const extents: ExtentRef[] = []
    for (const run of table.runs) {
      if (run.kind === 'new') {
        extents.push(...run.extents)
        continue
      }
      const old = oldExtentsOf(table.oldRoots[run.root]!)
      if (!old) return undefined
      const kept = old.slice(run.first, run.first + run.count)
      if (kept.length !== run.count) throw invalid('it keeps extents that the older item has not')
      extents.push(...kept)
    }
    const { root, nodes } = itemDag(extents)
    if (root !== item.root) throw invalid(`its extents make another item than ${item.root}`)
    return nodes
  }
}
