/** Hits and misses, counted; ratios of requests and of bytes. */

export interface Ratios {
  readonly objectHit: number
  readonly byteHit: number
}

export class Tally {
  requests = 0
  hits = 0
  bytes = 0
  hitBytes = 0

  count(hit: boolean, sizeBytes: number): void {
    this.requests++
    this.bytes += sizeBytes
    if (!hit) return
    this.hits++
    this.hitBytes += sizeBytes
  }

  get ratios(): Ratios {
    return { objectHit: rounded(this.hits / this.requests), byteHit: rounded(this.hitBytes / this.bytes) }
  }
}

export function rounded(n: number): number {
  return Math.round(n * 1e4) / 1e4
}

export function median(values: readonly number[]): number {
  return [...values].sort((a, b) => a - b)[values.length >> 1]!
}

export function medianRatios(runs: readonly Ratios[]): Ratios {
  return {
    objectHit: median(runs.map(run => run.objectHit)),
    byteHit: median(runs.map(run => run.byteHit)),
  }
}
