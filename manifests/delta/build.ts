/**
 * Builds a static delta (docs/delta.md): whatever the new release has and the older one has not,
 * as operations on the older one's bytes.
 *
 * Extents are gone through in catalog order, one in memory at a time, so an item may have any size.
 * Before a part is handed out it is applied and its extents are checked against their CIDs: a
 * delta that was published works. The same input gives the same bytes.
 */
import type { Cid } from '../cid.ts'
import type { ChunkRule, ExtentRef } from '../extent.ts'
import { Containers, INSIDE_BYTES_MAX } from './containers.ts'
import { draftOf, draftOfCopies, type Draft } from './draft.ts'
import { ExtentMatcher } from './extent-matcher.ts'
import {
  checkOf,
  DELTA_MAGIC,
  encodeHead,
  keyOf,
  type DeltaPart,
  type ItemChange,
  type NewExtent,
  type TableRun,
} from './head.ts'
import type { Matches } from './match-pool.ts'
import { OldBytes } from './old-bytes.ts'
import { OldLayout, type OldItem } from './old-layout.ts'
import { PartBuilder } from './part-builder.ts'
import { PartReader } from './rebuild.ts'
import type { ItemDag, ReleaseView } from './release-view.ts'

export interface DeltaSpool {
  /** Parts in order; they follow the head in the file, all but those that the head includes. */
  write(part: Uint8Array): Promise<void>
}

export interface BuiltDelta {
  /** Magic and head: the beginning of the file. What went to the spool follows. */
  readonly beginning: Uint8Array
  /** For the manifest. Bytes; `offset` is that of the head. */
  readonly directory: { readonly offset: number; readonly size: number; readonly rawSize: number }
  readonly sizeBytes: number
  readonly rebuiltExtents: number
  /** Extents that are new and in no part: nothing older is like them, the packs have them. */
  readonly omittedExtents: number
}

/** Extents like nothing before cost as much here as in a pack: only so much of them is taken in. */
const UNLIKE_BYTES_MAX = 8 * 1024 * 1024
const UNLIKE_EXTENT_BYTES_MIN = 1024 * 1024
const NEIGHBOUR_BYTES = 32 * 1024
/** A part ends with the extent that brings it so far. */
const FULL_LITERAL_BYTES = 768 * 1024
const FULL_DIFFERENCE_BYTES = 8 * 1024 * 1024
const FULL_INSIDE_BYTES = INSIDE_BYTES_MAX
const FULL_OPERATIONS = 200_000
const FULL_EXTENTS = 4096

export async function buildDelta(from: ReleaseView, to: ReleaseView, spool: DeltaSpool): Promise<BuiltDelta> {
  const layout = await OldLayout.of(from)
  const old = new OldBytes(layout, from)
  const matcher = await ExtentMatcher.over(layout, old, await goneExtents(layout, to))
  const builder = new DeltaBuilder(layout, old, matcher, to, spool)
  await builder.addCatalog()
  let ordinal = 0
  for await (const item of to.items()) await builder.addItem(item, ordinal++)
  return builder.end()
}

/** The whole file, in memory: for tests, benches and small releases. */
export async function deltaBytes(
  from: ReleaseView,
  to: ReleaseView,
): Promise<BuiltDelta & { readonly bytes: Buffer }> {
  const parts: Uint8Array[] = []
  const built = await buildDelta(from, to, { write: async part => void parts.push(part) })
  return { ...built, bytes: Buffer.concat([built.beginning, ...parts]) }
}

async function goneExtents(layout: OldLayout, to: ReleaseView): Promise<number[]> {
  const kept = new Set<number>()
  const keep = ({ extents }: ItemDag) => {
    for (const { cid } of extents) {
      const index = layout.extentIndexOf(cid)
      if (index !== undefined) kept.add(index)
    }
  }
  keep(to.catalog)
  for await (const item of to.items()) keep(item)
  return layout.extents.flatMap(({ cid }, index) =>
    layout.extentIndexOf(cid) === index && !kept.has(index) ? [index] : [],
  )
}

interface NewExtentPlace {
  readonly item: ItemDag
  /** Where the extent begins in the item. */
  readonly start: number
  readonly extent: ExtentRef
  readonly rule: ChunkRule
  readonly oldItem: OldItem | undefined
  /** Where its bytes would be in the older release if nothing had changed. */
  readonly expected: number
}

