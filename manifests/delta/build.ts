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
import { ExtentMatcher, type Found } from './extent-matcher.ts'
import { checkOf, DELTA_MAGIC, encodeHead, keyOf, type DeltaPart, type ItemChange, type NewExtent, type TableRun } from './head.ts'
import { Literals } from './literals.ts'
import { OldBytes } from './old-bytes.ts'
import { OldLayout, type OldItem } from './old-layout.ts'
import { encodePart, FRAME_RAW_BYTES_MAX, type Operation, type PartFrame } from './part.ts'
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

/** Copies shorter than this are left to zstd, which says them shorter. */
const COPY_BYTES_MIN = 512
/** Extents like nothing before cost as much here as in a pack: only so much of them is taken in. */
const UNLIKE_BYTES_MAX = 8 * 1024 * 1024
const UNLIKE_EXTENT_BYTES_MIN = 1024 * 1024
/** A part ends when it has so many extents or operations, however few literals. */
const PART_EXTENTS_MAX = 4096
const PART_OPERATIONS_MAX = 200_000

export async function buildDelta(from: ReleaseView, to: ReleaseView, spool: DeltaSpool): Promise<BuiltDelta> {
  const layout = await OldLayout.of(from)
  const builder = new DeltaBuilder(layout, from, to, spool, await goneExtents(layout, to))
  await builder.addCatalog()
  let ordinal = 0
  for await (const item of to.items()) await builder.addItem(item, ordinal++)
  return builder.end()
}

/** The whole file, in memory: for tests, benches and small releases. */
export async function deltaBytes(from: ReleaseView, to: ReleaseView): Promise<BuiltDelta & { readonly bytes: Buffer }> {
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
  return layout.extents.flatMap(({ cid }, index) => (layout.extentIndexOf(cid) === index && !kept.has(index) ? [index] : []))
}

interface BuiltExtent {
  readonly extent: ExtentRef
  readonly rule: ChunkRule
  /** Addresses are those of the layout. */
  readonly operations: readonly Operation[]
}

class DeltaBuilder {
  readonly #layout: OldLayout
  readonly #to: ReleaseView
  readonly #spool: DeltaSpool
  readonly #old: OldBytes
  readonly #matcher: ExtentMatcher
  readonly #literals: Literals
  readonly #changes: ItemChange[] = []
  /** By base index of the layout; becomes indexes of the head's list at the end. */
  readonly #needs: number[][] = []
  readonly #parts: (Omit<DeltaPart, 'offset' | 'bases'> & { readonly bases: readonly number[] })[] = []
  readonly #catalogParts: Uint8Array[] = []
  readonly #seen = new Set<Cid>()
  #open: BuiltExtent[] = []
  #openOperations = 0
  #unlikeBytes = 0
  #omittedExtents = 0
  #spooledBytes = 0
  #inCatalog = true

