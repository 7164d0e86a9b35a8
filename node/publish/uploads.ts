/**
 * Files on their way in: kept under the digest that they must have, appended to after a cut, and
 * moved into the repository once whole and proven (I9). What nobody finished within a week goes.
 */
import { createReadStream } from 'node:fs'
import { mkdir, open, readdir, rm, stat, statfs } from 'node:fs/promises'
import { join } from 'node:path'
import type { Sha256 } from '../../manifests/digest.ts'
import { EdgeError } from '../../manifests/errors.ts'
import type { RepositoryStorage } from '../../manifests/publish/storage.ts'

const KEPT_MS = 7 * 24 * 3600 * 1000

export interface UploadLimits {
  readonly fileBytesMax: number
  /** Free space that uploads never take (I7). */
  readonly reserveBytes: number
}

export class Uploads {
  readonly #folder: string
  readonly #storage: RepositoryStorage
  readonly #limits: UploadLimits

  constructor(folder: string, storage: RepositoryStorage, limits: UploadLimits) {
    this.#folder = folder
    this.#storage = storage
    this.#limits = limits
  }

  /** Bytes of the file that have arrived. */
  async receivedBytes(sha256: Sha256): Promise<number> {
    return await stat(join(this.#folder, sha256)).then(
      ({ size }) => size,
      () => 0,
    )
  }

  /**
   * Appends what comes; when the file is whole, it is proven and put into the repository.
   * @returns bytes received so far. Bytes of a file that proves wrong are dropped.
   * @throws EdgeError `REQUEST_INVALID` unless `offset` is what was received, `PUBLISH_REFUSED`, `STORE_FULL`
   */
  async append(
    file: { readonly path: string; readonly sha256: Sha256; readonly sizeBytes: number },
    offset: number,
    pieces: AsyncIterable<Uint8Array>,
  ): Promise<number> {
    if (file.sizeBytes > this.#limits.fileBytesMax) {
      throw new EdgeError('PUBLISH_REFUSED', `${file.path}: more than ${this.#limits.fileBytesMax} bytes`)
    }
    await mkdir(this.#folder, { recursive: true })
    let received = await this.receivedBytes(file.sha256)
    if (offset !== received)
      throw new EdgeError('REQUEST_INVALID', `${received} bytes have arrived, go on from there`)
    await this.#requireRoom(file.sizeBytes - received)
    await using part = await open(join(this.#folder, file.sha256), 'a')
    for await (const piece of pieces) {
      if (received + piece.length > file.sizeBytes) {
        throw new EdgeError('PUBLISH_REFUSED', `${file.path}: more bytes than announced`)
      }
      await part.appendFile(piece)
      received += piece.length
    }
    if (received === file.sizeBytes) await this.#finish(file)
    return received
  }

  async removeOld(nowMs: number): Promise<void> {
    for (const name of await readdir(this.#folder).catch(() => [])) {
      const path = join(this.#folder, name)
      if (nowMs - (await stat(path)).mtimeMs > KEPT_MS) await rm(path, { force: true })
    }
  }

  async #finish({ path, sha256 }: { readonly path: string; readonly sha256: Sha256 }): Promise<void> {
    const part = join(this.#folder, sha256)
    try {
      await this.#storage.add(found => {
        if (found !== sha256) throw new EdgeError('PUBLISH_REFUSED', `${path}: the bytes hash to ${found}`)
        return path
      }, createReadStream(part))
    } finally {
      await rm(part, { force: true })
    }
  }

  /** Twice the bytes: the part and, for a moment, its copy in the repository. */
  async #requireRoom(bytes: number): Promise<void> {
    const { bavail, bsize } = await statfs(this.#folder)
    const short = 2 * bytes + this.#limits.reserveBytes - bavail * bsize
    if (short > 0) throw new EdgeError('STORE_FULL', `the receiver is ${short} bytes short of room`)
  }
}