class DeltaBuilder {
  readonly #layout: OldLayout
  readonly #to: ReleaseView
  readonly #spool: DeltaSpool
  readonly #old: OldBytes
  readonly #matcher: ExtentMatcher
  readonly #containers: Containers
  readonly #partBuilder: PartBuilder
  readonly #changes: ItemChange[] = []
  /** By base index of the layout; becomes indexes of the head's list at the end. */
  readonly #needs: (readonly number[])[] = []
  readonly #parts: (Omit<DeltaPart, 'offset' | 'bases'> & { readonly bases: readonly number[] })[] = []
  readonly #catalogParts: Uint8Array[] = []
  readonly #seen = new Set<Cid>()
  #open: Draft[] = []
  #openOperations = 0
  #openLiterals = 0
  #openDifferences = 0
  #openInsides = 0
  #unlikeBytes = 0
  #omittedExtents = 0
  #spooledBytes = 0
  #inCatalog = true

  constructor(layout: OldLayout, old: OldBytes, matcher: ExtentMatcher, to: ReleaseView, spool: DeltaSpool) {
    this.#layout = layout
    this.#to = to
    this.#spool = spool
    this.#old = old
    this.#matcher = matcher
    this.#containers = new Containers(layout, old, to)
    this.#partBuilder = new PartBuilder(layout, this.#old)
  }

  async addCatalog(): Promise<void> {
    await this.#add(this.#to.catalog, -1, this.#layout.catalog, 'catalog-v1')
    await this.#endPart()
    this.#inCatalog = false
  }

  async addItem(item: ItemDag, ordinal: number): Promise<void> {
    await this.#add(item, ordinal, this.#layout.itemAt(item.path), 'fastcdc-v1')
  }

