/**
 * Renditions of pictures, kept in `renditions-v1/` (`KeptFiles`): hashed at creation and again on each
 * read, made anew when the bytes differ.
 */
import { join } from 'node:path'
import { sha256Of, type Sha256 } from '../../manifests/digest.ts'
import type { Abortable } from '../../manifests/extent.ts'
import { type KeptFile, KeptFiles } from '../kept-files.ts'
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

interface RenditionsOptions {
  readonly bytesMax: number
  /** Free space of the disk that is never taken. */
  readonly reserveBytes?: number
  /** The node's data folder. */
  readonly folder: string
  readonly renderer: Renderer
  /** Whether there is power to make new ones. */
  readonly isAllowed?: () => boolean
}

export class Renditions {
  readonly #files: KeptFiles
  readonly #renderer: Renderer
  readonly #isAllowed: () => boolean
  readonly #underWay = new Map<Sha256, Promise<KeptFile>>()

  private constructor(files: KeptFiles, renderer: Renderer, isAllowed: () => boolean) {
    this.#files = files
    this.#renderer = renderer
    this.#isAllowed = isAllowed
  }

  static async open(options: RenditionsOptions): Promise<Renditions> {
    const { folder, bytesMax, reserveBytes = 0, renderer, isAllowed = () => true } = options
    const files = await KeptFiles.open(join(folder, 'renditions-v1'), { bytesMax, reserveBytes })
    return new Renditions(files, renderer, isAllowed)
  }

  /** As `KeptFiles.begin`. */
  begin(epoch: string): Promise<void> {
    return this.#files.begin(epoch)
  }

  /**
   * @returns undefined when it is not kept and the battery is too low to make it: take the original.
   * @throws EdgeError as `Renderer.render`, and what reading the original throws.
   */
  async get(picture: Picture, rendition: Rendition, options: Abortable): Promise<Rendered | undefined> {
    const key = renditionKey(picture.sha256, rendition)
    const found = await this.#files.read(key)
    if (!found?.bytes.length && !this.#isAllowed()) return undefined
    const file = found?.bytes.length ? found : await this.#make(key, picture, rendition, options)
    return { ...file, mediaType: `image/${rendition.format}` }
  }

  /** One rendering per key; it goes on when the first who asked has left, for those who wait. */
  async #make(key: Sha256, picture: Picture, rendition: Rendition, { signal }: Abortable): Promise<KeptFile> {
    let made = this.#underWay.get(key)
    if (!made) {
      const own = { signal: new AbortController().signal }
      made = picture
        .read(own)
        .then(source => this.#renderer.render(source, rendition, own))
        .then(async bytes => {
          const file = { bytes, sha256: sha256Of(bytes) }
          await this.#files.write(key, file).catch(() => {}) // a full disk: made again next time
          return file
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
}
