/**
 * What a node must never forget, on disk: accepted metadata (the floors of I2), accepted manifests,
 * the denylist, revision floors, operator pins. All of it cannot be derived again.
 *
 * Two files, `a` and `b`, each with everything: a header line with sequence number, length and
 * SHA-256, then JSON. Both are replaced in turn (draft, fsync, rename, fsync of the folder) before an
 * update resolves, so one of them may be cut, flipped or gone and nothing is lost: the newest copy
 * that verifies counts, and the other is written again. When both are damaged nothing is guessed:
 * the store is empty, `damaged` says why, and every update is refused with `TRUST_STATE_DAMAGED`.
 */
import { constants } from 'node:fs'
import { mkdir, open, readFile, rename, rm, stat } from 'node:fs/promises'
import { dirname, join } from 'node:path'
import { sha256Of } from '../manifests/digest.ts'
import { EdgeError } from '../manifests/errors.ts'
import { decodeTrust, EMPTY_TRUST, encodeTrust, type TrustRecord } from './trust-record.ts'

export type { DatasetManifests, TrustRecord } from './trust-record.ts'

const COPIES = ['a', 'b'] as const
const MAGIC = 'towerlight-trust-v1'
const HEADER = /^towerlight-trust-v1 ([1-9]\d{0,15}) (\d{1,12}) ([0-9a-f]{64})\n/
const HEADER_BYTES_MAX = 128

interface Copy {
  readonly sequence: number
  readonly record: TrustRecord
}

/**
 * @param folder created when missing; nobody else may write there (the store's owner lock sees to it).
 * @throws EdgeError `STORE_READ_ONLY` when the folder cannot be made or read.
 */
export async function openTrustStore(folder: string): Promise<TrustStore> {
  try {
    await mkdir(folder, { recursive: true, mode: 0o700 })
    await syncFolder(dirname(folder))
  } catch (cause) {
    throw failureOf(cause, folder)
  }
  const store = new TrustStore(folder)
  await store.reload()
  await store.repair()
  return store
}

export class TrustStore {
  readonly #folder: string
  #sequence = 0
  #record: TrustRecord = EMPTY_TRUST
  #damaged: EdgeError | undefined
  #copiesToWrite: readonly string[] = []
  /** Identity of the copies as last read or written: tells whether somebody else changed them. */
  #seen = ''
  #last: Promise<unknown> = Promise.resolve()

  /** @param folder use `openTrustStore`. */
  constructor(folder: string) {
    this.#folder = folder
  }

  /** As of the last durable update; immutable. */
  get record(): TrustRecord {
    return this.#record
  }

  /** Set when both copies are unreadable: nothing is trusted, and nothing is accepted. */
  get damaged(): EdgeError | undefined {
    return this.#damaged
  }

  /** Grows with each update. */
  get sequence(): number {
    return this.#sequence
  }

  /**
   * Replaces the record, one update after the other; durable in both copies once resolved (I3).
   * @param change pure; gets the record as it is when its turn comes.
   * @throws EdgeError `TRUST_STATE_DAMAGED`, `STORE_FULL`, `STORE_READ_ONLY`: the record is as before.
   */
  update(change: (record: TrustRecord) => TrustRecord): Promise<TrustRecord> {
    const turn = this.#last.then(async () => {
      if (this.#damaged) throw this.#damaged
      const record = change(this.#record)
      const sequence = this.#sequence + 1
      const bytes = encodeCopy(sequence, record)
      for (const copy of COPIES) await this.#write(copy, bytes)
      this.#sequence = sequence
      this.#record = record
      this.#seen = await this.#identity()
      return record
    })
    this.#last = turn.catch(() => undefined)
    return turn
  }

