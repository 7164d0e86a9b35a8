/**
 * The repository view that pin targets keep (`repo-v1/`), read as one reads any upstream: what
 * accepts metadata from a link accepts it from there, with every check.
 */
import { EdgeError } from '../manifests/errors.ts'
import type { Abortable } from '../manifests/extent.ts'
import type { PinFiles } from './pin-target.ts'
import type { GuardedTarget } from './guarded-target.ts'

export const REPOSITORY_FOLDER = 'repo-v1/'

export interface ViewReader {
  readonly name: string
  /** @throws EdgeError `NOT_FOUND`, `UPSTREAM_LIED`, `UPSTREAM_UNREACHABLE` */
  readWhole(path: string, options: Abortable & { readonly maxBytes: number }): AsyncIterable<Uint8Array>
  /** Paths below the repository. */
  list(options: Abortable): Promise<readonly string[]>
}

export function viewReader(guard: GuardedTarget): ViewReader {
  const use = async <T>(call: (files: PinFiles) => Promise<T>, options: Abortable) => {
    try {
      return await guard.use(({ files }) => call(files), options)
    } catch (cause) {
      if (!(cause instanceof EdgeError) || cause.code !== 'PIN_TARGET_DOWN') throw cause
      throw new EdgeError('UPSTREAM_UNREACHABLE', `${guard.name}: ${cause.message}`, { cause })
    }
  }
  return {
    name: guard.name,
    async *readWhole(path, { maxBytes, signal }) {
      const bytes = await use(files => files.read(REPOSITORY_FOLDER + path, maxBytes, { signal }), { signal })
      if (!bytes) throw new EdgeError('NOT_FOUND', `${guard.name} does not keep ${path}`)
      yield bytes
    },
    async list(options) {
      const names = await use(files => files.list(REPOSITORY_FOLDER, options), options)
      return names.map(name => name.slice(REPOSITORY_FOLDER.length))
    },
  }
}
