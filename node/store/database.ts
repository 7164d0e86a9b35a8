/**
 * A SQLite file that may break without taking the node with it.
 *
 * SQLite has no checksums, so a flipped bit is either an error (then the file is set aside, an empty
 * one takes its place, and `onDamage` is told, to rebuild what can be) or a wrong value, which our
 * readers must survive: a row only says *where* something is. A schema that is not exactly ours is
 * damage, too. WAL; commits are synced unless `derived` says that everything in it can be made again.
 */
import {
  closeSync,
  existsSync,
  fdatasync,
  fdatasyncSync,
  openSync,
  renameSync,
  rmSync,
  statSync,
} from 'node:fs'
import { DatabaseSync, type SQLInputValue, type SQLOutputValue, type StatementSync } from 'node:sqlite'
import { EdgeError, isEdgeError } from '../../manifests/errors.ts'
import {
  isDamageError,
  isFullError,
  isReadOnlyError,
  sqliteCodeOf,
  SQLITE,
  systemCodeOf,
} from './disk-errors.ts'

const PAGE_BYTES = 8192
/** 4 MiB of log between checkpoints: one takes some milliseconds. */
const CHECKPOINT_PAGES = 512
const CACHE_KIB = 4096
const FOLLOW_MS = 2000
/** Errors of reading a sector: https://www.sqlite.org/rescode.html#extrc */
const READ_ERRORS: readonly number[] = [266, 522, 8202, 8458]

export type Row = Record<string, SQLOutputValue>

export interface DatabaseOptions {
  readonly path: string
  readonly schema: string
  readonly readOnly: boolean
  /** Everything in it can be made again: commits are not synced, a damaged file is deleted. */
  readonly derived: boolean
  /** The file was set aside as `asidePath` (undefined: deleted), and an empty one is in its place. */
  readonly onDamage: (cause: unknown, asidePath: string | undefined) => void
}

export class Database implements Disposable {
  readonly #options: DatabaseOptions
  #connection: DatabaseSync
  #statements = new Map<string, StatementSync>()
  #inTransaction = false
  /** SQLite's write-ahead log, once somebody waits for it. */
  #log: number | undefined
  /** Of the file that a reader has open. */
  #inode: number | undefined
  #lookedAt = performance.now()
  #closed = false

  /** @throws EdgeError `STORE_READ_ONLY`, `STORE_FULL` */
  constructor(options: DatabaseOptions) {
    this.#options = options
    this.#connection = this.#open()
  }

  get(sql: string, ...values: SQLInputValue[]): Row | undefined {
    return this.#guarded(() => readWith(this.#prepared(sql), one => one.get(...values)))
  }

  all(sql: string, ...values: SQLInputValue[]): Row[] {
    return this.#guarded(() => readWith(this.#prepared(sql), one => one.all(...values)))
  }

