/**
 * New extents with zip members that have changed: their deflate streams are taken apart, so that the
 * delta is made of what people changed. The result is an extent's *inside*: its bytes with these
 * streams expanded, which is what operations then build; at the end the streams are made again. A
 * stream that crosses a border is in the insides of both extents.
 *
 * Only members that the older item has by the same name, and that can be made again exactly, are
 * taken apart. Everything else stays as it is.
 */
import { inflate, mayHaveMembers, type Member, membersOf, settingsFor } from './deflate.ts'
import type { DeflateSettings } from './exact-deflate.ts'
import { type Likeness, type Match, type Matches, MatchPool } from './match-pool.ts'
import type { OldBytes } from './old-bytes.ts'
import type { OldItem, OldLayout } from './old-layout.ts'
import type { ExtentStream } from './part-streams.ts'
import type { ItemDag, ReleaseView } from './release-view.ts'

export type NewStream = Omit<ExtentStream, 'extent'>

export interface Inside {
  readonly bytes: Uint8Array
  readonly streams: readonly NewStream[]
  readonly matches: Matches
}

/** Of one extent. */
export const INSIDE_BYTES_MAX = 16 * 1024 * 1024
/** Longer items would have to be read twice, and are no documents. */
const ITEM_BYTES_MAX = 512 * 1024 * 1024
/** A member with no more new bytes than this is better left as it is. */
const CHANGED_BYTES_MIN = 64
/** After so many members of an item in a row that cannot be made again its maker is a stranger to us. */
const FAILURES_MAX = 3

export class Containers {
  readonly #layout: OldLayout
  readonly #old: OldBytes
  readonly #to: ReleaseView
  /** Of the items looked at last: they come in order. */
  #oldMembers: { readonly item: OldItem; readonly streamOf: ReadonlyMap<string, number> } | undefined
  #newMembers: { readonly item: ItemDag; readonly members: readonly Member[] } | undefined
  #likely: DeflateSettings | undefined
  #failures: { readonly item: ItemDag | undefined; count: number } = { item: undefined, count: 0 }

  constructor(layout: OldLayout, old: OldBytes, to: ReleaseView) {
    this.#layout = layout
    this.#old = old
    this.#to = to
  }

