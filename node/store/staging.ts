/**
 * Staging: the beginnings of frames and patches that a cut left unfinished, so that no byte is paid
 * for twice (I9). A part is one file that only grows.
 *
 * After kill -9 all of it is there, since the kernel has it. After a power cut a file may be longer
 * than what reached the disk, with zeros in it: so beside each part stands how much of it was
 * synced, and in which boot. In another boot only that much counts. Synced at most once a second.
 * Whoever reads verifies the whole frame; a part that turns out wrong is discarded.
 */
import { readFileSync } from 'node:fs'
import { mkdir, open, readdir, rm, stat, type FileHandle } from 'node:fs/promises'
import { join } from 'node:path'
import { sha256Of } from '../../manifests/digest.ts'
import { isAbsentError, isFullError } from './disk-errors.ts'
import { EdgeError } from '../../manifests/errors.ts'

const SYNC_MS = 1000
const MARK = '.synced'

export interface StagedPart extends AsyncDisposable {
  readonly key: string
  /** Bytes here. */
  sizeBytes(): Promise<number>
  /** @throws EdgeError `STORE_FULL` */
  append(bytes: Uint8Array): Promise<void>
  read(offset: number, length: number): Promise<Buffer>
  /** The part is finished with, or wrong. */
  discard(): Promise<void>
}

export class Staging {
  readonly #folder: string
  readonly #parts = new Map<string, Part>()
  readonly #boot = bootId()

  constructor(folder: string) {
    this.#folder = folder
  }

  /** The same part for the same key while somebody has it open: one writer. */
  part(key: string): StagedPart {
    let part = this.#parts.get(key)
    if (!part) {
      part = new Part(key, join(this.#folder, sha256Of(key).slice(0, 40)), this.#boot, () =>
        this.#parts.delete(key),
      )
      this.#parts.set(key, part)
    }
    return part
  }

  async usedBytes(): Promise<number> {
    const names = await readdir(this.#folder).catch(() => [])
    const sizes = await Promise.all(names.map(name => sizeOf(join(this.#folder, name))))
    return sizes.reduce((sum, size) => sum + size, 0)
  }

  /** Deletes parts that nobody has appended to for `ageMs`. @returns bytes freed. */
  async prune(nowMs: number, ageMs: number): Promise<number> {
    let freed = 0
    for (const name of await readdir(this.#folder).catch(() => [])) {
      const path = join(this.#folder, name)
      const { mtimeMs, size } = await stat(path).catch(() => ({ mtimeMs: nowMs, size: 0 }))
      if (nowMs - mtimeMs < ageMs) continue
      await rm(path, { force: true })
      freed += size
    }
    return freed
  }

  async close(): Promise<void> {
    await Promise.all([...this.#parts.values()].map(part => part[Symbol.asyncDispose]()))
  }
}

class Part implements StagedPart {
  readonly key: string
  readonly #path: string
  readonly #boot: string
  readonly #closed: () => void
  #file: Promise<FileHandle> | undefined
  #size = 0
  #syncedAt = 0
  #syncing: Promise<void> | undefined
  #last: Promise<unknown> = Promise.resolve()

  constructor(key: string, path: string, boot: string, closed: () => void) {
    this.key = key
    this.#path = path
    this.#boot = boot
    this.#closed = closed
  }

  async sizeBytes(): Promise<number> {
    if (!this.#file && (await sizeOf(this.#path)) === 0) return 0
    await this.#open()
    return this.#size
  }

  append(bytes: Uint8Array): Promise<void> {
    return this.#inTurn(async () => {
      const file = await this.#open()
      try {
        for (let from = 0; from < bytes.length; ) {
          const { bytesWritten } = await file.write(bytes, from, bytes.length - from, this.#size)
          from += bytesWritten
          this.#size += bytesWritten
        }
      } catch (cause) {
        if (!isFullError(cause)) throw cause
        throw new EdgeError('STORE_FULL', `no space for ${bytes.length} bytes of a part under way`, { cause })
      }
      if (performance.now() - this.#syncedAt >= SYNC_MS) this.#syncing ??= this.#sync(file)
    })
  }

  read(offset: number, length: number): Promise<Buffer> {
    return this.#inTurn(async () => {
      const file = await this.#open()
      const buffer = Buffer.allocUnsafe(Math.max(0, Math.min(length, this.#size - offset)))
      for (let from = 0; from < buffer.length; ) {
        const { bytesRead } = await file.read(buffer, from, buffer.length - from, offset + from)
        if (bytesRead === 0) return buffer.subarray(0, from)
        from += bytesRead
      }
      return buffer
    })
  }

  discard(): Promise<void> {
    return this.#inTurn(async () => {
      await this.#close(false)
      await rm(this.#path + MARK, { force: true })
      await rm(this.#path, { force: true })
    })
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#inTurn(() => this.#close(true))
  }

  /** One operation after another, whatever became of the one before. */
  #inTurn<T>(operation: () => Promise<T>): Promise<T> {
    const turn = this.#last.then(operation)
    this.#last = turn.catch(() => undefined)
    return turn
  }

  #open(): Promise<FileHandle> {
    this.#file ??= this.#openFile().catch((error: unknown) => {
      this.#file = undefined
      throw error
    })
    return this.#file
  }

  async #openFile(): Promise<FileHandle> {
    let file: FileHandle
    try {
      file = await open(this.#path, 'r+')
    } catch (error) {
      if (!isAbsentError(error)) throw error
      await mkdir(join(this.#path, '..'), { recursive: true })
      file = await open(this.#path, 'w+')
    }
    const { size } = await file.stat()
    this.#size = Math.min(size, trustedSize(this.#path + MARK, this.#boot))
    if (this.#size < size) await file.truncate(this.#size)
    if (size === 0) await writeMark(this.#path + MARK, this.#boot, 0)
    this.#syncedAt = performance.now()
    return file
  }

  async #sync(file: FileHandle): Promise<void> {
    try {
      const size = this.#size
      await file.datasync()
      await writeMark(this.#path + MARK, this.#boot, size)
    } catch {
      // not synced is what the mark says, and all it costs is bytes fetched again
    } finally {
      this.#syncedAt = performance.now()
      this.#syncing = undefined
    }
  }

  async #close(keep: boolean): Promise<void> {
    const opened = this.#file
    this.#file = undefined
    this.#closed()
    if (!opened) return
    const file = await opened
    await this.#syncing
    if (keep && this.#size > 0) await this.#sync(file)
    await file.close()
  }
}

/** How much of the part reached the disk for certain; all of it when the machine has not gone down since. */
function trustedSize(markPath: string, boot: string): number {
  try {
    const [markedBoot, size] = readFileSync(markPath, 'latin1').split(' ')
    if (markedBoot === boot && boot !== '') return Number.POSITIVE_INFINITY
    return size !== undefined && /^\d{1,15}\n$/.test(size) ? Number(size) : 0
  } catch {
    return 0
  }
}

async function writeMark(path: string, boot: string, size: number): Promise<void> {
  await using file = await open(path, 'w')
  await file.write(`${boot} ${size}\n`)
  await file.datasync()
}

function bootId(): string {
  try {
    return readFileSync('/proc/sys/kernel/random/boot_id', 'latin1').trim()
  } catch {
    return ''
  }
}

async function sizeOf(path: string): Promise<number> {
  return stat(path).then(
    ({ size }) => size,
    () => 0,
  )
}