  constructor(layout: OldLayout, from: ReleaseView, to: ReleaseView, spool: DeltaSpool, gone: readonly number[]) {
    this.#layout = layout
    this.#to = to
    this.#spool = spool
    this.#old = new OldBytes(layout, from)
    this.#matcher = new ExtentMatcher(layout, this.#old, gone)
    this.#literals = new Literals(layout, this.#old)
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
    if (item.extents.length === 1) {
      const [extent] = item.extents as [ExtentRef]
      if (this.#layout.has(extent.cid)) return
      const rebuilt = await this.#addExtent(extent, rule, oldItem, oldItem?.range.from ?? this.#layout.addressOfPath(item.path))
      if (rebuilt) this.#changes.push({ ordinal })
      return
    }
    const table = new TableBuilder(this.#layout)
    let expected = oldItem?.range.from ?? this.#layout.addressOfPath(item.path)
    for (const extent of item.extents) {
      const kept = this.#layout.extentIndexOf(extent.cid)
      if (kept !== undefined) expected = table.keep(extent, kept, oldItem)
      else if (this.#seen.has(extent.cid)) table.add({ ...extent, rebuilt: false })
      else {
        this.#seen.add(extent.cid)
        const end = await this.#addExtent(extent, rule, oldItem, expected)
        table.add({ ...extent, rebuilt: end !== undefined })
        expected = end?.expected ?? expected
      }
    }
    this.#changes.push({ ordinal, table: table.done() })
  }

  /** @returns where the older release goes on after what the extent's end is like; undefined when it is left out. */
  async #addExtent(
    extent: ExtentRef,
    rule: ChunkRule,
    oldItem: OldItem | undefined,
    expected: number,
  ): Promise<{ expected: number } | undefined> {
    const anchors = this.#matcher.anchors(await this.#to.chunksOf(extent))
    const anchored = anchors.reduce((sum, { length }) => sum + length, 0) === extent.sizeBytes
    const bytes = anchored ? undefined : await this.#to.readExtent(extent.cid)
    const found = bytes ? await this.#matcher.find(bytes, anchors, expected, oldItem) : anchors
    if (this.#isUnlike(extent, found)) return undefined

    const operations: Operation[] = []
    let at = 0
    let before = expected
    let like: Found[] = []
    const finish = async (to: number, after: number) => {
      if (bytes && to > at) {
        const ranges = like.map(({ address, length }) => ({ from: address, to: address + length }))
        await this.#literals.add({ bytes: bytes.slice(at, to), before, after, like: ranges })
      }
      like = []
    }
    for (const match of joinedCopies(found)) {
      if (match.length < COPY_BYTES_MIN) {
        like.push(match)
        continue
      }
      await finish(match.at, match.address)
      operations.push({ literalBytes: match.at - at, copyBytes: match.length, address: match.address })
      at = match.at + match.length
      before = match.address + match.length
    }
    if (at < extent.sizeBytes) {
      await finish(extent.sizeBytes, -1)
      operations.push({ literalBytes: extent.sizeBytes - at, copyBytes: 0, address: 0 })
    }

    this.#open.push({ extent, rule, operations })
    this.#openOperations += operations.length
    if (
      this.#literals.pendingBytes >= FRAME_RAW_BYTES_MAX / 2 ||
      this.#literals.frameCount > 0 ||
      this.#open.length >= PART_EXTENTS_MAX ||
      this.#openOperations >= PART_OPERATIONS_MAX
    ) {
      await this.#endPart()
    }
    return { expected: before }
  }

  #isUnlike({ sizeBytes }: ExtentRef, found: readonly Found[]): boolean {
    if (this.#inCatalog || sizeBytes < UNLIKE_EXTENT_BYTES_MIN) return false
    if (found.reduce((sum, { length }) => sum + length, 0) > sizeBytes / 20) return false
    this.#unlikeBytes += sizeBytes
    if (this.#unlikeBytes <= UNLIKE_BYTES_MAX) return false
    this.#omittedExtents += 1
    return true
  }

  async #endPart(): Promise<void> {
    if (this.#open.length === 0) return
    const frames = await this.#literals.take()
    const bases = new Set(frames.flatMap(({ dictionary }) => dictionary.flatMap(range => this.#layout.extentsIn(range))))
    const needs = needsOf(this.#open, frames, this.#layout)
    for (const base of needs.flat()) bases.add(base)
    const sorted = [...bases].sort((a, b) => a - b)

    const space = new PartSpace(this.#layout, sorted)
    const extents = this.#open.map(({ operations }) =>
      operations.map(operation => (operation.copyBytes > 0 ? { ...operation, address: space.of(operation.address) } : operation)),
    )
    const localFrames = frames.map(({ section, dictionary }) => ({
      section,
      dictionary: dictionary.map(({ from, to }) => ({ from: space.of(from), to: space.of(from) + to - from })),
    }))
    const stored = await encodePart(extents, localFrames)
    await this.#prove(stored, sorted)

    this.#parts.push({
      storedBytes: stored.length,
      check: checkOf(stored),
      firstExtent: this.#needs.length,
      extentCount: this.#open.length,
      bases: sorted,
    })
    this.#needs.push(...needs)
    if (this.#inCatalog) this.#catalogParts.push(stored)
    else {
      await this.#spool.write(stored)
      this.#spooledBytes += stored.length
    }
    this.#open = []
    this.#openOperations = 0
  }

  /** Applies the part as an edge will. @throws EdgeError `DELTA_INVALID` */
  async #prove(stored: Uint8Array, bases: readonly number[]): Promise<void> {
    const sizes = bases.map(index => this.#layout.extents[index]!.sizeBytes)
    const reader = await PartReader.open(stored, this.#open.map(({ extent }) => extent.sizeBytes), sizes, async (base, offset, length) =>
      (await this.#old.extent(bases[base]!)).subarray(offset, offset + length),
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

/** Matches that go on in each other, on both sides, are one. */
function joinedCopies(found: readonly Found[]): Found[] {
  const result: Found[] = []
  for (const match of found) {
    const last = result.at(-1)
    if (last && last.at + last.length === match.at && last.address + last.length === match.address) {
      result[result.length - 1] = { ...last, length: last.length + match.length }
    } else result.push(match)
  }
  return result
}

/** For each extent the old extents that it copies from, and those that its frames' dictionaries have. */
function needsOf(extents: readonly BuiltExtent[], frames: readonly PartFrame[], layout: OldLayout): number[][] {
  const frameBases = frames.map(({ dictionary }) => dictionary.flatMap(range => layout.extentsIn(range)))
  let frame = 0
  let left = frames[0]?.section.rawBytes ?? 0
  return extents.map(({ operations }) => {
    const needed = new Set<number>()
    for (const { literalBytes, copyBytes, address } of operations) {
      for (let wanted = literalBytes; wanted > 0; ) {
        if (left === 0) left = frames[++frame]!.section.rawBytes
        for (const base of frameBases[frame]!) needed.add(base)
        const taken = Math.min(left, wanted)
        left -= taken
        wanted -= taken
      }
      for (const base of layout.extentsIn({ from: address, to: address + copyBytes })) needed.add(base)
    }
    return [...needed].sort((a, b) => a - b)
  })
}

/** A part's own addresses: its bases laid end to end. */
class PartSpace {
  readonly #layout: OldLayout
  readonly #startOf = new Map<number, number>()

  constructor(layout: OldLayout, bases: readonly number[]) {
    this.#layout = layout
    let start = 0
    for (const base of bases) {
      this.#startOf.set(base, start)
      start += layout.extents[base]!.sizeBytes
    }
  }

  of(address: number): number {
    const base = this.#layout.extentAt(address)
    return this.#startOf.get(base)! + address - this.#layout.extents[base]!.address
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
    if (last?.kind === 'new') this.#runs[this.#runs.length - 1] = { kind: 'new', extents: [...last.extents, added] }
    else this.#runs.push({ kind: 'new', extents: [added] })
  }

  done(): NonNullable<ItemChange['table']> {
    return { oldRoots: this.#roots.map(keyOf), runs: this.#runs }
  }
}
