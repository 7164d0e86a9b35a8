/**
 * How much the tiers may really hold: their configured capacities, or less when somebody else took
 * the disk's space (I7). The reserve is never given away, so metadata can always be written.
 */
import { stat } from 'node:fs/promises'
import type { ExtentFiles } from './extent-files.ts'

const FRESH_MS = 500

export interface Capacity {
  readonly bytes: number
  readonly hotBytes: number
}

export interface SpaceOptions {
  readonly folder: string
  readonly warmFolder: string
  readonly hotBytesMax: number
  readonly warmBytesMax: number
  readonly reserveBytes: number
}

export class Space {
  readonly #options: SpaceOptions
  readonly #files: { readonly hot: ExtentFiles; readonly warm: ExtentFiles }
  #freeBytes = { hot: Number.POSITIVE_INFINITY, warm: Number.POSITIVE_INFINITY }
  #oneDisk = true
  #measuredAt = Number.NEGATIVE_INFINITY

  constructor(options: SpaceOptions, files: { readonly hot: ExtentFiles; readonly warm: ExtentFiles }) {
    this.#options = options
    this.#files = files
  }

  get freeBytes(): number {
    return this.#freeBytes.hot
  }

  /** Bytes that `tier`'s disk can take before the reserve is touched; may be negative. */
  spareBytes(tier: 'hot' | 'warm'): number {
    return this.#freeBytes[tier] - this.#options.reserveBytes
  }

  /** Counts a write until the next measurement. */
  took(tier: 'hot' | 'warm', bytes: number): void {
    this.#freeBytes[tier] -= bytes
    if (this.#oneDisk) this.#freeBytes[tier === 'hot' ? 'warm' : 'hot'] -= bytes
  }

  /** Asks the disks, unless that was done a moment ago. */
  async measure(force = false): Promise<void> {
    if (!force && performance.now() - this.#measuredAt < FRESH_MS) return
    const isFirst = this.#measuredAt === Number.NEGATIVE_INFINITY
    this.#measuredAt = performance.now()
    const { folder, warmFolder } = this.#options
    const [hot, warm, oneDisk] = await Promise.all([
      this.#files.hot.freeBytes().catch(() => undefined),
      this.#files.warm.freeBytes().catch(() => undefined),
      Promise.all([stat(folder), stat(warmFolder)]).then(
        ([a, b]) => a.dev === b.dev,
        () => !isFirst && this.#oneDisk,
      ),
    ])
    // a tier's folder may be gone; the disk that it was on is not full for that
    const other = { hot: oneDisk ? warm : undefined, warm: oneDisk ? hot : undefined }
    this.#freeBytes = { hot: hot ?? other.hot ?? 0, warm: warm ?? other.warm ?? 0 }
    this.#oneDisk = oneDisk
  }

  /** What the tiers may hold, given what they hold now. */
  capacity(used: { readonly hotBytes: number; readonly warmBytes: number }): Capacity {
    const { hotBytesMax, warmBytesMax } = this.#options
    if (this.#oneDisk) {
      const possible = Math.max(0, used.hotBytes + used.warmBytes + this.spareBytes('hot'))
      const bytes = Math.min(hotBytesMax + warmBytesMax, possible)
      return { bytes, hotBytes: Math.min(hotBytesMax, bytes) }
    }
    const hotBytes = Math.min(hotBytesMax, Math.max(0, used.hotBytes + this.spareBytes('hot')))
    const warmBytes = Math.min(warmBytesMax, Math.max(0, used.warmBytes + this.spareBytes('warm')))
    return { bytes: hotBytes + warmBytes, hotBytes }
  }
}
