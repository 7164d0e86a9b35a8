/**
 * Encoded representations of items, kept: made once from verified bytes, on the thread pool, then given
 * from memory or from `encodings-v1/`.
 *
 * The item's own bytes stay the authority. An encoding is made only from bytes that have the item's
 * digest, is hashed when made and again at each read (I1), and is filed under digest, coding, encoder
 * and dictionary, so it can never be taken for anything else. Bounded: in memory, on disk, in how many
 * are made at once and in how many wait. Where a bound is met the item goes out as it is.
 *
 * The Zstandard encoding of an item outlives its release here: it is also where a dictionary comes from
 * that a browser still holds. Only what was given out under a path is a dictionary for it, so nobody can
 * have everything encoded against everything.
 */
import { join } from 'node:path'
import { LRUCache } from 'lru-cache'
import { type Sha256, sha256Of } from '../../../manifests/digest.ts'
import { EdgeError } from '../../../manifests/errors.ts'
import type { Abortable } from '../../../manifests/extent.ts'
import { type KeptFile, KeptFiles } from '../../kept-files.ts'
import { type Variant, keyOf } from './codings.ts'
import { decodeZstd, encode, encodeWith } from './encoder.ts'

export interface Encoded extends KeptFile {
  /** Of each `PIECE_BYTES`, where there are several: large answers are verified as they are sent. */
  readonly pieces: readonly Sha256[]
}

/** Nothing is gained by it, too many are being made, or the battery is low: send the item as it is. */
export type AsItIs = 'as-it-is'
/** Only the owner of the store makes encodings. */
export type NotHere = 'not-here'

export interface EncodableItem {
  readonly sha256: Sha256
  /** The path that it was asked for by, if any: for that it becomes a dictionary. */
  readonly path?: string | undefined
  /** The whole item, its chunks verified. */
  read(options: Abortable): Promise<Buffer>
}

export interface EncodingsOptions {
  /** The node's data folder. */
  readonly folder: string
  readonly diskBytesMax: number
  readonly memoryBytesMax: number
  /** Free space of the disk that is never taken. */
  readonly reserveBytes?: number
  /** Whether there is power to make new ones. */
  readonly isAllowed?: () => boolean
}

export const ENCODING_MEMORY_BYTES_MAX = 16 * 1024 * 1024
export const PIECE_BYTES = 64 * 1024
/** Of the item's size: what is less than this shorter is not worth the client's work. */
const GAIN_MIN = 0.05
const AT_ONCE_MAX = 2
const WAITING_MAX = 32
const NOTHING = Buffer.alloc(0)

export class Encodings implements AsyncDisposable {
  readonly #files: KeptFiles
  readonly #isOwner: boolean
  readonly #isAllowed: () => boolean
  /** Without bytes: nothing is gained. */
  readonly #memory: LRUCache<Sha256, Encoded>
  readonly #underWay = new Map<Sha256, Promise<Encoded | AsItIs>>()
  readonly #queue: (() => void)[] = []
  #running = 0