  /**
   * @param start where the extent begins in its item.
   * @param matches what was found in the extent's bytes as they are.
   * @returns undefined when there is nothing to take apart.
   */
  async insideOf(
    item: ItemDag,
    start: number,
    bytes: Uint8Array,
    matches: Matches,
    oldItem: OldItem | undefined,
  ): Promise<Inside | undefined> {
    if (!oldItem || item.sizeBytes > ITEM_BYTES_MAX) return undefined
    if (this.#newMembers?.item !== item && !mayHaveMembers(bytes)) return undefined
    const end = start + bytes.length
    const members = (await this.#membersOf(item)).filter(({ from, to }) => from < end && to > start)

    const pieces: Uint8Array[] = []
    const streams: NewStream[] = []
    const inside: Matches = { equal: [], alike: [] }
    let done = 0
    let length = 0
    const takeOver = (to: number) => {
      addClipped(inside, matches, done, to, length - done)
      pieces.push(bytes.subarray(done, to))
      length += to - done
      done = to
    }
    for (const { name, from, to, rawBytes } of members) {
      const [first, last] = [Math.max(from - start, 0), Math.min(to - start, bytes.length)]
      if (last - first - equalBytesIn(matches.equal, first, last) < CHANGED_BYTES_MIN) continue
      if (length + rawBytes + bytes.length - done > INSIDE_BYTES_MAX) continue
      const oldStream = await this.#oldStream(oldItem, name)
      if (oldStream === undefined) continue
      const stored = await this.#read(item, from, to)
      const raw = inflate(stored, rawBytes)
      const settings = this.#settingsFor(item, raw, stored)
      if (!settings) continue
      takeOver(first)
      streams.push({
        ...settings,
        from: length,
        rawBytes,
        skippedBytes: first + start - from,
        storedBytes: last - first,
      })
      addShifted(inside, await this.#matchesIn(raw, oldStream), length)
      pieces.push(raw)
      length += rawBytes
      done = last
    }
    if (streams.length === 0) return undefined
    takeOver(bytes.length)
    return { bytes: Buffer.concat(pieces), streams, matches: inside }
  }

  #settingsFor(item: ItemDag, raw: Uint8Array, stored: Uint8Array): DeflateSettings | undefined {
    if (this.#failures.item !== item) this.#failures = { item, count: 0 }
    if (this.#failures.count >= FAILURES_MAX) return undefined
    const settings = settingsFor(raw, stored, this.#likely)
    if (settings) this.#likely = settings
    this.#failures.count = settings ? 0 : this.#failures.count + 1
    return settings
  }

  async #matchesIn(raw: Uint8Array, stream: number): Promise<Matches> {
    const { address, sizeBytes } = this.#layout.extents[stream]!
    const pool = new MatchPool(sizeBytes)
    pool.add(address, await this.#old.extent(stream))
    return pool.matches(raw, 0, raw.length, address)
  }

  async #membersOf(item: ItemDag): Promise<readonly Member[]> {
    if (this.#newMembers?.item !== item) {
      const members = await Array.fromAsync(membersOf(this.#extents(item)))
      this.#newMembers = { item, members }
    }
    return this.#newMembers.members
  }

  async *#extents({ extents }: ItemDag): AsyncGenerator<Uint8Array> {
    for (const { cid } of extents) yield await this.#to.readExtent(cid)
  }

  async #read({ extents }: ItemDag, from: number, to: number): Promise<Buffer> {
    const pieces: Uint8Array[] = []
    let start = 0
    for (const { cid, sizeBytes } of extents) {
      if (start < to && start + sizeBytes > from) {
        pieces.push((await this.#to.readExtent(cid)).subarray(Math.max(from - start, 0), to - start))
      }
      start += sizeBytes
    }
    return Buffer.concat(pieces)
  }

  /** The old item's member of this name, as an extent of the layout. */
  async #oldStream(item: OldItem, name: string): Promise<number | undefined> {
    if (this.#oldMembers?.item !== item) {
      const streamOf = new Map<string, number>()
      for await (const member of membersOf(this.#oldExtents(item))) {
        const range = { from: item.range.from + member.from, to: item.range.from + member.to }
        if (!streamOf.has(member.name))
          streamOf.set(member.name, this.#layout.addStream(range, member.rawBytes))
      }
      this.#oldMembers = { item, streamOf }
    }
    return this.#oldMembers.streamOf.get(name)
  }

  async *#oldExtents({ firstExtent, extentCount, range }: OldItem): AsyncGenerator<Uint8Array> {
    if (range.to - range.from > ITEM_BYTES_MAX) return
    for (let at = 0; at < extentCount; at++) yield await this.#old.extent(firstExtent + at)
  }
}

function equalBytesIn(equal: readonly Match[], from: number, to: number): number {
  return equal.reduce(
    (sum, { at, length }) => sum + Math.max(0, Math.min(at + length, to) - Math.max(at, from)),
    0,
  )
}

/** Those parts of matches that lie in `from` to `to`, moved by `shift`. */
function addClipped(
  target: Matches,
  { equal, alike }: Matches,
  from: number,
  to: number,
  shift: number,
): void {
  const clip = <M extends Match>(match: M): M | undefined => {
    const first = Math.max(match.at, from)
    const length = Math.min(match.at + match.length, to) - first
    return length > 0
      ? { ...match, at: first + shift, length, address: match.address + first - match.at }
      : undefined
  }
  for (const match of equal) {
    const clipped = clip(match)
    if (clipped) target.equal.push(clipped)
  }
  for (const likeness of alike) {
    const clipped: Likeness | undefined = clip(likeness)
    if (!clipped) continue
    // Rounded down: only what is wholly equal may say so.
    const equalBytes = Math.floor((likeness.equalBytes / likeness.length) * clipped.length)
    target.alike.push({
      ...clipped,
      equalBytes:
        likeness.equalBytes === likeness.length ? clipped.length : Math.min(equalBytes, clipped.length - 1),
    })
  }
}

function addShifted(target: Matches, { equal, alike }: Matches, shift: number): void {
  for (const match of equal) target.equal.push({ ...match, at: match.at + shift })
  for (const likeness of alike) target.alike.push({ ...likeness, at: likeness.at + shift })
}
