/** Another way into an upstream: the same place, account and good name. What differs is overridden. */
import type { Span, SpanOptions, Upstream, WholeOptions } from './upstream.ts'

export abstract class UpstreamView implements Upstream {
  readonly base: Upstream

  constructor(base: Upstream) {
    this.base = base
  }

  get name() {
    return this.base.name
  }

  get wire() {
    return this.base.wire
  }

  get cost() {
    return this.base.cost
  }

  get ranges() {
    return this.base.ranges
  }

  get isLossy() {
    return this.base.isLossy
  }

  get pieceBytes() {
    return this.base.pieceBytes
  }

  abstract readSpan(path: string, span: Span, options: SpanOptions): AsyncIterable<Uint8Array>

  readWhole(path: string, options: WholeOptions): AsyncIterable<Uint8Array> {
    return this.base.readWhole(path, options)
  }

  /** The place itself stays open. */
  async [Symbol.asyncDispose](): Promise<void> {}
}
