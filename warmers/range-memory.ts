/**
 * Which upstreams serve ranges, remembered from one process to the next: a plan must know it, because
 * without ranges the smallest part costs its whole file.
 *
 * What an upstream is seen to do counts from then on, also when its server has changed. A memory that is
 * lost or cannot be written costs one answer that is cut, and a plan that is off by it.
 */
import { readFileSync, renameSync, writeFileSync } from 'node:fs'
import { isEdgeError } from '../manifests/errors.ts'
import type { Abortable } from '../manifests/extent.ts'
import type { Elsewhere, Span, SpanOptions, Upstream } from './upstream.ts'
import { UpstreamView } from './upstream-view.ts'

export interface RangeMemory {
  /** Undefined: nobody has asked yet. */
  recall(upstream: string): boolean | undefined
  learn(upstream: string, ranges: boolean): void
}

const FORMAT = 'towerlight-upstreams-v1'
const UPSTREAMS_MAX = 100

/** @param path of a small file; its folder exists. */
export function openRangeMemory(path: string): RangeMemory {
  const known = load(path)
  return {
    recall: upstream => known.get(upstream),
    learn(upstream, ranges) {
      if (known.get(upstream) === ranges) return
      known.delete(upstream)
      known.set(upstream, ranges)
      for (const [oldest] of [...known].slice(0, -UPSTREAMS_MAX)) known.delete(oldest)
      try {
        writeFileSync(`${path}.draft`, JSON.stringify({ format: FORMAT, ranges: Object.fromEntries(known) }))
        renameSync(`${path}.draft`, path)
      } catch {
        // it is only a memory
      }
    },
  }
}

function load(path: string): Map<string, boolean> {
  try {
    const { format, ranges } = JSON.parse(readFileSync(path, 'utf8')) as { format: unknown; ranges: object }
    if (format !== FORMAT) return new Map()
    return new Map(
      Object.entries(ranges).filter((known): known is [string, boolean] => known[1] === !!known[1]),
    )
  } catch {
    return new Map()
  }
}

/** The same upstreams, which begin with what is remembered of them. Folders need no memory. */
export function remembered(
  upstreams: readonly Upstream[],
  memory: RangeMemory | undefined,
): readonly Upstream[] {
  if (!memory) return upstreams
  return upstreams.map(upstream =>
    upstream.cost.downBytes === 0 || upstream instanceof Remembered
      ? upstream
      : new Remembered(upstream, memory),
  )
}

/** Asks for one byte where nothing is remembered. @throws the signal's reason */
export async function askForRanges(
  upstream: Upstream | undefined,
  memory: RangeMemory | undefined,
  { signal }: Abortable,
): Promise<void> {
  if (!upstream || !memory || !(upstream instanceof Remembered) || memory.recall(upstream.name) !== undefined)
    return
  try {
    const purpose = { dataset: '', reason: 'metadata' }
    const parts = upstream.readSpan('metadata/timestamp.json', { offset: 0, length: 1 }, { signal, purpose })
    for await (const _ of parts);
  } catch (error) {
    signal.throwIfAborted()
    if (!isEdgeError(error)) throw error
  }
}

class Remembered extends UpstreamView {
  readonly #memory: RangeMemory

  constructor(base: Upstream, memory: RangeMemory) {
    super(base)
    this.#memory = memory
  }

  get elsewhere(): Elsewhere | undefined {
    return this.base.elsewhere
  }

  override get ranges() {
    if (!this.base.ranges) this.#memory.learn(this.name, false)
    return this.#memory.recall(this.name) ?? true
  }

  readSpan(path: string, span: Span, options: SpanOptions): AsyncIterable<Uint8Array> {
    return this.#memory.recall(this.name)
      ? this.base.readSpan(path, span, options)
      : this.#watched(path, span, options)
  }

  async *#watched(path: string, span: Span, options: SpanOptions): AsyncGenerator<Uint8Array> {
    for await (const bytes of this.base.readSpan(path, span, options)) {
      this.#memory.learn(this.name, this.base.ranges)
      yield bytes
    }
  }
}
