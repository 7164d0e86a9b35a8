/**
 * What the operating system and SQLite mean, in the few classes that we act upon.
 */

/** Primary result codes: https://www.sqlite.org/rescode.html */
export const SQLITE = {
  ERROR: 1,
  BUSY: 5,
  LOCKED: 6,
  READONLY: 8,
  IOERR: 10,
  CORRUPT: 11,
  FULL: 13,
  CANTOPEN: 14,
  CONSTRAINT: 19,
  MISMATCH: 20,
  NOTADB: 26,
} as const

/** The primary result code of an error that SQLite threw. */
export function sqliteCodeOf(error: unknown): number | undefined {
  const code = (error as { errcode?: unknown } | null)?.errcode
  return typeof code === 'number' ? code & 0xff : undefined
}

export function systemCodeOf(error: unknown): string | undefined {
  const code = (error as { code?: unknown } | null)?.code
  return typeof code === 'string' ? code : undefined
}

export function isAbsentError(error: unknown): boolean {
  const code = systemCodeOf(error)
  return code === 'ENOENT' || code === 'ENOTDIR'
}

export function isFullError(error: unknown): boolean {
  const code = systemCodeOf(error)
  return code === 'ENOSPC' || code === 'EDQUOT' || sqliteCodeOf(error) === SQLITE.FULL
}

export function isReadOnlyError(error: unknown): boolean {
  const code = systemCodeOf(error)
  return code === 'EROFS' || code === 'EACCES' || code === 'EPERM' || sqliteCodeOf(error) === SQLITE.READONLY
}

/** The database's own content is broken, not the call. */
export function isDamageError(error: unknown): boolean {
  const code = sqliteCodeOf(error)
  return code === SQLITE.CORRUPT || code === SQLITE.NOTADB
}