  /** Rows as arrays of integers: for rounds over a table that is large. */
  numbers(sql: string, ...values: SQLInputValue[]): number[][] {
    return this.#guarded(() => {
      const statement = this.#prepared(sql)
      statement.setReturnArrays(true)
      return readWith(statement, one => one.all(...values) as unknown as number[][])
    })
  }

  run(sql: string, ...values: SQLInputValue[]): number {
    return this.#guarded(() => Number(this.#prepared(sql).run(...values).changes))
  }

  /** All of `work` or nothing of it, durable when this returns. @throws EdgeError `STORE_FULL`, `STORE_READ_ONLY` */
  transaction<T>(work: () => T): T {
    if (this.#inTransaction) return work()
    try {
      return this.#guarded(() => this.#transact(work))
    } catch (cause) {
      if (isEdgeError(cause)) throw cause
      if (isFullError(cause)) throw new EdgeError('STORE_FULL', 'no space left for the database', { cause })
      if (isReadOnlyError(cause)) {
        throw new EdgeError('STORE_READ_ONLY', 'the database cannot be written', { cause })
      }
      throw cause
    }
  }

  /**
   * As `transaction`, but durable only when `synced` resolves, which does not hold the event loop: on
   * a slow disk a sync takes longer than readers should wait. SQLite keeps it whole meanwhile, and
   * syncs by itself before it moves the log into the file.
   */
  transactionUnsynced<T>(work: () => T): T {
    if (this.#options.derived || this.#inTransaction) return this.transaction(work)
    this.#connection.exec('PRAGMA synchronous = NORMAL')
    try {
      return this.transaction(work)
    } finally {
      if (!this.#closed) this.#connection.exec('PRAGMA synchronous = FULL')
    }
  }

  /** What was committed until now is on the disk. */
  async synced(): Promise<void> {
    if (this.#options.derived || this.#closed) return
    this.#log ??= openSync(`${this.#options.path}-wal`, 'r')
    const log = this.#log
    const { promise, resolve, reject } = Promise.withResolvers<void>()
    // whoever let go of the log meanwhile has synced it, or it is of no use any more
    fdatasync(log, error => (error && this.#log === log ? reject(error) : resolve()))
    await promise
  }

  /** Runs SQLite's own check of the whole file; slow. A file that fails is set aside. @returns what was found. */
  check(): string | undefined {
    const finding = this.get('PRAGMA quick_check(1)')?.['quick_check']
    if (finding === 'ok' || finding === undefined) return undefined
    this.#replace(new Error(String(finding)))
    return String(finding)
  }

  [Symbol.dispose](): void {
    if (this.#closed) return
    this.#closed = true
    this.#statements.clear()
    this.#letGoOfLog()
    this.#connection.close()
  }

  /** It is another file once the connection is. */
  #letGoOfLog(): void {
    if (this.#log === undefined) return
    fdatasyncSync(this.#log)
    closeSync(this.#log)
    this.#log = undefined
  }

  #transact<T>(work: () => T): T {
    this.#connection.exec('BEGIN IMMEDIATE')
    this.#inTransaction = true
    try {
      const result = work()
      this.#connection.exec('COMMIT')
      return result
    } catch (error) {
      try {
        this.#connection.exec('ROLLBACK')
      } catch {
        // SQLite has rolled back by itself
      }
      throw error
    } finally {
      this.#inTransaction = false
    }
  }

  #prepared(sql: string): StatementSync {
    let statement = this.#statements.get(sql)
    if (!statement) {
      statement = this.#connection.prepare(sql)
      this.#statements.set(sql, statement)
    }
    return statement
  }

  /** Damage replaces the file, then the call is made once more, on the empty one. */
  #guarded<T>(call: () => T): T {
    if (this.#options.readOnly) this.#followOwner()
    if (this.#closed) throw new EdgeError('NOT_READY', 'the store is closed')
    try {
      return call()
    } catch (error) {
      if (this.#inTransaction || this.#closed || !isDamage(error) || this.#options.readOnly) throw error
      this.#replace(error)
      return call()
    }
  }

  /** The owner may have put another file in the place of a damaged one. */
  #followOwner(): void {
    const now = performance.now()
    if (this.#closed || now - this.#lookedAt < FOLLOW_MS) return
    this.#lookedAt = now
    const inode = inodeOf(this.#options.path)
    if (inode === this.#inode || inode === undefined) return
    this.#statements.clear()
    closeQuietly(this.#connection)
    this.#connection = this.#open()
  }

  #replace(cause: unknown): void {
    this.#statements.clear()
    this.#letGoOfLog()
    closeQuietly(this.#connection)
    const aside = this.#setAside()
    this.#connection = this.#create()
    this.#options.onDamage(cause, aside)
  }

  #open(): DatabaseSync {
    if (this.#options.readOnly) {
      this.#inode = inodeOf(this.#options.path)
      if (this.#inode === undefined)
        throw new EdgeError('NOT_READY', `${this.#options.path} is not there yet`)
      return new DatabaseSync(this.#options.path, { readOnly: true, timeout: 2000 })
    }
    if (!existsSync(this.#options.path)) return this.#create()
    let connection: DatabaseSync | undefined
    try {
      connection = this.#connect()
      if (schemaOf(connection) === expectedSchema(this.#options.schema)) return connection
      throw new Error('the schema is not ours')
    } catch (error) {
      if (connection) closeQuietly(connection)
      if (isFullError(error) || isReadOnlyError(error)) throw error
      const aside = this.#setAside()
      const created = this.#create()
      this.#options.onDamage(error, aside)
      return created
    }
  }

  #create(): DatabaseSync {
    const connection = this.#connect()
    if (schemaOf(connection) === '') connection.exec(`BEGIN; ${this.#options.schema}; COMMIT`)
    return connection
  }

  #connect(): DatabaseSync {
    const connection = new DatabaseSync(this.#options.path, { timeout: 2000 })
    try {
      connection.exec(`
        PRAGMA page_size = ${PAGE_BYTES};
        PRAGMA journal_mode = WAL;
        PRAGMA synchronous = ${this.#options.derived ? 'OFF' : 'FULL'};
        PRAGMA wal_autocheckpoint = ${CHECKPOINT_PAGES};
        PRAGMA cache_size = -${CACHE_KIB};
        PRAGMA cell_size_check = ON;
        PRAGMA trusted_schema = OFF`)
      return connection
    } catch (error) {
      closeQuietly(connection)
      throw error
    }
  }

  #setAside(): string | undefined {
    const { path, derived } = this.#options
    if (derived) {
      for (const suffix of ['', '-wal', '-shm']) rmSync(path + suffix, { force: true })
      return undefined
    }
    let aside = `${path}.damaged`
    for (let copy = 2; existsSync(aside); copy++) aside = `${path}.damaged-${copy}`
    for (const suffix of ['', '-wal']) {
      if (existsSync(path + suffix)) renameSync(path + suffix, aside + suffix)
    }
    rmSync(`${path}-shm`, { force: true })
    return aside
  }
}

/**
 * An integer that a flipped bit has made larger than any of ours is an error in Node. It is read as a wrong
 * number, which readers survive; else one such row would stop every round over its table.
 */
function readWith<T extends object | undefined>(
  statement: StatementSync,
  read: (statement: StatementSync) => T,
): T {
  try {
    return read(statement)
  } catch (error) {
    if (systemCodeOf(error) !== 'ERR_OUT_OF_RANGE') throw error
    statement.setReadBigInts(true)
    try {
      return withNumbers(read(statement)) as T
    } finally {
      statement.setReadBigInts(false)
    }
  }
}

function withNumbers(value: unknown): unknown {
  if (typeof value === 'bigint') return Number(value)
  if (Array.isArray(value)) return value.map(withNumbers)
  if (typeof value !== 'object' || value === null || value instanceof Uint8Array) return value
  return Object.fromEntries(Object.entries(value).map(([name, each]) => [name, withNumbers(each)]))
}

function inodeOf(path: string): number | undefined {
  return statSync(path, { throwIfNoEntry: false })?.ino
}

function isDamage(error: unknown): boolean {
  const code = (error as { errcode?: unknown } | null)?.errcode
  if (isDamageError(error) || READ_ERRORS.includes(Number(code))) return true
  // "no such table": the schema was changed under us, and prepared statements met it
  return sqliteCodeOf(error) === SQLITE.ERROR && /no such (table|column|index)/.test(String(error))
}

function schemaOf(connection: DatabaseSync): string {
  const rows = connection
    .prepare(`SELECT type, name, tbl_name, sql FROM sqlite_schema ORDER BY type, name`)
    .all()
  return rows.map(({ type, name, tbl_name, sql }) => [type, name, tbl_name, sql].join('|')).join('\n')
}

function expectedSchema(schema: string): string {
  const connection = new DatabaseSync(':memory:')
  connection.exec(schema)
  const expected = schemaOf(connection)
  connection.close()
  return expected
}

function closeQuietly(connection: DatabaseSync): void {
  try {
    connection.close()
  } catch {
    // a damaged one may refuse its last checkpoint
  }
}
