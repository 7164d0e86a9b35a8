/**
 * Where a repository is kept, as little as publishing needs: a folder here, a bucket elsewhere.
 *
 * Paths are relative with `/` between plain segments (`packs/ab12….pack`). What was written is
 * whole and durable once the promise resolves, or not there at all (I3).
 */
import type { Sha256 } from '../digest.ts'

export interface RepositoryStorage {
  /**
   * A file's bytes, or those of a range of it; undefined when there is no such file.
   * Fewer than `length` bytes come back when the file ends before.
   */
  read(
    path: string,
    range?: { readonly offset: number; readonly length: number },
  ): Promise<Uint8Array | undefined>
  /** In bytes; undefined when there is no such file. */
  size(path: string): Promise<number | undefined>
  /**
   * Replaces the file. With `ifAbsent` it must not exist yet, and of several writers one succeeds.
   * @throws EdgeError `PUBLISH_CONFLICT` with `ifAbsent`, when it exists already.
   */
  write(path: string, bytes: Uint8Array, options?: { readonly ifAbsent?: boolean }): Promise<void>
  /**
   * Writes a file whose name is known only when its last byte has come. Nothing remains when
   * `bytes` fails. A piece is not touched any more once the next one is asked for.
   */
  add(
    pathOf: (sha256: Sha256) => string,
    bytes: AsyncIterable<Uint8Array>,
  ): Promise<{ readonly sha256: Sha256; readonly sizeBytes: number }>
  /** Paths of the files beneath a folder such as `targets/`, sorted; none when there is no such folder. */
  list(prefix: string): Promise<string[]>
  /** Removing what is not there is no error. */
  remove(path: string): Promise<void>
  /**
   * Holds the repository for one publisher until disposed. A publisher that dies lets go of it.
   * @throws EdgeError `PUBLISH_CONFLICT` at once, when another one holds it.
   */
  lock(): Promise<AsyncDisposable>
}