  /** Reads the copies again if another process (the owner) has written. @returns whether it has. */
  async reload(): Promise<boolean> {
    const identity = await this.#identity()
    if (identity === this.#seen) return false
    const found = await Promise.all(COPIES.map(copy => this.#read(copy)))
    this.#seen = identity
    const best = found.map(({ copy }) => copy).reduce(newer, undefined)
    if (this.#sequence > 0 && (best?.sequence ?? 0) < this.#sequence) {
      this.#copiesToWrite = COPIES // I2: what this process has seen is a floor too
      return false
    }
    if (!best) {
      this.#damaged = found.some(({ present }) => present) ? damage(this.#folder) : undefined
      return true
    }
    this.#damaged = undefined
    this.#copiesToWrite = COPIES.filter((_, at) => found[at]?.copy?.sequence !== best.sequence)
    this.#sequence = best.sequence
    this.#record = best.record
    return true
  }

  /** Writes a damaged or older copy again. A folder that cannot be written is left as it is. */
  async repair(): Promise<void> {
    const copies = this.#copiesToWrite
    this.#copiesToWrite = []
    if (copies.length === 0 || this.#damaged) return
    const bytes = encodeCopy(this.#sequence, this.#record)
    try {
      for (const copy of copies) await this.#write(copy, bytes)
      this.#seen = await this.#identity()
    } catch {
      this.#copiesToWrite = copies
    }
  }

  async #read(name: string): Promise<{ present: boolean; copy: Copy | undefined }> {
    let bytes: Buffer
    try {
      bytes = await readFile(join(this.#folder, name))
    } catch (error) {
      return { present: (error as NodeJS.ErrnoException).code !== 'ENOENT', copy: undefined }
    }
    return { present: true, copy: decodeCopy(bytes) }
  }

  async #write(name: string, bytes: Uint8Array): Promise<void> {
    const path = join(this.#folder, name)
    const draft = `${path}.draft`
    try {
      {
        await using file = await open(draft, 'w', 0o600)
        await file.writeFile(bytes)
        await file.sync()
      }
      await rename(draft, path)
      await syncFolder(this.#folder)
    } catch (cause) {
      await rm(draft, { force: true }).catch(() => undefined)
      throw failureOf(cause, path)
    }
  }

  async #identity(): Promise<string> {
    const stats = await Promise.all(
      COPIES.map(copy => stat(join(this.#folder, copy), { bigint: true }).catch(() => undefined)),
    )
    return stats.map(found => (found ? `${found.ino} ${found.mtimeNs} ${found.size}` : '-')).join('\n')
  }
}

async function syncFolder(path: string): Promise<void> {
  await using folder = await open(path, constants.O_RDONLY)
  await folder.sync()
}

function encodeCopy(sequence: number, record: TrustRecord): Buffer {
  const body = encodeTrust(record)
  const header = `${MAGIC} ${sequence} ${body.length} ${digestOf(sequence, body)}\n`
  return Buffer.concat([Buffer.from(header), body])
}

/** @returns `undefined` for anything but a whole, unchanged copy. */
export function decodeCopy(bytes: Buffer): Copy | undefined {
  const header = HEADER.exec(bytes.toString('latin1', 0, HEADER_BYTES_MAX))
  if (!header) return undefined
  const [line, sequenceText, length, digest] = header
  const sequence = Number(sequenceText)
  const body = bytes.subarray(line.length)
  if (body.length !== Number(length) || digestOf(sequence, body) !== digest) return undefined
  try {
    return { sequence, record: decodeTrust(body) }
  } catch {
    return undefined
  }
}

function digestOf(sequence: number, body: Buffer): string {
  return sha256Of(`${sequence} ${sha256Of(body)}`)
}

function newer(best: Copy | undefined, copy: Copy | undefined): Copy | undefined {
  return copy && (!best || copy.sequence > best.sequence) ? copy : best
}

function damage(folder: string): EdgeError {
  return new EdgeError(
    'TRUST_STATE_DAMAGED',
    `both copies of the trust state in ${folder} are unreadable. Nothing new is accepted, because an older release could not be told from a newer one. ` +
      'Put a saved copy of `a` or `b` back; or, if there is none, move the folder away and give the root again (this gives up rollback protection once)',
  )
}

function failureOf(cause: unknown, path: string): EdgeError {
  const { code, message } = cause as NodeJS.ErrnoException
  if (code === 'ENOSPC' || code === 'EDQUOT') {
    return new EdgeError('STORE_FULL', `no space for ${path}: free some, then try again`, { cause })
  }
  return new EdgeError('STORE_READ_ONLY', `cannot write ${path} (${message})`, { cause })
}
