/**
 * Who fetches what just now: a fill, a heal, a hub's copy and somebody's request may want the same
 * bytes, and they are to be paid for once (I9). One table per staging area, that is, per node.
 */
import type { Abortable } from '../manifests/extent.ts'
import type { StagedRanges } from './staged-ranges.ts'

interface Claims {
  readonly held: Map<string, Promise<void>>
  /** How many wait for something of a file. */
  readonly waiting: Map<string, number>
}

const TABLES = new WeakMap<StagedRanges, Claims>()
/** What helpers bring of a file is claimed under this name (`run-batch.ts`). */
const HELPERS = 'requests of '

/**
 * Waits until nobody has any of the bundles, nor their file, then has them all until disposed of.
 * @param indexes or whatever else names a part of the file.
 * @throws the signal's reason
 */
export async function claimBundles(
  staged: StagedRanges,
  path: string,
  indexes: readonly (number | string)[],
  options: Abortable,
): Promise<Disposable> {
  const file = path.startsWith(HELPERS) ? path.slice(HELPERS.length) : path
  const keys = indexes.map(index => `${path} ${index}`)
  const blocking = [...keys, wholeOf(file)]
  const takenIn = ({ held }: Claims) =>
    blocking.map(key => held.get(key)).find(promise => promise !== undefined)
  return await claim(staged, file, keys, takenIn, options)
}

/** The same for all of a file. @throws the signal's reason */
export async function claimFile(staged: StagedRanges, path: string, options: Abortable): Promise<Disposable> {
  const names = [`${path} `, `${HELPERS}${path} `]
  const takenIn = ({ held }: Claims) =>
    held.entries().find(([key]) => names.some(name => key.startsWith(name)))?.[1]
  return await claim(staged, path, [wholeOf(path)], takenIn, options)
}

/** Paths of files of which somebody waits for something. */
export function awaitedFiles(staged: StagedRanges): ReadonlySet<string> {
  return new Set(TABLES.get(staged)?.waiting.keys())
}

async function claim(
  staged: StagedRanges,
  file: string,
  keys: readonly string[],
  takenIn: (claims: Claims) => Promise<void> | undefined,
  { signal }: Abortable,
): Promise<Disposable> {
  const claims = TABLES.get(staged) ?? { held: new Map(), waiting: new Map() }
  TABLES.set(staged, claims)
  const { held, waiting } = claims
  waiting.set(file, (waiting.get(file) ?? 0) + 1)
  try {
    for (;;) {
      signal.throwIfAborted()
      const taken = takenIn(claims)
      if (!taken) break
      await untilAborted(taken, signal)
    }
  } finally {
    const others = waiting.get(file)! - 1
    if (others > 0) waiting.set(file, others)
    else waiting.delete(file)
  }
  const mine = Promise.withResolvers<void>()
  for (const key of keys) held.set(key, mine.promise)
  return {
    [Symbol.dispose]() {
      for (const key of keys) held.delete(key)
      mine.resolve()
    },
  }
}

function wholeOf(path: string): string {
  return `${path} *`
}

async function untilAborted(promise: Promise<void>, signal: AbortSignal): Promise<void> {
  const { promise: aborted, resolve } = Promise.withResolvers<void>()
  const wake = () => resolve()
  signal.addEventListener('abort', wake, { once: true })
  await Promise.race([promise, aborted])
  signal.removeEventListener('abort', wake)
}
