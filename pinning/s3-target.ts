/**
 * An S3 server (MinIO) as a pin target. An extent's content is one object, `extents-v1/<cid>`; its
 * dag-pb nodes are `nodes-v1/<cid>`; an item is kept once its marker, `pins-v1/<root>`, is written,
 * which happens last. Markers list what the item needs, so that removing one frees exactly what no
 * other needs.
 *
 * minio 8.0.7's stream path loses errors and has no time-outs, so bodies are Buffers
 * (an extent is small enough) and every call races a deadline. Nothing is asked of the server that
 * Garage and SeaweedFS lack: no versioning, locks or tags.
 */
import { Client } from 'minio'
import pLimit from 'p-limit'
import { type Cid, codecOf, digestOf, parseCid } from '../manifests/cid.ts'
import { sha256Of } from '../manifests/digest.ts'
import { EdgeError } from '../manifests/errors.ts'
import type { Abortable, ExtentRef } from '../manifests/extent.ts'
import { parseNode } from '../manifests/unixfs.ts'
import type { PinItem, PinOutcome, PinTarget } from './pin-target.ts'

export interface S3Options {
  /** `http://key:secret@127.0.0.1:9000/bucket` */
  readonly url: string
  readonly region: string
  readonly callMs: number
  /** Requests under way at once. */
  readonly concurrency: number
}

interface Marker {
  readonly root: Cid
  readonly nodes: readonly Cid[]
  readonly extents: readonly ExtentRef[]
}

const EXTENTS = 'extents-v1/'
const NODES = 'nodes-v1/'
const PINS = 'pins-v1/'

/** Creates the bucket when it is missing. @throws EdgeError `PIN_TARGET_DOWN` */
export async function openS3Target(options: S3Options, { signal }: Abortable): Promise<PinTarget> {
  const bucket = new Bucket(options)
  await bucket.create({ signal })
  const limit = pLimit(options.concurrency)

  return {
    name: 's3',

    async pin(items, options) {
      return await Promise.all(
        items.map(async (item): Promise<PinOutcome> => {
          try {
            await pinOne(bucket, item, limit, options)
            return { root: item.root }
          } catch (error) {
            options.signal.throwIfAborted()
            return { root: item.root, error: error instanceof Error ? error : new Error(String(error)) }
          }
        }),
      )
    },

    async unpin(root, options) {
      const gone = await markerOf(bucket, root, options)
      if (!gone) return
      await bucket.remove([`${PINS}${root}`], options)
      const needed = new Set<string>()
      for await (const key of bucket.keys(PINS, options)) {
        const other = await markerOf(bucket, key.slice(PINS.length), options)
        for (const { cid } of other?.extents ?? []) needed.add(EXTENTS + cid)
        for (const cid of other?.nodes ?? []) needed.add(NODES + cid)
      }
      const keys = [...gone.extents.map(({ cid }) => EXTENTS + cid), ...gone.nodes.map(cid => NODES + cid)]
      await bucket.remove(keys.filter(key => !needed.has(key)), options)
    },

    async *list(options) {
      for await (const key of bucket.keys(PINS, options)) yield parseCid(key.slice(PINS.length))
    },

    async prove({ root, extents }, options) {
      if (!(await bucket.read(`${PINS}${root}`, options))) {
        throw new EdgeError('CHUNK_ABSENT', `S3 has no marker for ${root}`)
      }
      const sizes = await Promise.all(extents.map(extent => limit(() => proveExtent(bucket, extent, options))))
      return { bytesRead: sizes.reduce((sum, size) => sum + size, 0) }
    },

    roomBytes: () => Promise.resolve(undefined),
    fetchExtent: ({ cid }, options) => bucket.read(EXTENTS + cid, options),
    fetchNode: (cid, options) => bucket.read(NODES + cid, options),
  }
}

type Limit = ReturnType<typeof pLimit>

async function pinOne(bucket: Bucket, item: PinItem, limit: Limit, options: Abortable): Promise<void> {
  const nodes: Cid[] = []
  const writes: Promise<void>[] = []
  for await (const node of item.nodes(options)) {
    nodes.push(node.cid)
    writes.push(limit(() => bucket.writeOnce(NODES + node.cid, () => Promise.resolve(node.bytes), options)))
  }
  for (const { cid } of item.extents) {
    writes.push(limit(() => bucket.writeOnce(EXTENTS + cid, () => item.readExtent(cid, options), options)))
  }
  await Promise.all(writes)
  const marker: Marker = { root: item.root, nodes, extents: item.extents }
  await limit(() => bucket.write(`${PINS}${item.root}`, Buffer.from(JSON.stringify(marker)), options))
}

async function markerOf(bucket: Bucket, root: string, options: Abortable): Promise<Marker | undefined> {
  const bytes = await bucket.read(PINS + root, options)
  return bytes && (JSON.parse(Buffer.from(bytes).toString('utf8')) as Marker)
}

/** Reads the extent back and verifies it chunk by chunk. */
async function proveExtent(bucket: Bucket, { cid }: ExtentRef, options: Abortable): Promise<number> {
  const content = await bucket.read(EXTENTS + cid, options)
  if (!content) throw new EdgeError('CHUNK_ABSENT', `S3 lacks extent ${cid}`)
  if (codecOf(cid) === 'raw') {
    if (sha256Of(content) !== digestOf(cid)) throw new EdgeError('CHUNK_CORRUPT', `S3 has other bytes for ${cid}`)
    return content.length
  }
  const node = await bucket.read(NODES + cid, options)
  if (!node) throw new EdgeError('CHUNK_ABSENT', `S3 lacks node ${cid}`)
  if (sha256Of(node) !== digestOf(cid)) throw new EdgeError('CHUNK_CORRUPT', `S3 has other bytes for node ${cid}`)
  let from = 0
  for (const { cid: chunk, sizeBytes } of parseNode(node).links) {
    if (sha256Of(content.subarray(from, from + sizeBytes)) !== digestOf(chunk)) {
      throw new EdgeError('CHUNK_CORRUPT', `S3 has other bytes for ${cid} at ${from}`)
    }
    from += sizeBytes
  }
  return content.length
}

/** The few calls we make, each with a deadline, in Buffers. */
class Bucket {
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

  async read(key: string, { signal }: Abortable): Promise<Buffer | undefined> {
    const collect = async () => {
      const pieces: Buffer[] = []
      for await (const piece of await this.#client.getObject(this.#name, key)) pieces.push(piece as Buffer)
      return Buffer.concat(pieces)
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
    try {
      await this.#within(options.signal, this.#client.statObject(this.#name, key))
    } catch (error) {
      if (!isAbsent(error)) throw error
      await this.write(key, await content(), options)
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
    const onLate = () => reject(new EdgeError('PIN_TARGET_DOWN', `s3 did not answer within ${this.#callMs} ms`))
    late.addEventListener('abort', onLate, { once: true })
    try {
      return await Promise.race([call, promise])
    } catch (cause) {
      signal.throwIfAborted()
      if (isAbsent(cause) || cause instanceof EdgeError) throw cause
      throw new EdgeError('PIN_TARGET_DOWN', `s3 failed: ${cause instanceof Error ? cause.message : cause}`, { cause })
    } finally {
      late.removeEventListener('abort', onLate)
      call.catch(() => {}) // lost the race: its failure has been reported already
    }
  }
}

function isAbsent(error: unknown): boolean {
  const code = error instanceof Error && 'code' in error ? error.code : undefined
  return code === 'NoSuchKey' || code === 'NotFound'
}
