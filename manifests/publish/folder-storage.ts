/**
 * A repository in a folder: what a static web server or a USB stick then carries to the edge.
 *
 * Files are written as drafts beside the rest, synced and renamed, then their folder is synced, so
 * that a power cut leaves whole files (I3). Drafts of a publisher that died are removed by the next
 * one that gets the lock. The lock is one of the operating system, held through SQLite because
 * Node.js has no other way to take it: it ends with its process, however that ends.
 */
import { randomUUID } from 'node:crypto'
import { constants } from 'node:fs'
import { link, mkdir, open, readdir, rename, rm, stat, type FileHandle } from 'node:fs/promises'
import { dirname, join, resolve } from 'node:path'
import { DatabaseSync } from 'node:sqlite'
import { openSha256 } from '../digest.ts'
import { EdgeError } from '../errors.ts'
import type { RepositoryStorage } from './storage.ts'

const DRAFTS = '.drafts'
const LOCK = '.publish.lock'
const SEGMENT = /^[A-Za-z0-9_-][A-Za-z0-9._-]{0,254}$/

/** @param root is made when it does not exist, with the first write. */
export function folderStorage(root: string): RepositoryStorage {
  const placeOf = (path: string) => join(resolve(root), safePath(path))
  const place = (path: string, draft: string) => moveInto(placeOf(path), draft, rename)

  return {
    async read(path, range) {
      await using file = await openIfThere(placeOf(path))
      return file && (await readRange(file, range ?? { offset: 0, length: (await file.stat()).size }))
    },

    async size(path) {
      try {
        return (await stat(placeOf(path))).size
      } catch (error) {
        return absentOr(error)
      }
    },

    async write(path, bytes, { ifAbsent = false } = {}) {
      await using draft = await openDraft(root)
      await draft.file.writeFile(bytes)
      await draft.file.sync()
      if (ifAbsent) await moveInto(placeOf(path), draft.path, linkNew)
      else await place(path, draft.path)
    },

    async add(pathOf, bytes) {
      await using draft = await openDraft(root)
      const hash = openSha256()
      let sizeBytes = 0
      for await (const piece of bytes) {
        hash.update(piece)
        await writeAll(draft.file, piece)
        sizeBytes += piece.length
      }
      const sha256 = hash.digest()
      await draft.file.sync()
      await place(pathOf(sha256), draft.path)
      return { sha256, sizeBytes }
    },

    async list(prefix) {
      const folder = safePath(prefix.replace(/\/$/, ''))
      return (await filesBeneath(join(resolve(root), folder), folder)).sort()
    },

    async remove(path) {
      await rm(placeOf(path), { force: true })
    },

    async lock() {
      await mkdir(root, { recursive: true })
      const held = lockFile(join(root, LOCK))
      await rm(join(root, DRAFTS), { recursive: true, force: true })
      return {
        async [Symbol.asyncDispose]() {
          held.close()
        },
      }
    },
  }
}

function lockFile(path: string): DatabaseSync {
  const database = new DatabaseSync(path, { timeout: 0 })
  try {
    database.exec('PRAGMA journal_mode = MEMORY; BEGIN EXCLUSIVE')
    return database
  } catch (cause) {
    database.close()
    throw new EdgeError(
      'PUBLISH_CONFLICT',
      'somebody else is publishing into this repository: wait until that has ended, then publish again',
      { cause },
    )
  }
}

async function openDraft(
  root: string,
): Promise<AsyncDisposable & { readonly file: FileHandle; readonly path: string }> {
  const path = join(root, DRAFTS, randomUUID())
  await makeFolder(dirname(path))
  const file = await open(path, 'wx')
  return {
    file,
    path,
    async [Symbol.asyncDispose]() {
      await file.close()
      await rm(path, { force: true })
    },
  }
}

async function moveInto(
  path: string,
  draft: string,
  move: (from: string, to: string) => Promise<void>,
): Promise<void> {
  await makeFolder(dirname(path))
  await move(draft, path)
  await syncFolder(dirname(path))
}

async function linkNew(from: string, to: string): Promise<void> {
  try {
    await link(from, to)
  } catch (cause) {
    if ((cause as NodeJS.ErrnoException).code !== 'EEXIST') throw cause
    throw new EdgeError('PUBLISH_CONFLICT', `${to} exists already: another release came in between`, {
      cause,
    })
  }
}

/** With the folders above it, each synced into its parent. */
async function makeFolder(path: string): Promise<void> {
  const first = await mkdir(path, { recursive: true })
  if (first === undefined) return
  for (let made = path; ; made = dirname(made)) {
    await syncFolder(dirname(made))
    if (made === first) return
  }
}

async function syncFolder(path: string): Promise<void> {
  await using folder = await open(path, constants.O_RDONLY)
  await folder.sync()
}

async function openIfThere(path: string): Promise<FileHandle | undefined> {
  try {
    return await open(path, constants.O_RDONLY)
  } catch (error) {
    return absentOr(error)
  }
}

async function readRange(
  file: FileHandle,
  { offset, length }: { offset: number; length: number },
): Promise<Uint8Array> {
  const bytes = Buffer.allocUnsafe(length)
  let filled = 0
  while (filled < length) {
    const { bytesRead } = await file.read(bytes, filled, length - filled, offset + filled)
    if (bytesRead === 0) break
    filled += bytesRead
  }
  return bytes.subarray(0, filled)
}

async function writeAll(file: FileHandle, bytes: Uint8Array): Promise<void> {
  for (let from = 0; from < bytes.length; ) from += (await file.write(bytes, from)).bytesWritten
}

async function filesBeneath(folder: string, prefix: string): Promise<string[]> {
  let entries
  try {
    entries = await readdir(folder, { withFileTypes: true })
  } catch (error) {
    return absentOr(error) ?? []
  }
  const found: string[] = []
  for (const entry of entries) {
    const path = `${prefix}/${entry.name}`
    if (entry.isDirectory()) found.push(...(await filesBeneath(join(folder, entry.name), path)))
    else if (entry.isFile()) found.push(path)
  }
  return found
}

function absentOr(error: unknown): undefined {
  const { code } = error as NodeJS.ErrnoException
  if (code !== 'ENOENT' && code !== 'ENOTDIR') throw error
}

/** Our own names only: nothing that leads out of the folder, or to drafts and the lock. */
function safePath(path: string): string {
  if (!path.split('/').every(segment => SEGMENT.test(segment))) {
    throw new EdgeError('PATH_INVALID', `not a path in a repository: ${JSON.stringify(path)}`)
  }
  return path
}
