/**
 * What arrived of remote files and is not used up yet (I9): the beginnings of frames and patches
 * that a cut left behind. Kept in files `<path>@<offset>`, written as bytes arrive, so that a kill
 * forgets at most what was still in the socket, and synced every second against power cuts.
 *
 * Nothing here is verified, and after a power cut the end of a part may even be wrong: whoever uses
 * the bytes proves what comes out of them, and drops them when the proof fails.
 */
import { closeSync, openSync, readSync } from 'node:fs'
import { type FileHandle, mkdir, open, readdir, rename, rm, stat, truncate, unlink } from 'node:fs/promises'
import { join as joinPath } from 'node:path'
import { setImmediate as nextTurn } from 'node:timers/promises'
import { EdgeError } from '../manifests/errors.ts'
import { giveBack } from './socket-buffers.ts'
import { bytesOf, joined, without } from './spans.ts'
import type { Span } from './upstream.ts'

export interface StagedWriter extends AsyncDisposable {
  /**
   * Appends. What comes while the disk is at work is written together, so a slow link's bytes are safe
   * from kill -9 at once and a fast link's a few pieces later; all are once the writer is disposed of.
   * Resolves when more may come. @throws EdgeError `STORE_FULL`, also for earlier pieces
   */
  write(bytes: Uint8Array): Promise<void>
}

export interface StagedRanges extends AsyncDisposable {
  readonly sizeBytes: number
  /** What is here of the file; sorted, disjoint. */
  spans(path: string): readonly Span[]
  /**
   * More of the file, from `offset` on: a new part, or the continuation of one that ends there and
   * begins no earlier than `begin` (so that what one request brought is dropped together).
   */
  append(path: string, offset: number, begin?: number): Promise<StagedWriter>
  /**
   * @param into as long as the span; a new buffer when absent.
   * @throws EdgeError `CHUNK_ABSENT` when not all of the span is here.
   */
  read(path: string, span: Span, into?: Buffer): Promise<Buffer>
  /** Used up: forgets the parts that lie within `spans` (sorted, disjoint). */
  drop(path: string, spans: readonly Span[]): Promise<void>
  /** Wrong: forgets every part that has a byte of `spans`. */
  discard(path: string, spans: readonly Span[]): Promise<void>
  /** Forgets all files that are not among these. */
  retain(paths: ReadonlySet<string>): Promise<void>
}

interface Part {
  readonly path: string
  readonly offset: number
  length: number
  /** Handles that are open. */
  users: number
}

/**
 * How old bytes are when they are synced, and how often that is looked at: together a second. Most
 * are used up before: on a fast link, syncing everything wrote each byte to the disk twice.
 */
const SYNC_MS = 500
/** Of one writer, waiting for the disk. */
const GATHERED_BYTES_MAX = 256 * 1024
const READ_BYTES = 256 * 1024
/**
 * Files that are used up are used again. ext4 takes no inode within minutes of its deletion, and
 * looks at each of those for every new file: after some thousand parts, most of a fill's CPU.
 */
const SPARE = 'spare-'
const SPARES_MAX = 64

/** @param folder made when missing; nothing else may live in it. */
export async function openStagedRanges(folder: string): Promise<StagedRanges> {
  await mkdir(folder, { recursive: true })
  const parts = new Map<string, Part>()
  for (const name of await readdir(folder)) {
    const part = parsePart(name)
    if (part) parts.set(name, { ...part, length: (await stat(joinPath(folder, name))).size, users: 0 })
    else await rm(joinPath(folder, name), { recursive: true, force: true })
  }
  return new StagedFolder(folder, parts)
}

class StagedFolder implements StagedRanges {
  readonly #folder: string
  readonly #byName: Map<string, Part>
  readonly #byPath = new Map<string, Set<Part>>()
  /** Since when, by name. */
  readonly #unsynced = new Map<string, number>()
  readonly #spares: string[] = []
  #sparesMade = 0
  /** Names that are not free yet. */
  readonly #leaving = new Map<string, Promise<void>>()
  readonly #timer: NodeJS.Timeout

  constructor(folder: string, parts: Map<string, Part>) {
    this.#folder = folder
    this.#byName = parts
    for (const part of parts.values()) this.#remember(part)
    this.#timer = setInterval(() => void this.#sync(), SYNC_MS)
    this.#timer.unref()
  }

