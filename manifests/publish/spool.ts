/**
 * Where files wait on the publisher's machine before they go to a repository elsewhere: packs and
 * deltas are named by their digest, which is known only when their last byte has come. What was
 * uploaded stays, so that building the next delta fetches nothing again; deleting the folder is safe.
 */
import { randomUUID } from 'node:crypto'
import { mkdir, open, rename, rm, stat } from 'node:fs/promises'
import { join } from 'node:path'
import { openSha256, type Sha256 } from '../digest.ts'

export interface SpooledFile {
  /** In the repository. */
  readonly path: string
  /** On this machine, until `send` has resolved. */
  readonly file: string
  readonly sha256: Sha256
  readonly sizeBytes: number
}

export class Spool {
  readonly #folder: string

  constructor(folder: string) {
    this.#folder = folder
  }

  /** Spools, then sends; what could not be sent is not kept. */
  async add(
    pathOf: (sha256: Sha256) => string,
    pieces: AsyncIterable<Uint8Array>,
    send: (spooled: SpooledFile) => Promise<void>,
  ): Promise<{ readonly sha256: Sha256; readonly sizeBytes: number }> {
    await mkdir(this.#folder, { recursive: true })
    const draft = join(this.#folder, `${randomUUID()}.draft`)
    try {
      const { sha256, sizeBytes } = await writeDraft(draft, pieces)
      const path = pathOf(sha256)
      await send({ path, file: draft, sha256, sizeBytes })
      await rename(draft, this.#placeOf(path))
      return { sha256, sizeBytes }
    } finally {
      await rm(draft, { force: true })
    }
  }

  /** Undefined when the file is not kept here. */
  async read(
    path: string,
    range?: { readonly offset: number; readonly length: number },
  ): Promise<Buffer | undefined> {
    const place = this.#placeOf(path)
    const sizeBytes = await stat(place).then(
      ({ size }) => size,
      () => undefined,
    )
    if (sizeBytes === undefined) return undefined
    const { offset, length } = range ?? { offset: 0, length: sizeBytes }
    await using file = await open(place)
    const bytes = Buffer.alloc(Math.max(0, Math.min(length, sizeBytes - offset)))
    await file.read(bytes, 0, bytes.length, offset)
    return bytes
  }

  async remove(path: string): Promise<void> {
    await rm(this.#placeOf(path), { force: true })
  }

  #placeOf(path: string): string {
    return join(this.#folder, path.replaceAll('/', '_'))
  }
}

async function writeDraft(
  draft: string,
  pieces: AsyncIterable<Uint8Array>,
): Promise<{ sha256: Sha256; sizeBytes: number }> {
  const hash = openSha256()
  let sizeBytes = 0
  await using file = await open(draft, 'wx')
  for await (const piece of pieces) {
    hash.update(piece)
    sizeBytes += piece.length
    await file.appendFile(piece)
  }
  return { sha256: hash.digest(), sizeBytes }
}
