/**
 * An S3 bucket through minio's client, as far as we use one.
 *
 * minio 8.0.7's stream path loses errors and has no time-outs, so bodies are Buffers, parts of a
 * large object are read by range, and every call races a deadline.
 */
import { Client } from 'minio'
import { EdgeError } from '../manifests/errors.ts'
import type { Abortable } from '../manifests/extent.ts'

export interface S3Options {
  /** `http://key:secret@127.0.0.1:9000/bucket` */
  readonly url: string
  readonly region: string
  readonly callMs: number
  /** Requests under way at once. */
  readonly concurrency: number
}

/** The few calls we make, each with a deadline, in Buffers. */
export class Bucket {
  readonly #client: Client
  readonly #name: string
  readonly #region: string
  readonly #callMs: number

  constructor({ url, region, callMs }: S3Options) {
    const { protocol, hostname, port, username, password, pathname } = new URL(url)
    this.#client = new Client({
      endPoint: hostname,
      port: Number(port || (protocol === 'https:' ? 443 : 80)),
      useSSL: protocol === 'https:',
      accessKey: decodeURIComponent(username),
      secretKey: decodeURIComponent(password),
      region,
      pathStyle: true,
    })
    this.#name = pathname.slice(1)
    this.#region = region
    this.#callMs = callMs
  }

  async create({ signal }: Abortable): Promise<void> {
    if (await this.#within(signal, this.#client.bucketExists(this.#name))) return
    await this.#within(signal, this.#client.makeBucket(this.#name, this.#region))
  }

  /** @param range only these bytes; a server that ignores ranges is an error. */
  async read(
    key: string,
    { signal }: Abortable,
    range?: { readonly offset: number; readonly length: number },
  ): Promise<Buffer | undefined> {
    const collect = async () => {
      const pieces: Buffer[] = []
      const object = range
        ? await this.#client.getPartialObject(this.#name, key, range.offset, range.length)
        : await this.#client.getObject(this.#name, key)
      for await (const piece of object) pieces.push(piece as Buffer)
      const bytes = Buffer.concat(pieces)
      if (range && bytes.length > range.length)
        throw new EdgeError('UPSTREAM_LIED', `s3 ignored a range of ${key}`)
      return bytes
    }
    try {
      return await this.#within(signal, collect())
    } catch (error) {
      if (isAbsent(error)) return undefined
      throw error
    }
  }

  async write(key: string, bytes: Uint8Array, { signal }: Abortable): Promise<void> {
    const body = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength)
    await this.#within(signal, this.#client.putObject(this.#name, key, body, body.length))
  }

  /** Writes unless the object is there: keys are content names, so what is there is the same. */
  async writeOnce(key: string, content: () => Promise<Uint8Array>, options: Abortable): Promise<void> {
    if ((await this.sizeOf(key, options)) === undefined) await this.write(key, await content(), options)
  }

  /** @throws EdgeError `PUBLISH_CONFLICT` when the object exists. */
  async writeNew(key: string, bytes: Uint8Array, { signal }: Abortable): Promise<void> {
    const body = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength)
    try {
      await this.#within(
        signal,
        this.#client.putObject(this.#name, key, body, body.length, { 'If-None-Match': '*' }),
      )
    } catch (cause) {
      if (!(cause instanceof EdgeError) || codeOf(cause.cause) !== 'PreconditionFailed') throw cause
      throw new EdgeError('PUBLISH_CONFLICT', `${key} exists already: another release came in between`, {
        cause,
      })
    }
  }

  async sizeOf(key: string, { signal }: Abortable): Promise<number | undefined> {
    try {
      return (await this.#within(signal, this.#client.statObject(this.#name, key))).size
    } catch (error) {
      if (isAbsent(error)) return undefined
      throw error
    }
  }

  async remove(keys: readonly string[], { signal }: Abortable): Promise<void> {
    for (let from = 0; from < keys.length; from += 1000) {
      await this.#within(signal, this.#client.removeObjects(this.#name, keys.slice(from, from + 1000)))
    }
  }

  async *keys(prefix: string, { signal }: Abortable): AsyncGenerator<string> {
    let after = ''
    for (;;) {
      const page = await this.#within(
        signal,
        this.#client.listObjectsV2Query(this.#name, prefix, '', '', 1000, after),
      )
      for (const { name } of page.objects) if (name) yield name
      const last = page.objects.at(-1)?.name
      if (!page.isTruncated || !last) return
      after = last
    }
  }

  /** @throws EdgeError `PIN_TARGET_DOWN`, unless the server's answer is that the object is absent. */
  async #within<T>(signal: AbortSignal, call: Promise<T>): Promise<T> {
    const late = AbortSignal.any([signal, AbortSignal.timeout(this.#callMs)])
    const { promise, reject } = Promise.withResolvers<never>()
    const onLate = () =>
      reject(new EdgeError('PIN_TARGET_DOWN', `s3 did not answer within ${this.#callMs} ms`))
    late.addEventListener('abort', onLate, { once: true })
    try {
      return await Promise.race([call, promise])
    } catch (cause) {
      signal.throwIfAborted()
      if (isAbsent(cause) || cause instanceof EdgeError) throw cause
      throw new EdgeError(
        'PIN_TARGET_DOWN',
        `s3 failed: ${cause instanceof Error ? cause.message : String(cause)}`,
        {
          cause,
        },
      )
    } finally {
      late.removeEventListener('abort', onLate)
      call.catch(() => {}) // lost the race: its failure has been reported already
    }
  }
}

function codeOf(error: unknown): unknown {
  return error instanceof Error && 'code' in error ? error.code : undefined
}

function isAbsent(error: unknown): boolean {
  const code = codeOf(error)
  return code === 'NoSuchKey' || code === 'NotFound'
}
