/**
 * A worker's line to the owner of the store: over it go what was read, what was counted, and chunks that
 * failed here, which only the owner can heal.
 */
import { EdgeError } from '../manifests/errors.ts'
import type { HealElsewhere } from './store/store.ts'
import type { OwnerMessage, WorkerMessage } from './workers.ts'

/** The owner's own bound on healing is shorter. */
const ANSWER_MS = 20_000

export class OwnerLine {
  readonly #asked = new Map<number, PromiseWithResolvers<Buffer>>()
  #last = 0

  constructor() {
    process.on('message', (message: OwnerMessage) => {
      const asked = this.#asked.get(message.id)
      if (message.bytes !== undefined) asked?.resolve(Buffer.from(message.bytes, 'base64'))
      else asked?.reject(new EdgeError('CHUNK_ABSENT', 'the owner cannot have the chunk now'))
    })
  }

  tell(message: WorkerMessage): void {
    if (process.connected) process.send?.(message)
  }

  /** Not proven: the store does that. @throws EdgeError `CHUNK_ABSENT`; the signal's reason. */
  readonly heal: HealElsewhere = async (extent, offset, { digest, sizeBytes }, { signal }) => {
    signal.throwIfAborted()
    const id = ++this.#last
    const answer = Promise.withResolvers<Buffer>()
    const bound = AbortSignal.any([signal, AbortSignal.timeout(ANSWER_MS)])
    const give = (): void => answer.reject(bound.reason)
    bound.addEventListener('abort', give, { once: true })
    this.#asked.set(id, answer)
    this.tell({ type: 'heal', id, extent, offset, digest, sizeBytes })
    try {
      return await answer.promise
    } finally {
      this.#asked.delete(id)
      bound.removeEventListener('abort', give)
    }
  }
}
