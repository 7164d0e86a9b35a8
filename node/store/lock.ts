/**
 * The owner's lock: one process writes to a store, a second one is refused at once, and the lock of
 * a dead process is free.
 *
 * Node has no `flock`, SQLite has: a transaction that stays open on an empty database holds an
 * advisory lock of the operating system, which ends with the process however that ends. No stale
 * files, no process numbers that come again. Beside it lies `owner.json`, for people.
 */
import {
  accessSync,
  closeSync,
  constants,
  existsSync,
  openSync,
  readFileSync,
  truncateSync,
  writeFileSync,
} from 'node:fs'
import { join } from 'node:path'
import { DatabaseSync } from 'node:sqlite'
import { EdgeError } from '../../manifests/errors.ts'
import { isReadOnlyError, sqliteCodeOf, SQLITE } from './disk-errors.ts'

const LOCK = 'owner.lock'
const OWNER = 'owner.json'

/** A lock that nobody refers to would be collected, and with it given up. */
const HELD = new Set<DatabaseSync>()

/** @throws EdgeError `STORE_LOCKED`, `STORE_READ_ONLY` */
export function lockStore(folder: string): Disposable {
  const path = join(folder, LOCK)
  try {
    accessSync(folder, constants.W_OK)
    // Closing the file ends this process's locks on it (POSIX), so one that exists is left alone.
    if (!existsSync(path)) closeSync(openSync(path, 'a'))
  } catch (cause) {
    if (!isReadOnlyError(cause)) throw cause
    throw new EdgeError('STORE_READ_ONLY', `${folder} cannot be written: give the node's user write access`, {
      cause,
    })
  }

  let database = holdLock(path)
  if (!database) {
    // Somebody wrote into the lock file. Emptying it keeps the file, and with it a holder's lock.
    truncateSync(path, 0)
    database = holdLock(path)
  }
  if (!database) throw lockedBy(folder)
  noteOwner(folder)
  const held = database
  HELD.add(held)
  return {
    [Symbol.dispose]() {
      if (HELD.delete(held)) held.close()
    },
  }
}

/** @returns undefined when the file is not an empty database. */
function holdLock(path: string): DatabaseSync | undefined {
  const database = new DatabaseSync(path, { timeout: 200 })
  try {
    database.exec('PRAGMA journal_mode = MEMORY; PRAGMA locking_mode = EXCLUSIVE; BEGIN EXCLUSIVE')
    return database
  } catch (cause) {
    database.close()
    const code = sqliteCodeOf(cause)
    if (code === SQLITE.NOTADB || code === SQLITE.CORRUPT) return undefined
    if (code !== SQLITE.BUSY && code !== SQLITE.LOCKED) throw cause
    throw lockedBy(join(path, '..'), cause)
  }
}

function lockedBy(folder: string, cause?: unknown): EdgeError {
  let owner = 'another process'
  try {
    const { pid } = JSON.parse(readFileSync(join(folder, OWNER), 'utf8')) as { pid?: unknown }
    if (typeof pid === 'number') owner = `process ${pid}`
  } catch {
    // the note is for people only
  }
  return new EdgeError('STORE_LOCKED', `${folder} is in use by ${owner}: stop it, or choose another folder`, {
    cause,
  })
}

function noteOwner(folder: string): void {
  try {
    writeFileSync(join(folder, OWNER), `${JSON.stringify({ pid: process.pid })}\n`)
  } catch {
    // a full disk must not keep the node from starting (I7)
  }
}
