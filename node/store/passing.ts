/**
 * Extents on their way through: fetched because somebody asked, and not taken by the tier policy
 * (yet). They stay for those who wait for them and those who ask again in the next moments, outside
 * of the policy's accounts and bounded by their own, oldest out first.
 */
export class Passing {
  readonly #bytesMax: number
  readonly #sizes = new Map<number, number>()
  #bytes = 0

  constructor(bytesMax: number) {
    this.#bytesMax = bytesMax
  }

  get bytes(): number {
    return this.#bytes
  }

  has(key: number): boolean {
    return this.#sizes.has(key)
  }

  /** @returns those that have to go; never the one that has just come. */
  add(key: number, sizeBytes: number): number[] {
    this.delete(key)
    this.#sizes.set(key, sizeBytes)
    this.#bytes += sizeBytes
    const leaving: number[] = []
    for (const oldest of this.#sizes.keys()) {
      if (this.#bytes <= this.#bytesMax || oldest === key) break
      this.delete(oldest)
      leaving.push(oldest)
    }
    return leaving
  }

  delete(key: number): void {
    this.#bytes -= this.#sizes.get(key) ?? 0
    this.#sizes.delete(key)
  }
}
