/**
 * Who fetches which bundle just now: a fill and somebody's request may want the same one, and it is
 * to be paid for once (I9). One table per staging area, that is, per node.
 */
import type { Abortable } from '../manifests/extent.ts'
import type { StagedRanges } from './staged-ranges.ts'

const TABLES = new WeakMap<StagedRanges, Map<string, Promise<void>>>()

/**
 * Waits until nobody has any of the bundles, then has them all until disposed of.
 * @throws the signal's reason
 */
export async function claimBundles(
  staged: StagedRanges,
  path: string,
  indexes: readonly number[],
  { signal }: Abortable,
): Promise<Disposable> {
  const table = TABLES.get(staged) ?? new Map<string, Promise<void>>()
  TABLES.set(staged, table)
  const keys = indexes.map(index => `${path} ${index}`)
  for (;;) {
    signal.throwIfAborted()
    const taken = keys.map(key => table.get(key)).find(promise => promise !== undefined)
    if (!taken) break
    await untilAborted(taken, signal)
  }
  const mine = Promise.withResolvers<void>()
  for (const key of keys) table.set(key, mine.promise)
  return {
    [Symbol.dispose]() {
      for (const key of keys) table.delete(key)
      mine.resolve()
    },
  }
}

async function untilAborted(promise: Promise<void>, signal: AbortSignal): Promise<void> {
  const { promise: aborted, resolve } = Promise.withResolvers<void>()
  const wake = () => resolve()
  signal.addEventListener('abort', wake, { once: true })
  await Promise.race([promise, aborted])
  signal.removeEventListener('abort', wake)
}