  private constructor(files: KeptFiles, memoryBytesMax: number, isOwner: boolean, isAllowed = () => true) {
    this.#files = files
    this.#isOwner = isOwner
    this.#isAllowed = isAllowed
    this.#memory = new LRUCache<Sha256, Encoded>({
      maxSize: Math.max(1, memoryBytesMax),
      sizeCalculation: ({ bytes, pieces }) => bytes.length + pieces.length * 80 + 500,
    })
  }

  static async open(options: EncodingsOptions): Promise<Encodings> {
    const { folder, diskBytesMax: bytesMax, memoryBytesMax, reserveBytes = 0 } = options
    const files = await KeptFiles.open(join(folder, 'encodings-v1'), { bytesMax, reserveBytes })
    return new Encodings(files, memoryBytesMax, true, options.isAllowed)
  }

  /** In a worker: what the owner keeps. */
  static reader({ folder, memoryBytesMax }: Pick<EncodingsOptions, 'folder' | 'memoryBytesMax'>): Encodings {
    return new Encodings(KeptFiles.reader(join(folder, 'encodings-v1')), memoryBytesMax, false)
  }

  /** As `KeptFiles.begin`. */
  begin(epoch: string): Promise<void> {
    this.#memory.clear()
    return this.#files.begin(epoch)
  }

  /** Not verified: hash before use, and `forget` what differs. Undefined: ask `get`. */
  inMemory(sha256: Sha256, variant: Variant): Encoded | AsItIs | undefined {
    const found = this.#memory.get(keyOf(sha256, variant))
    return found?.bytes.length === 0 ? 'as-it-is' : found
  }

  forget(sha256: Sha256, variant: Variant): void {
    this.#memory.delete(keyOf(sha256, variant))
  }

  /**
   * Verified just now. One making for all who ask; it goes on when they have left.
   * `as-it-is`, too, where the variant's dictionary is none of ours for this path.
   * @throws what reading the item throws.
   */
  async get(item: EncodableItem, variant: Variant): Promise<Encoded | AsItIs | NotHere> {
    const key = keyOf(item.sha256, variant)
    const file = await this.#files.read(key)
    if (file) {
      if (variant.coding === 'zstd') await this.#offer(item)
      return this.#remember(key, file)
    }
    if (!this.#isOwner) return 'not-here'
    let made = this.#underWay.get(key)
    if (!made) {
      if (this.#queue.length >= WAITING_MAX || !this.#isAllowed()) return 'as-it-is'
      made = this.#make(key, item, variant).finally(() => this.#underWay.delete(key))
      this.#underWay.set(key, made)
    }
    return made
  }

  /** What was given out as `path` before, whether or not it is still in a release; proven by its digest. */
  async dictionary(path: string, sha256: Sha256): Promise<Buffer | undefined> {
    if (!(await this.#files.read(offerOf(path, sha256)))) return undefined
    const file = await this.#files.read(keyOf(sha256, { coding: 'zstd' }))
    if (!file?.bytes.length) return undefined
    const bytes = await decodeZstd(file.bytes).catch(() => NOTHING)
    return sha256Of(bytes) === sha256 ? bytes : undefined
  }

  /** Lets what is being made finish. */
  async [Symbol.asyncDispose](): Promise<void> {
    await Promise.allSettled([this.#files.settled(), ...this.#underWay.values()])
  }

  async #make(key: Sha256, item: EncodableItem, variant: Variant): Promise<Encoded | AsItIs> {
    await this.#turn()
    try {
      const held = variant.coding === 'dcz' && (await this.dictionary(item.path ?? '', variant.dictionary))
      if (variant.coding === 'dcz' && !held) return 'as-it-is'
      const source = await item.read({ signal: new AbortController().signal })
      if (sha256Of(source) !== item.sha256)
        throw new EdgeError('CHUNK_CORRUPT', `item ${item.sha256} as a whole`)
      const bytes =
        variant.coding === 'dcz'
          ? await encodeWith(source, held as Buffer, variant.dictionary)
          : await encode(source, variant.coding)
      const gained = bytes.length <= source.length * (1 - GAIN_MIN)
      const file = { bytes: gained ? bytes : NOTHING, sha256: sha256Of(gained ? bytes : NOTHING) }
      await this.#files.write(key, file).catch(() => {}) // a full disk: it stays in memory
      if (variant.coding === 'zstd') await this.#offer(item)
      return this.#remember(key, file)
    } finally {
      const next = this.#queue.shift()
      if (next) next()
      else this.#running--
    }
  }

  /** Whoever is done hands its place on. */
  async #turn(): Promise<void> {
    if (this.#running < AT_ONCE_MAX) this.#running++
    else await new Promise<void>(resolve => this.#queue.push(resolve))
  }

  /** Notes that it is a dictionary for its path. */
  async #offer({ sha256, path }: EncodableItem): Promise<void> {
    if (path === undefined || !this.#isOwner) return
    const key = offerOf(path, sha256)
    if (await this.#files.read(key)) return
    await this.#files.write(key, { bytes: NOTHING, sha256: sha256Of(NOTHING) }).catch(() => {})
  }

  #remember(key: Sha256, file: KeptFile): Encoded | AsItIs {
    const pieces = file.bytes.length > 2 * PIECE_BYTES ? piecesOf(file.bytes) : []
    const encoded = { ...file, pieces }
    this.#memory.set(key, encoded)
    return file.bytes.length === 0 ? 'as-it-is' : encoded
  }
}

function offerOf(path: string, sha256: Sha256): Sha256 {
  return sha256Of(Buffer.from(`${sha256} is a dictionary for ${path}`))
}

function piecesOf(bytes: Buffer): Sha256[] {
  return Array.from({ length: Math.ceil(bytes.length / PIECE_BYTES) }, (_, i) => sha256Of(pieceAt(bytes, i)))
}

export function pieceAt(bytes: Buffer, piece: number): Buffer {
  return bytes.subarray(piece * PIECE_BYTES, (piece + 1) * PIECE_BYTES)
}
