/**
 * One at a time per key: writing, moving, mending and deleting the same extent never overlap.
 */
export class Turns<Key> {
  readonly #last = new Map<Key, Promise<unknown>>()

  take<T>(key: Key, work: () => Promise<T>): Promise<T> {
    const before = this.#last.get(key)
    const turn = before ? before.then(work) : work()
    const quiet = turn.catch(() => undefined)
    this.#last.set(key, quiet)
    void quiet.then(() => {
      if (this.#last.get(key) === quiet) this.#last.delete(key)
    })
    return turn
  }
}