  get sizeBytes() {
    return this.#byName.values().reduce((sum, { length }) => sum + length, 0)
  }

  spans(path: string): readonly Span[] {
    return joined(this.#parts(path))
  }

  async append(path: string, offset: number, begin = offset): Promise<StagedWriter> {
    const before = this.#parts(path).find(
      part => part.offset + part.length === offset && part.offset >= begin,
    )
    const part = before ?? { path, offset, length: 0, users: 0 }
    const name = nameOf(part)
    part.users++
    const file = await this.#open(name, before === undefined).catch((error: unknown) => {
      part.users--
      throw translated(error)
    })
    this.#byName.set(name, part)
    this.#remember(part)
    return new Appender(file, {
      written: bytes => {
        part.length += bytes
        if (!this.#unsynced.has(name)) this.#unsynced.set(name, performance.now())
      },
      closed: () => part.users--,
    })
  }

  async #open(name: string, isNew: boolean): Promise<FileHandle> {
    const path = joinPath(this.#folder, name)
    if (isNew) await this.#leaving.get(name)
    const spare = isNew ? this.#spares.pop() : undefined
    if (spare) await rename(joinPath(this.#folder, spare), path)
    return await open(path, isNew ? 'w' : 'a')
  }

  async read(path: string, span: Span, into?: Buffer): Promise<Buffer> {
    const buffer = into ?? Buffer.allocUnsafe(span.length)
    let lacking: readonly Span[] = [span]
    for (const part of this.#parts(path)) {
      const from = Math.max(span.offset, part.offset)
      const length = Math.min(span.offset + span.length, part.offset + part.length) - from
      if (length <= 0 || this.#byName.get(nameOf(part)) !== part) continue
      const slice = buffer.subarray(from - span.offset, from - span.offset + length)
      part.users++
      try {
        if (await readNow(joinPath(this.#folder, nameOf(part)), slice, from - part.offset))
          lacking = without(lacking, [{ offset: from, length }])
      } finally {
        part.users--
      }
    }
    if (lacking.length > 0 && span.length > 0)
      throw new EdgeError('CHUNK_ABSENT', `${path}: not all of ${span.offset}+${span.length} is staged`)
    return buffer
  }

  async drop(path: string, spans: readonly Span[]): Promise<void> {
    // a part that was just begun is somebody's who is waiting for its first byte
    const within = this.#parts(path).filter(part => part.length > 0 && without([part], spans).length === 0)
    await Promise.all(within.map(part => this.#forget(part)))
  }

  async discard(path: string, spans: readonly Span[]): Promise<void> {
    const touching = this.#parts(path).filter(part => bytesOf(without([part], spans)) < part.length)
    await Promise.all(touching.map(part => this.#forget(part)))
  }

  async retain(paths: ReadonlySet<string>): Promise<void> {
    await Promise.all(
      [...this.#byName.values()].filter(({ path }) => !paths.has(path)).map(part => this.#forget(part)),
    )
  }

  async [Symbol.asyncDispose](): Promise<void> {
    clearInterval(this.#timer)
    const spares = this.#spares.splice(0)
    await Promise.all(spares.map(name => unlink(joinPath(this.#folder, name)).catch(unlessGone)))
  }

  #parts(path: string): readonly Part[] {
    return [...(this.#byPath.get(path) ?? [])]
  }

  #remember(part: Part): void {
    const all = this.#byPath.get(part.path)
    if (all) all.add(part)
    else this.#byPath.set(part.path, new Set([part]))
  }

  async #forget(part: Part): Promise<void> {
    this.#byName.delete(nameOf(part))
    this.#unsynced.delete(nameOf(part))
    const all = this.#byPath.get(part.path)
    all?.delete(part)
    if (all?.size === 0) this.#byPath.delete(part.path)
    const leaving = this.#clear(part).catch(unlessGone)
    this.#leaving.set(nameOf(part), leaving)
    await leaving.finally(() => this.#leaving.delete(nameOf(part)))
  }

  async #clear(part: Part): Promise<void> {
    const path = joinPath(this.#folder, nameOf(part))
    // whoever has it open must neither read nor write what another part becomes
    if (part.users > 0 || this.#spares.length >= SPARES_MAX) return await unlink(path)
    const spare = `${SPARE}${this.#sparesMade++}`
    await rename(path, joinPath(this.#folder, spare))
    await truncate(joinPath(this.#folder, spare))
    this.#spares.push(spare)
  }

  async #sync(): Promise<void> {
    const oldMs = performance.now() - SYNC_MS
    const names = [...this.#unsynced].flatMap(([name, sinceMs]) => (sinceMs <= oldMs ? [name] : []))
    for (const name of names) this.#unsynced.delete(name)
    await Promise.allSettled(
      names.map(async name => {
        await using file = await open(joinPath(this.#folder, name))
        await file.datasync()
      }),
    )
  }
}

/** Each write costs a way to a thread and back: what gathers meanwhile goes in one. */
class Appender implements StagedWriter {
  readonly #file: FileHandle
  readonly #on: { written(bytes: number): void; closed(): void }
  #gathered: Uint8Array[] = []
  #gatheredBytes = 0
  #writing: Promise<void> | undefined
  #failure: { readonly error: unknown } | undefined
  #isTold = false

  constructor(file: FileHandle, on: { written(bytes: number): void; closed(): void }) {
    this.#file = file
    this.#on = on
  }

  async write(bytes: Uint8Array): Promise<void> {
    this.#gathered.push(bytes)
    this.#gatheredBytes += bytes.length
    this.#writing ??= this.#writeAll()
    if (this.#gatheredBytes >= GATHERED_BYTES_MAX) await this.#writing
    this.#tell()
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#writing
    await this.#file.close().finally(() => this.#on.closed())
    this.#tell()
  }

  /** Once: whoever was told disposes of the writer next. */
  #tell(): void {
    if (!this.#failure || this.#isTold) return
    this.#isTold = true
    throw this.#failure.error
  }

  /** Never rejects. */
  async #writeAll(): Promise<void> {
    try {
      while (this.#gathered.length > 0 && !this.#failure) {
        const written: readonly Uint8Array[] = this.#gathered
        let pieces = written
        this.#gathered = []
        this.#gatheredBytes = 0
        while (pieces.length > 0) {
          const { bytesWritten } = await this.#file.writev(pieces)
          this.#on.written(bytesWritten)
          pieces = after(pieces, bytesWritten)
        }
        for (const bytes of written) giveBack(bytes)
      }
    } catch (error) {
      this.#failure = { error: translated(error) }
    } finally {
      this.#writing = undefined
    }
  }
}

function after(pieces: readonly Uint8Array[], bytes: number): readonly Uint8Array[] {
  let passed = 0
  for (const [at, piece] of pieces.entries()) {
    if (passed + piece.length > bytes) return [piece.subarray(bytes - passed), ...pieces.slice(at + 1)]
    passed += piece.length
  }
  return []
}

/**
 * It was just written, so it is in the kernel's cache, where asking a thread for it costs more than
 * copying it; should it not be, others have their turn between two pieces.
 * @returns false when the file is shorter.
 */
async function readNow(path: string, into: Buffer, position: number): Promise<boolean> {
  const file = openSync(path, 'r')
  try {
    for (let from = 0; from < into.length; from += READ_BYTES) {
      if (from > 0) await nextTurn()
      const length = Math.min(READ_BYTES, into.length - from)
      if (readSync(file, into, from, length, position + from) !== length) return false
    }
    return true
  } finally {
    closeSync(file)
  }
}

function translated(cause: unknown): unknown {
  const isFull = ['ENOSPC', 'EDQUOT'].includes(codeOf(cause))
  return isFull ? new EdgeError('STORE_FULL', 'no space for bytes under way', { cause }) : cause
}

function unlessGone(error: unknown): void {
  if (codeOf(error) !== 'ENOENT') throw error
}

function codeOf(error: unknown): string {
  return error instanceof Error && 'code' in error ? String(error.code) : ''
}

/** Paths in a repository have no `~` or `@`: they are made of digests and dataset names. */
function nameOf({ path, offset }: { path: string; offset: number }): string {
  return `${path.replaceAll('/', '~')}@${offset}`
}

function parsePart(name: string): { path: string; offset: number } | undefined {
  const match = /^([A-Za-z0-9._~-]+)@(\d{1,15})$/.exec(name)
  return match ? { path: match[1]!.replaceAll('~', '/'), offset: Number(match[2]) } : undefined
}
