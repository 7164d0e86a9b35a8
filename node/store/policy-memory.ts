/**
 * What the tier policy has learned, kept across restarts: its changes, written at most once a
 * second, and now and then all of it anew. Losing some seconds of it costs a few wrong evictions.
 */
import type { Database } from './database.ts'
import type { TierPolicy } from './policy/policy.ts'

const RECORDS_MAX = 5_000
/** So many pieces of changes until everything is written anew and they are dropped. */
const PIECES_MAX = 600

export class PolicyMemory {
  readonly #database: Database
  #pieces: number
  #checkpoint: { readonly pieces: Generator<Uint8Array>; readonly firstId: number } | undefined

  constructor(database: Database) {
    this.#database = database
    this.#pieces = Number(database.get('SELECT count(*) AS n FROM policy_pieces')?.['n'] ?? 0)
  }

  /** Hands a new policy what was written, bit by bit: others go on meanwhile. */
  async restore(policy: TierPolicy, stopped: () => boolean): Promise<void> {
    for (const _ of policy.restore(this.#all())) {
      if (stopped()) return
      await new Promise(resolve => setImmediate(resolve))
    }
  }

  /** Inside a transaction: what changed since the last time, and a piece of a checkpoint under way. */
  write(policy: TierPolicy): void {
    const changes = policy.drainChanges(RECORDS_MAX)
    if (changes) this.#insert(changes)
    if (this.#checkpoint) this.#continueCheckpoint()
    else if (this.#pieces > PIECES_MAX) {
      this.#checkpoint = { pieces: policy.checkpoint(RECORDS_MAX), firstId: this.#lastId() + 1 }
    }
  }

  /** The policy began anew. */
  clear(): void {
    this.#checkpoint = undefined
    this.#pieces = 0
    this.#database.run('DELETE FROM policy_pieces')
  }

  *#all(): Generator<Uint8Array> {
    for (let after = 0; ; ) {
      const row = this.#database.get(
        'SELECT id, piece FROM policy_pieces WHERE id > ? ORDER BY id LIMIT 1',
        after,
      )
      if (!row) return
      after = Number(row['id'])
      if (row['piece'] instanceof Uint8Array) yield row['piece']
    }
  }

  #continueCheckpoint(): void {
    const { pieces, firstId } = this.#checkpoint!
    const { value, done } = pieces.next()
    if (!done) return this.#insert(value)
    this.#checkpoint = undefined
    this.#pieces -= this.#database.run('DELETE FROM policy_pieces WHERE id < ?', firstId)
  }

  #insert(piece: Uint8Array): void {
    this.#database.run('INSERT INTO policy_pieces (id, piece) VALUES (?, ?)', this.#lastId() + 1, piece)
    this.#pieces++
  }

  #lastId(): number {
    return Number(this.#database.get('SELECT max(id) AS last FROM policy_pieces')?.['last'] ?? 0)
  }
}
