/**
 * Literal runs on their way into frames: what the older release does not have, gathered up to about
 * 1 MiB and compressed against the old bytes most like it.
 *
 * The dictionary is made of what the runs replaced, with some bytes around it, and of places with
 * shorter matches; the more a run has to say, the more it gets. Where all that is more than 2 MiB,
 * everybody gets less.
 */
import type { OldBytes } from './old-bytes.ts'
import type { OldLayout } from './old-layout.ts'
import { type AddressRange, DICTIONARY_BYTES_MAX, FRAME_RAW_BYTES_MAX, type PartFrame } from './part.ts'
import { pack } from './section.ts'

export interface LiteralRun {
  readonly bytes: Uint8Array
  /** Where the older release goes on after what was copied before the run, and before what is after it. */
  readonly before: number
  readonly after: number
  /** Matches within the run, too short to be copied on their own. */
  readonly like: readonly AddressRange[]
}

/** How much a run may ask for, most generous first. Bytes on either side, and before a long run. */
const GENEROSITY = [
  { around: 8192, ahead: 1024 * 1024, like: 256 },
  { around: 4096, ahead: 512 * 1024, like: 128 },
  { around: 2048, ahead: 256 * 1024, like: 64 },
  { around: 1024, ahead: 128 * 1024, like: 32 },
  { around: 512, ahead: 32 * 1024, like: 16 },
  { around: 128, ahead: 4096, like: 0 },
]
const LONG_RUN_BYTES = 16 * 1024
const SHORT_RUN_BYTES = 12
/** Above this much in one delta, the best level is given up for one three times as fast. */
const BEST_LEVEL_BYTES = 3 * 1024 * 1024

export class Literals {
  readonly #layout: OldLayout
  readonly #old: OldBytes
  #runs: LiteralRun[] = []
  #runBytes = 0
  #packedBytes = 0
  #frames: PartFrame[] = []

  constructor(layout: OldLayout, old: OldBytes) {
    this.#layout = layout
    this.#old = old
  }

  /** Bytes not yet in a frame. */
  get pendingBytes(): number {
    return this.#runBytes
  }

  get frameCount(): number {
    return this.#frames.length
  }

  async add(run: LiteralRun): Promise<void> {
    let { bytes } = run
    while (this.#runBytes + bytes.length >= FRAME_RAW_BYTES_MAX) {
      const fits = FRAME_RAW_BYTES_MAX - this.#runBytes
      this.#push({ ...run, bytes: bytes.subarray(0, fits) })
      bytes = bytes.subarray(fits)
      await this.#pack()
    }
    if (bytes.length > 0) this.#push({ ...run, bytes })
  }

  /** All frames since the last call; they hold exactly what was added. */
  async take(): Promise<PartFrame[]> {
    if (this.#runBytes > 0) await this.#pack()
    const frames = this.#frames
    this.#frames = []
    return frames
  }

  #push(run: LiteralRun): void {
    this.#runs.push(run)
    this.#runBytes += run.bytes.length
  }

  async #pack(): Promise<void> {
    const bytes = Buffer.concat(this.#runs.map(run => run.bytes))
    const dictionary = dictionaryOf(this.#runs, this.#layout)
    const level = this.#packedBytes > BEST_LEVEL_BYTES ? 19 : 22
    const section = await pack(bytes, await this.#old.read(dictionary), level)
    this.#frames.push({ section, dictionary: section.coding === 1 ? dictionary : [] })
    this.#packedBytes += bytes.length
    this.#runs = []
    this.#runBytes = 0
  }
}

export function dictionaryOf(runs: readonly LiteralRun[], layout: OldLayout): AddressRange[] {
  for (const generosity of GENEROSITY) {
    const ranges = joined(runs.flatMap(run => rangesFor(run, generosity, layout)))
    if (bytesOf(ranges) <= DICTIONARY_BYTES_MAX) return ranges
  }
  return firstOf(joined(runs.flatMap(run => rangesFor(run, GENEROSITY.at(-1)!, layout))), DICTIONARY_BYTES_MAX)
}

function rangesFor(run: LiteralRun, generosity: (typeof GENEROSITY)[number], layout: OldLayout): AddressRange[] {
  const { length } = run.bytes
  if (length < SHORT_RUN_BYTES) return []
  const { before, after } = run
  const around = Math.min(generosity.around, length * 8)
  const replaced = after >= before && after - before <= length * 4 + 64 * 1024
  const ranges = [{ from: before - around, to: (replaced ? after : before) + around }]
  if (!replaced && after >= 0) ranges.push({ from: after - around, to: after + around })
  if (length > LONG_RUN_BYTES) ranges.push({ from: before - generosity.ahead, to: before })
  for (const { from, to } of run.like) ranges.push({ from: from - generosity.like, to: to + generosity.like })
  return ranges.map(({ from, to }) => ({ from: Math.max(from, 0), to: Math.min(to, layout.sizeBytes) })).filter(({ from, to }) => from < to)
}

/** Sorted, and apart from each other. */
export function joined(ranges: readonly AddressRange[]): AddressRange[] {
  const sorted = ranges.toSorted((a, b) => a.from - b.from)
  const result: AddressRange[] = []
  for (const range of sorted) {
    const last = result.at(-1)
    if (last && range.from <= last.to) result[result.length - 1] = { from: last.from, to: Math.max(last.to, range.to) }
    else result.push(range)
  }
  return result
}

function bytesOf(ranges: readonly AddressRange[]): number {
  return ranges.reduce((sum, { from, to }) => sum + to - from, 0)
}

function firstOf(ranges: readonly AddressRange[], bytes: number): AddressRange[] {
  const result: AddressRange[] = []
  for (const { from, to } of ranges) {
    const length = Math.min(to - from, bytes)
    if (length > 0) result.push({ from, to: from + length })
    bytes -= length
  }
  return result
}