  async #add(item: ItemDag, ordinal: number, oldItem: OldItem | undefined, rule: ChunkRule): Promise<void> {
    if (this.#seen.has(item.root) || this.#layout.hasRoot(item.root)) return
    this.#seen.add(item.root)
    let expected = oldItem?.range.from ?? this.#layout.addressOfPath(item.path)
    if (item.extents.length === 1) {
      const [extent] = item.extents as [ExtentRef]
      if (this.#layout.has(extent.cid)) return
      const end = await this.#addExtent({ item, start: 0, extent, rule, oldItem, expected })
      if (end !== undefined) this.#changes.push({ ordinal })
      return
    }
    const table = new TableBuilder(this.#layout)
    let start = 0
    for (const extent of item.extents) {
      const kept = this.#layout.extentIndexOf(extent.cid)
      if (kept !== undefined) expected = table.keep(extent, kept, oldItem)
      else if (this.#seen.has(extent.cid)) table.add({ ...extent, rebuilt: false })
      else {
        this.#seen.add(extent.cid)
        const end = await this.#addExtent({ item, start, extent, rule, oldItem, expected })
        table.add({ ...extent, rebuilt: end !== undefined })
        expected = end ?? expected
      }
      start += extent.sizeBytes
    }
    this.#changes.push({ ordinal, table: table.done() })
  }

  /** @returns where the older release goes on after what the extent's end is like; undefined when it is left out. */
  async #addExtent({
    item,
    start,
    extent,
    rule,
    oldItem,
    expected,
  }: NewExtentPlace): Promise<number | undefined> {
    const anchors = this.#matcher.anchors(await this.#to.chunksOf(extent))
    // What has no predecessor is perhaps like its neighbours.
    const place = oldItem
      ? { from: expected, to: expected + extent.sizeBytes }
      : { from: expected - NEIGHBOUR_BYTES, to: expected + NEIGHBOUR_BYTES }
    const anchored = anchors.reduce((sum, { length }) => sum + length, 0) === extent.sizeBytes
    let draft: Draft
    if (anchored) draft = draftOfCopies(extent, rule, place, anchors)
    else {
      const bytes = await this.#to.readExtent(extent.cid)
      const matches = await this.#matcher.find(bytes, anchors, expected, oldItem)
      if (this.#isUnlike(extent, matches)) return undefined
      const inside =
        rule === 'fastcdc-v1'
          ? await this.#containers.insideOf(item, start, bytes, matches, oldItem)
          : undefined
      const { streams } = inside ?? { streams: [] }
      draft = await draftOf(
        extent,
        rule,
        place,
        inside?.bytes ?? bytes,
        inside?.matches ?? matches,
        streams,
        ranges => this.#old.read(ranges),
      )
    }
    this.#open.push(draft)
    this.#openOperations += draft.said.alike.operations.length
    this.#openLiterals += draft.said.few.literals.length
    this.#openDifferences += draft.said.alike.differences.length
    this.#openInsides += draft.streams.reduce((sum, { rawBytes }) => sum + rawBytes, 0)
    const full =
      this.#openLiterals >= FULL_LITERAL_BYTES ||
      this.#openDifferences >= FULL_DIFFERENCE_BYTES ||
      this.#openInsides >= FULL_INSIDE_BYTES ||
      this.#openOperations >= FULL_OPERATIONS ||
      this.#open.length >= FULL_EXTENTS
    if (full) await this.#endPart()
    return draft.end
  }

  #isUnlike({ sizeBytes }: ExtentRef, { alike }: Matches): boolean {
    if (this.#inCatalog || sizeBytes < UNLIKE_EXTENT_BYTES_MIN) return false
    if (alike.reduce((sum, { equalBytes }) => sum + equalBytes, 0) > sizeBytes / 20) return false
    this.#unlikeBytes += sizeBytes
    if (this.#unlikeBytes <= UNLIKE_BYTES_MAX) return false
    this.#omittedExtents += 1
    return true
  }

  async #endPart(): Promise<void> {
    if (this.#open.length === 0) return
    const { stored, bases, needs } = await this.#partBuilder.build(this.#open)
    await this.#prove(stored, bases)
    const [firstExtent, extentCount] = [this.#needs.length, this.#open.length]
    this.#parts.push({ storedBytes: stored.length, check: checkOf(stored), firstExtent, extentCount, bases })
    for (const list of needs) this.#needs.push(list)
    if (this.#inCatalog) this.#catalogParts.push(stored)
    else {
      await this.#spool.write(stored)
      this.#spooledBytes += stored.length
    }
    this.#open = []
    this.#openOperations = this.#openLiterals = this.#openDifferences = this.#openInsides = 0
  }

  /** Applies the part as an edge will. @throws EdgeError `DELTA_INVALID` */
  async #prove(stored: Uint8Array, bases: readonly number[]): Promise<void> {
    const sizes = bases.map(index => this.#layout.extents[index]!.sizeBytes)
    const reader = await PartReader.open(
      stored,
      this.#open.map(({ extent }) => extent.sizeBytes),
      sizes,
      // copied: the reader keeps windows, and a view of each would keep its whole extent
      async (base, offset, length) =>
        Uint8Array.prototype.slice.call(await this.#old.extent(bases[base]!), offset, offset + length),
    )
    for (const [at, { extent, rule }] of this.#open.entries()) await reader.verified(at, extent.cid, rule)
  }

  async end(): Promise<BuiltDelta> {
    await this.#endPart()
    const used = [...new Set(this.#parts.flatMap(({ bases }) => bases))].sort((a, b) => a - b)
    const indexOf = new Map(used.map((base, index) => [base, index]))
    const renumbered = (bases: readonly number[]) => bases.map(base => indexOf.get(base)!)
    const { bytes, rawSize } = await encodeHead(
      {
        bases: used.map(index => {
          const { cid, sizeBytes } = this.#layout.extents[index]!
          return { key: keyOf(cid), sizeBytes }
        }),
        parts: this.#parts.map(part => ({ ...part, offset: 0, bases: renumbered(part.bases) })),
        catalogParts: this.#catalogParts.length,
        changes: this.#changes,
        needs: this.#needs.map(renumbered),
      },
      this.#catalogParts,
    )
    const beginning = Buffer.concat([DELTA_MAGIC, bytes])
    return {
      beginning,
      directory: { offset: DELTA_MAGIC.length, size: bytes.length, rawSize },
      sizeBytes: beginning.length + this.#spooledBytes,
      rebuiltExtents: this.#needs.length,
      omittedExtents: this.#omittedExtents,
    }
  }
}

class TableBuilder {
  readonly #layout: OldLayout
  readonly #roots: Cid[] = []
  readonly #runs: TableRun[] = []

  constructor(layout: OldLayout) {
    this.#layout = layout
  }

  /** @returns the address after the kept extent. */
  keep(extent: ExtentRef, index: number, oldItem: OldItem | undefined): number {
    const { address, sizeBytes } = this.#layout.extents[index]!
    const owner = this.#layout.ownerOf(index, oldItem)
    if (owner && owner.item.extentCount > 1) this.#keepOf(owner.item.root, owner.position)
    else this.add({ ...extent, rebuilt: false })
    return address + sizeBytes
  }

  #keepOf(rootCid: Cid, position: number): void {
    let root = this.#roots.indexOf(rootCid)
    if (root < 0) root = this.#roots.push(rootCid) - 1
    const last = this.#runs.at(-1)
    if (last?.kind === 'keep' && last.root === root && last.first + last.count === position) {
      this.#runs[this.#runs.length - 1] = { ...last, count: last.count + 1 }
    } else this.#runs.push({ kind: 'keep', root, first: position, count: 1 })
  }

  add(extent: NewExtent): void {
    const last = this.#runs.at(-1)
    const { cid, sizeBytes, dagBytes, rebuilt } = extent
    const added = { cid, sizeBytes, dagBytes, rebuilt }
    if (last?.kind === 'new')
      this.#runs[this.#runs.length - 1] = { kind: 'new', extents: [...last.extents, added] }
    else this.#runs.push({ kind: 'new', extents: [added] })
  }

  done(): NonNullable<ItemChange['table']> {
    return { oldRoots: this.#roots.map(keyOf), runs: this.#runs }
  }
}
