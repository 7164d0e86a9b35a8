/**
 * Extents' files held open for reading: opening one costs as much as reading 64 KiB from it.
 *
 * Bounded; the least recently used is closed first, but never while somebody reads from it.
 */
import { LRUCache } from 'lru-cache'
import { closeSync } from 'node:fs'
import type { Cid } from '../../manifests/cid.ts'

export interface OpenFile {
  readonly fd: number
  readers: number
  dropped: boolean
}

export class OpenFiles implements Disposable {
  readonly #files: LRUCache<Cid, OpenFile>

  constructor(filesMax: number) {
    this.#files = new LRUCache<Cid, OpenFile>({
      max: Math.max(1, filesMax),
      dispose: file => {
        file.dropped = true
        closeUnused(file)
      },
    })
  }

  /** @param open gives undefined when there is no such file. */
  get(cid: Cid, open: () => number | undefined): OpenFile | undefined {
    let file = this.#files.get(cid)
    if (file) return file
    const fd = open()
    if (fd === undefined) return undefined
    file = { fd, readers: 0, dropped: false }
    this.#files.set(cid, file)
    return file
  }

  /** The file is gone or replaced: the next reader opens it anew. */
  drop(cid: Cid): void {
    this.#files.delete(cid)
  }

  [Symbol.dispose](): void {
    this.#files.clear()
  }
}

/** Keeps the file open across an asynchronous read. */
export function holdOpen(file: OpenFile): Disposable {
  file.readers++
  return {
    [Symbol.dispose]() {
      file.readers--
      closeUnused(file)
    },
  }
}

function closeUnused(file: OpenFile): void {
  if (file.dropped && file.readers === 0) closeSync(file.fd)
}
