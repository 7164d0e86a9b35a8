/** Batches run in this process: when there is no Redis, or it went away. */
import type { Abortable } from '../manifests/extent.ts'
import type { BatchBoard } from './batch-board.ts'
import type { FillQueue, Work } from './fill-queue.ts'

const LOOK_MS = 1000

export function openLocalQueue(): FillQueue {
  return {
    name: 'local',
    drain: (board, work, options) => drainLocally(board, work, options),
    async [Symbol.asyncDispose]() {},
  }
}

export async function drainLocally(
  board: BatchBoard,
  { concurrency }: Pick<Work, 'concurrency'>,
  options: Abortable,
): Promise<void> {
  const executor = async () => {
    while (board.open > 0) {
      options.signal.throwIfAborted()
      const { state } = await board.runOne('local', options)
      if (state === 'none' && board.open > 0) await board.change(LOOK_MS, options)
    }
  }
  await Promise.all(Array.from({ length: concurrency }, executor))
  options.signal.throwIfAborted()
}
