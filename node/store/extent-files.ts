/**
 * One tier's extents as files: `extents-v1/<first two hex digits of the digest>/<cid>`, plain bytes.
 *
 * A file appears whole and durable or not at all (I3): draft, fsync, rename, fsync of the folder.
 * Drafts live in a folder of their own, so what a crash left behind is found without a search.
 */
import { randomUUID } from 'node:crypto'
import { closeSync, existsSync, fstatSync, mkdirSync, openSync, readSync, statSync } from 'node:fs'
import { link, mkdir, open, readdir, rename, rm, stat, statfs } from 'node:fs/promises'
import { join } from 'node:path'
import { digestOf, parseCid, type Cid } from '../../manifests/cid.ts'
import { EdgeError } from '../../manifests/errors.ts'
import { isAbsentError, isFullError, isReadOnlyError, systemCodeOf } from './disk-errors.ts'
import { FolderSync } from './folder-sync.ts'

const FORMAT = 'extents-v1'
const DRAFTS = 'drafts'
/** Of this process and nobody else: process numbers come again. */
const DRAFT_PREFIX = `${randomUUID()}.`
const SECTORS_BYTES = 64 * 1024
const PREFIXES = Array.from({ length: 256 }, (_, byte) => byte.toString(16).padStart(2, '0'))

export class ExtentFiles {
  readonly #root: string
  readonly #drafts: string
  readonly #made = new Set<string>()
  readonly #folders = new FolderSync()
  #drafted = 0

  constructor(folder: string) {
    this.#root = join(folder, FORMAT)
    this.#drafts = join(folder, DRAFTS)
  }

  /** Makes the folders. @throws EdgeError `STORE_READ_ONLY`, `STORE_FULL` */
  prepare(): void {
    try {
      mkdirSync(this.#root, { recursive: true })
      mkdirSync(this.#drafts, { recursive: true })
    } catch (error) {
      throw translated(error, this.#root)
    }
  }

  pathOf(cid: Cid): string {
    return join(this.#root, digestOf(cid).slice(0, 2), cid)
  }

  /** Durable when resolved. @throws EdgeError `STORE_FULL`, `STORE_READ_ONLY` */
  async write(cid: Cid, bytes: Uint8Array): Promise<void> {
    const draft = join(this.#drafts, `${DRAFT_PREFIX}${this.#drafted++}`)
    const path = this.pathOf(cid)
    try {
      const folder = await this.#folderOf(cid)
      {
        await using file = await open(draft, 'wx')
        await file.writeFile(bytes)
        await file.sync()
      }
      await rename(draft, path)
      await this.#folders.sync(folder)
    } catch (error) {
      await rm(draft, { force: true }).catch(() => undefined)
      throw translated(error, path)
    }
  }

  /**
   * Gives the file a second name in `other`, durable when resolved, when both are on one file system.
   * @returns false when they are not: then the bytes have to be copied.
   */
  async linkTo(other: ExtentFiles, cid: Cid): Promise<boolean> {
    const folder = await other.#folderOf(cid)
    try {
      await link(this.pathOf(cid), other.pathOf(cid))
    } catch (error) {
      if (systemCodeOf(error) === 'EXDEV') return false
      if (systemCodeOf(error) !== 'EEXIST') throw translated(error, other.pathOf(cid))
      await rm(other.pathOf(cid))
      return this.linkTo(other, cid)
    }
    await other.#folders.sync(folder)
    return true
  }

  async remove(cid: Cid): Promise<void> {
    await rm(this.pathOf(cid), { force: true })
  }

  /** @returns undefined when there is no such file. @throws what the disk says */
  open(cid: Cid): number | undefined {
    try {
      return openSync(this.pathOf(cid), 'r')
    } catch (error) {
      if (isAbsentError(error)) return undefined
      throw error
    }
  }

  async sizeOf(cid: Cid): Promise<number | undefined> {
    return stat(this.pathOf(cid)).then(
      ({ size }) => size,
      () => undefined,
    )
  }

  /** Whether the tier's disk is there at all: its folder is missing when it was unmounted. */
  async isThere(): Promise<boolean> {
    return stat(this.#root).then(
      () => true,
      () => false,
    )
  }

  sizeNow(cid: Cid): number {
    return statSync(this.pathOf(cid)).size
  }

  has(cid: Cid): boolean {
    return existsSync(this.pathOf(cid))
  }

  async freeBytes(): Promise<number> {
    const { bavail, bsize } = await statfs(this.#root)
    return bavail * bsize
  }

  /** What is on disk, folder by folder; names that are no CIDs are told apart. */
  async *folders(): AsyncGenerator<{ prefix: string; cids: Set<Cid>; strays: string[] }> {
    for (const prefix of PREFIXES) {
      const names = await readdir(join(this.#root, prefix)).catch(() => [])
      const cids = new Set<Cid>()
      const strays: string[] = []
      for (const name of names) {
        const cid = cidNamed(name)
        if (cid && digestOf(cid).startsWith(prefix)) cids.add(cid)
        else strays.push(join(this.#root, prefix, name))
      }
      yield { prefix, cids, strays }
    }
  }

  /** Deletes what crashed writes left behind. */
  async removeDrafts(): Promise<number> {
    const names = await readdir(this.#drafts).catch(() => [])
    const left = names.filter(name => !name.startsWith(DRAFT_PREFIX))
    for (const name of left) await rm(join(this.#drafts, name), { force: true })
    return left.length
  }

  async #folderOf(cid: Cid): Promise<string> {
    const folder = join(this.#root, digestOf(cid).slice(0, 2))
    if (!this.#made.has(folder)) {
      await mkdir(folder, { recursive: true })
      await this.#folders.sync(this.#root)
      this.#made.add(folder)
    }
    return folder
  }
}

/** Reads exactly `length` bytes. @returns false when the file ends before. */
export function readExactly(fd: number, buffer: Buffer, length: number, position: number): boolean {
  for (let from = 0; from < length; ) {
    const count = readSync(fd, buffer, from, length - from, position + from)
    if (count === 0) return false
    from += count
  }
  return true
}

export function sizeOfOpen(fd: number): number {
  return fstatSync(fd).size
}

/** As much as the disk gives: sectors that cannot be read stay zero. */
export function readWhatCanBe(fd: number, buffer: Buffer): void {
  for (let from = 0; from < buffer.length; from += SECTORS_BYTES) {
    const length = Math.min(SECTORS_BYTES, buffer.length - from)
    try {
      if (!readExactly(fd, buffer.subarray(from), length, from)) return
    } catch {
      // its chunk fails the proof
    }
  }
}

export function closeQuietly(fd: number): void {
  try {
    closeSync(fd)
  } catch {
    // a disk that is gone
  }
}

function cidNamed(name: string): Cid | undefined {
  try {
    return parseCid(name)
  } catch {
    return undefined
  }
}

function translated(error: unknown, path: string): unknown {
  if (isFullError(error)) return new EdgeError('STORE_FULL', `no space left for ${path}`, { cause: error })
  if (isReadOnlyError(error)) {
    return new EdgeError('STORE_READ_ONLY', `${path} cannot be written: give the node's user write access`, {
      cause: error,
    })
  }
  return error
}
