/**
 * The staging area of a node, whose fills, heals, readers and copies share what has come (I9): what
 * one of them has used up stays while somebody waits for the same file, and, of a file of which all is
 * wanted, until all of it has come. What is left over goes with the next fill that is whole.
 */
import { awaitedFiles } from './bundle-claims.ts'
import { openStagedRanges, type StagedRanges, type StagedWriter } from './staged-ranges.ts'
import type { Span } from './upstream.ts'

/** @param folder as for `openStagedRanges`. */
export async function openSharedStaging(folder: string): Promise<StagedRanges> {
  return new SharedStaging(await openStagedRanges(folder))
}

/** Paths of files of which all is wanted; without effect on a staging area that nobody shares. */
export function wantedWhole(staged: StagedRanges): Set<string> {
  return staged instanceof SharedStaging ? staged.wantedWhole : new Set()
}

class SharedStaging implements StagedRanges {
  readonly wantedWhole = new Set<string>()
  readonly #ranges: StagedRanges

  constructor(ranges: StagedRanges) {
    this.#ranges = ranges
  }

  get sizeBytes(): number {
    return this.#ranges.sizeBytes
  }

  spans(path: string): readonly Span[] {
    return this.#ranges.spans(path)
  }

  append(path: string, offset: number, begin?: number): Promise<StagedWriter> {
    return this.#ranges.append(path, offset, begin)
  }

  read(path: string, span: Span, into?: Buffer): Promise<Buffer> {
    return this.#ranges.read(path, span, into)
  }

  async drop(path: string, spans: readonly Span[]): Promise<void> {
    if (!this.#wanted.has(path)) await this.#ranges.drop(path, spans)
  }

  discard(path: string, spans: readonly Span[]): Promise<void> {
    return this.#ranges.discard(path, spans)
  }

  retain(paths: ReadonlySet<string>): Promise<void> {
    return this.#ranges.retain(paths.union(this.#wanted))
  }

  get #wanted(): Set<string> {
    return this.wantedWhole.union(awaitedFiles(this))
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#ranges[Symbol.asyncDispose]()
  }
}
