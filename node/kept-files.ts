/**
 * Bytes that were made from content and can be made again, kept in a bounded folder: renditions,
 * encodings. A file `<2 hex>/<key>` holds the SHA-256 of the bytes and then the bytes; it is hashed at
 * each read, and is no longer there when they differ. Least recently used first; losing the folder
 * loses nothing, and so all of it goes when the denylist changes: what must no longer be served may have
 * been made into any of it.
 */
import { randomUUID } from 'node:crypto'
import { mkdir, readdir, readFile, rename, rm, stat, statfs, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { LRUCache } from 'lru-cache'
import { sha256Of, type Sha256 } from '../manifests/digest.ts'

const DIGEST_BYTES = 32
const EPOCH_FILE = 'epoch'
const GONE = { size: 0, mtimeMs: 0 }
/** What the smallest file takes of the disk. */
const BLOCK_BYTES = 4096

export interface KeptFile {
  readonly bytes: Buffer
  readonly sha256: Sha256
}

interface KeptFilesLimits {
  readonly bytesMax: number
  /** Free space of the disk that is never taken (I7). */
  readonly reserveBytes: number
}

export class KeptFiles {
  readonly #folder: string
  readonly #reserveBytes: number
  readonly #openedMs = Date.now()
  /** Sizes; undefined for a reader, which looks at the disk. */
  readonly #files: LRUCache<Sha256, number> | undefined
  /** Until the folder has been looked through, the disk is asked, too. */
  #scanning: Promise<void> | undefined

  private constructor(folder: string, bytesMax: number | undefined, reserveBytes: number) {
    this.#folder = folder
    this.#reserveBytes = reserveBytes
    if (bytesMax === undefined) return
    this.#files = new LRUCache<Sha256, number>({
      maxSize: Math.max(1, bytesMax),
      sizeCalculation: sizeBytes => Math.max(BLOCK_BYTES, sizeBytes),
      dispose: (_size, key, reason) => {
        if (reason === 'evict') void rm(this.#pathOf(key), { force: true })
      },
    })
  }

  /**
   * Removes everything unless it was made under `epoch`: call it when what must not be served has
   * changed, and after a start.
   */
  async begin(epoch: string): Promise<void> {
    const note = join(this.#folder, EPOCH_FILE)
    if ((await readFile(note, 'utf8').catch(() => '')) === epoch) return
    await this.#scanning
    this.#files?.clear()
    for (const shelf of await shelvesOf(this.#folder))
      await rm(join(this.#folder, shelf), { recursive: true, force: true })
    await writeFile(note, epoch)
  }

  /**
   * Of one folder, one process at a time may write. What is there is looked through in the background:
   * however much it is, nobody waits for it.
   */
  static async open(folder: string, { bytesMax, reserveBytes }: KeptFilesLimits): Promise<KeptFiles> {
    await mkdir(folder, { recursive: true })
    const kept = new KeptFiles(folder, bytesMax, reserveBytes)
    kept.#scanning = kept
      .#scan()
      .catch(() => {}) // a folder that is gone is empty
      .finally(() => (kept.#scanning = undefined))
    return kept
  }

  /** What another process keeps there. */
  static reader(folder: string): KeptFiles {
    return new KeptFiles(folder, undefined, 0)
  }

  /** Verified; undefined when it is not here or was damaged. */
  async read(key: Sha256): Promise<KeptFile | undefined> {
    if (this.#files && !this.#files.get(key) && !this.#scanning) return undefined
    const file = await readFile(this.#pathOf(key)).catch(() => Buffer.alloc(0))
    const bytes = file.subarray(DIGEST_BYTES)
    const sha256 = sha256Of(bytes)
    if (file.length >= DIGEST_BYTES && sha256 === file.toString('hex', 0, DIGEST_BYTES))
      return { bytes, sha256 }
    this.#files?.delete(key)
    return undefined
  }

  /** Resolves when the folder has been looked through. */
  async settled(): Promise<void> {
    await this.#scanning
  }

  /** Keeps it where there is room for it. */
  async write(key: Sha256, { bytes, sha256 }: KeptFile): Promise<void> {
    if (!this.#files) return
    const { bavail, bsize } = await statfs(this.#folder)
    if (bavail * bsize < this.#reserveBytes + bytes.length) return
    const path = this.#pathOf(key)
    const draft = `${path}.${randomUUID()}.draft`
    await mkdir(join(path, '..'), { recursive: true })
    try {
      await writeFile(draft, Buffer.concat([Buffer.from(sha256, 'hex'), bytes]))
      await rename(draft, path)
    } catch (error) {
      await rm(draft, { force: true })
      throw error
    }
    this.#files.set(key, bytes.length + DIGEST_BYTES)
    if (!this.#files.has(key)) await rm(path, { force: true }) // larger than all that may be kept
  }

  /** Names and sizes only. */
  async #scan(): Promise<void> {
    const found: { key: Sha256; sizeBytes: number; usedMs: number }[] = []
    for (const shelf of await shelvesOf(this.#folder)) {
      for (const key of await readdir(join(this.#folder, shelf))) {
        const path = join(this.#folder, shelf, key)
        const { size, mtimeMs } = await stat(path).catch(() => GONE)
        if (!key.endsWith('.draft')) found.push({ key: key as Sha256, sizeBytes: size, usedMs: mtimeMs })
        else if (mtimeMs < this.#openedMs) await rm(path, { force: true }) // of a process that was killed
      }
    }
    for (const { key, sizeBytes } of found.toSorted((a, b) => a.usedMs - b.usedMs))
      if (!this.#files?.has(key)) this.#files?.set(key, sizeBytes)
  }

  #pathOf(key: Sha256): string {
    return join(this.#folder, key.slice(0, 2), key)
  }
}

async function shelvesOf(folder: string): Promise<string[]> {
  return (await readdir(folder)).filter(name => name !== EPOCH_FILE)
}
