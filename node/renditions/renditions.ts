/**
 * Renditions of pictures, kept. A file `renditions-v1/<2 hex>/<key>` holds the SHA-256 of the
 * encoded bytes and then the bytes; it is hashed at creation and again on each read, and made anew
 * when they differ. Bounded in bytes, least recently used first; losing the folder loses nothing.
 */
import { randomUUID } from 'node:crypto'
import { mkdir, readdir, readFile, rename, rm, stat, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { LRUCache } from 'lru-cache'
import { sha256Of, type Sha256 } from '../../manifests/digest.ts'
import type { Abortable } from '../../manifests/extent.ts'
import { type Rendition, renditionKey } from './rendition.ts'
import type { Renderer } from './renderer.ts'

export interface Rendered {
  readonly bytes: Buffer
  readonly sha256: Sha256
  readonly mediaType: string
}

export interface Picture {
  readonly sha256: Sha256
  /** The whole original, verified. */
  read(options: Abortable): Promise<Uint8Array>
}

const DIGEST_BYTES = 32

export class Renditions {
  readonly #folder: string
  readonly #renderer: Renderer
  readonly #files: LRUCache<Sha256, number>
  readonly #underWay = new Map<Sha256, Promise<Buffer>>()

  private constructor(folder: string, bytesMax: number, renderer: Renderer) {
    this.#folder = folder
    this.#renderer = renderer
    this.#files = new LRUCache<Sha256, number>({
      maxSize: Math.max(1, bytesMax),
      sizeCalculation: sizeBytes => Math.max(1, sizeBytes),
      dispose: (_size, key, reason) => {
        if (reason === 'evict') void rm(this.#pathOf(key), { force: true })
      },
    })
  }

  /** Reads names and sizes only. */
  static async open(options: { folder: string; bytesMax: number; renderer: Renderer }): Promise<Renditions> {
    const folder = join(options.folder, 'renditions-v1')
    await mkdir(folder, { recursive: true })
    const renditions = new Renditions(folder, options.bytesMax, options.renderer)
    const found: { key: Sha256; sizeBytes: number; usedMs: number }[] = []
    for (const shelf of await readdir(folder)) {
      for (const key of await readdir(join(folder, shelf))) {
        const path = join(folder, shelf, key)
        if (key.endsWith('.draft')) await rm(path, { force: true })
        else {
          const { size, mtimeMs } = await stat(path)
          found.push({ key: key as Sha256, sizeBytes: size, usedMs: mtimeMs })
        }
      }
    }
    for (const { key, sizeBytes } of found.toSorted((a, b) => a.usedMs - b.usedMs))
      renditions.#files.set(key, sizeBytes)
    return renditions
  }

  /** @throws EdgeError as `Renderer.render`, and what reading the original throws. */
  async get(picture: Picture, rendition: Rendition, options: Abortable): Promise<Rendered> {
    const key = renditionKey(picture.sha256, rendition)
    const bytes = (await this.#load(key)) ?? (await this.#make(key, picture, rendition, options))
    return { bytes, sha256: sha256Of(bytes), mediaType: `image/${rendition.format}` }
  }

  async #load(key: Sha256): Promise<Buffer | undefined> {
    if (!this.#files.get(key)) return undefined
    const file = await readFile(this.#pathOf(key)).catch(() => Buffer.alloc(0))
    const bytes = file.subarray(DIGEST_BYTES)
    if (file.length > DIGEST_BYTES && sha256Of(bytes) === file.toString('hex', 0, DIGEST_BYTES)) return bytes
    this.#files.delete(key)
    return undefined
  }

  /** One rendering per key; it goes on when the first who asked has left, for those who wait. */
  async #make(key: Sha256, picture: Picture, rendition: Rendition, { signal }: Abortable): Promise<Buffer> {
    let made = this.#underWay.get(key)
    if (!made) {
      const own = { signal: new AbortController().signal }
      made = picture
        .read(own)
        .then(source => this.#renderer.render(source, rendition, own))
        .then(async bytes => {
          await this.#keep(key, bytes)
          return bytes
        })
        .finally(() => this.#underWay.delete(key))
      this.#underWay.set(key, made)
    }
    const left = Promise.withResolvers<never>()
    const leave = () => left.reject(signal.reason)
    signal.addEventListener('abort', leave, { once: true })
    try {
      return await Promise.race([made, left.promise])
    } finally {
      signal.removeEventListener('abort', leave)
    }
  }

  async #keep(key: Sha256, bytes: Buffer): Promise<void> {
    const path = this.#pathOf(key)
    const draft = `${path}.${randomUUID()}.draft`
    await mkdir(join(path, '..'), { recursive: true })
    await writeFile(draft, Buffer.concat([Buffer.from(sha256Of(bytes), 'hex'), bytes]))
    await rename(draft, path)
    this.#files.set(key, bytes.length + DIGEST_BYTES)
    if (!this.#files.has(key)) await rm(path, { force: true }) // larger than all that may be kept
  }

  #pathOf(key: Sha256): string {
    return join(this.#folder, key.slice(0, 2), key)
  }
}
