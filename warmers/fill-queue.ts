/**
 * What drives a board of batches to its end. There are two: in this process, and through BullMQ.
 * Neither is the truth about what is to be done (I8), so either may vanish at any time.
 */
import type { Abortable } from '../manifests/extent.ts'
import type { BatchBoard } from './batch-board.ts'

export interface FillQueue extends AsyncDisposable {
  readonly name: string
  /**
   * Runs batches, at most `concurrency` at a time, until none is open.
   * @throws the signal's reason within a second of its abort.
   */
  drain(board: BatchBoard, work: Work, options: Abortable): Promise<void>
}

export interface Work {
  readonly concurrency: number
  /** The contact window: a new one makes new jobs of the same batches. */
  readonly window: string
}
