/**
 * Remembers what recent request targets parse to: the same few thousand URLs are asked for over and
 * over. Bounded by two generations; only good targets are remembered, so tricks gain nothing here.
 */
import { type ItemTarget, parseItemTarget } from './request-path.ts'

const GENERATION_MAX = 16_384
const TARGET_CHARACTERS_MAX = 512

export class TargetCache {
  #young = new Map<string, ItemTarget>()
  #old = new Map<string, ItemTarget>()

  /** As `parseItemTarget`. @throws EdgeError `PATH_INVALID` */
  get(url: string): ItemTarget | undefined {
    const known = this.#young.get(url)
    if (known) return known
    const target = this.#old.get(url) ?? parseItemTarget(url)
    if (!target || url.length > TARGET_CHARACTERS_MAX) return target

    if (this.#young.size >= GENERATION_MAX) {
      this.#old = this.#young
      this.#young = new Map()
    }
    this.#young.set(url, target)
    return target
  }
}
