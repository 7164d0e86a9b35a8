/**
 * The frames expanded last: extents of one frame are usually asked for one after the other, or in turns
 * with those of the frames that it was arranged with (`frame-groups.ts`), which have 32 MiB together.
 */
const CACHE_BYTES_MAX = 40 * 1024 * 1024

export class FrameCache {
  /** Least recently used first. */
  readonly #frames = new Map<string, Promise<Uint8Array>>()
  readonly #sizes = new Map<string, number>()
  #bytes = 0

  /** A frame that could not be had is not remembered. */
  async get(key: string, load: () => Promise<Uint8Array>): Promise<Uint8Array> {
    const known = this.#frames.get(key)
    if (known) {
      this.#frames.delete(key)
      this.#frames.set(key, known)
      return await known
    }
    const loading = load()
    this.#frames.set(key, loading)
    try {
      const bytes = await loading
      this.#sizes.set(key, bytes.length)
      this.#bytes += bytes.length
      this.#shrink()
      return bytes
    } catch (error) {
      this.#frames.delete(key)
      throw error
    }
  }

  #shrink(): void {
    for (const key of this.#frames.keys()) {
      if (this.#bytes <= CACHE_BYTES_MAX) return
      const size = this.#sizes.get(key)
      if (size === undefined) continue // still being loaded
      this.#frames.delete(key)
      this.#sizes.delete(key)
      this.#bytes -= size
    }
  }
}
