/**
 * An S3 server (MinIO) as a pin target. An item of one block is one object, `extents-v1/<cid>`, and
 * is kept once that is there. A larger one has its extents' content there, its dag-pb nodes at
 * `nodes-v1/<cid>`, and is kept once its marker, `pins-v1/<root>`, is written, which happens last.
 * Markers list what the item needs, so that removing one frees exactly what no other needs.
 *
 * Round trips are what small items cost: so one write each, without asking first. Only content that
 * is larger than a question is asked for.
 *
 * Nothing is asked of the server that Garage and SeaweedFS lack: no versioning, locks or tags.
 */
import pLimit from 'p-limit'
import { type Cid, codecOf, digestOf, parseCid } from '../manifests/cid.ts'
import { sha256Of } from '../manifests/digest.ts'
import { EdgeError, isEdgeError } from '../manifests/errors.ts'
import type { Abortable, ExtentRef } from '../manifests/extent.ts'
import { parseNode } from '../manifests/unixfs.ts'
import { Bucket, type S3Options } from './bucket.ts'
import type { PinItem, PinOptions, PinOutcome, PinTarget } from './pin-target.ts'

interface Marker {
  readonly root: Cid
  readonly nodes: readonly Cid[]
  readonly extents: readonly ExtentRef[]
}

const EXTENTS = 'extents-v1/'
/** Extents of one raw block: only items of one block have these. */
const RAW_EXTENTS = `${EXTENTS}bafk`
const NODES = 'nodes-v1/'
const PINS = 'pins-v1/'
/** From here on a HEAD is cheaper than sending again what may be there. */
const ASKED_BYTES = 128 * 1024
/** One object that cannot be written is the item's fault, so many in a row are the server's. */
const FAILURES_MAX = 8
/** Extents that are in memory at a time, each up to 8 MiB and copied on its way. */
const LARGE_AT_ONCE = 2

/** Creates the bucket when it is missing. @throws EdgeError `PIN_TARGET_DOWN` */
export async function openS3Target(options: S3Options, { signal }: Abortable): Promise<PinTarget> {
  const bucket = new Bucket(options)
  await bucket.create({ signal })
  const limit = pLimit(options.concurrency)
  const large = pLimit(LARGE_AT_ONCE)

  return {
    name: 's3',

    async pin(items, options) {
      let failures = 0
      let down: EdgeError | undefined
      const outcomes = await Promise.all(
        items.map(async (item): Promise<PinOutcome> => {
          try {
            if (!down) await pinOne(bucket, item, { limit, large }, options)
            failures = 0
            return { root: item.root }
          } catch (error) {
            options.signal.throwIfAborted()
            if (isEdgeError(error, 'PIN_TARGET_DOWN') && ++failures >= FAILURES_MAX) down ??= error
            return { root: item.root, error: error instanceof Error ? error : new Error(String(error)) }
          }
        }),
      )
      if (down) throw down
      return outcomes
    },

    async unpin(roots, options) {
      const markers = await markersOf(bucket, roots.filter(isTree), limit, options)
      await bucket.remove(
        roots.map(root => (isTree(root) ? PINS + root : EXTENTS + root)),
        options,
      )
      if (markers.length === 0) return
      const others = (await Array.fromAsync(bucket.keys(PINS, options))).map(rootIn)
      const needed = new Set((await markersOf(bucket, others, limit, options)).flatMap(keysOf))
      const free = new Set(markers.flatMap(keysOf)).difference(needed)
      await bucket.remove([...free], options)
    },

    async *list(options) {
      for (const prefix of [PINS, RAW_EXTENTS]) {
        for await (const key of bucket.keys(prefix, options)) yield rootIn(key)
      }
    },

    async prove({ root, extents }, options) {
      if (isTree(root) && (await bucket.sizeOf(PINS + root, options)) === undefined)
        throw new EdgeError('CHUNK_ABSENT', `S3 has no marker for ${root}`)
      const sizes = await Promise.all(
        extents.map(extent => limit(() => proveExtent(bucket, extent, options))),
      )
      return { bytesRead: sizes.reduce((sum, size) => sum + size, 0) }
    },

    roomBytes: () => Promise.resolve(undefined),
    fetchExtent: ({ cid }, options) => bucket.read(EXTENTS + cid, options),
    fetchBlock: (cid, options) => bucket.read((isTree(cid) ? NODES : EXTENTS) + cid, options),

    files: {
      async read(path, maxBytes, options) {
        const sizeBytes = await bucket.sizeOf(path, options)
        if (sizeBytes === undefined) return undefined
        if (sizeBytes > maxBytes) throw new EdgeError('UPSTREAM_LIED', `${path} has ${sizeBytes} bytes in S3`)
        return await bucket.read(path, options)
      },
      write: (path, bytes, options) => bucket.write(path, bytes, options),
      list: (folder, options) => Array.fromAsync(bucket.keys(folder, options)),
      remove: (paths, options) => bucket.remove(paths, options),
    },
  }
}

type Limit = ReturnType<typeof pLimit>

async function pinOne(
  bucket: Bucket,
  item: PinItem,
  { limit, large }: { readonly limit: Limit; readonly large: Limit },
  options: PinOptions,
): Promise<void> {
  const writeExtent = async ({ cid, sizeBytes }: ExtentRef) => {
    const asks = !options.anew && sizeBytes >= ASKED_BYTES
    if (asks && (await bucket.sizeOf(EXTENTS + cid, options)) === sizeBytes) return
    await bucket.write(EXTENTS + cid, await item.readExtent(cid, options), options)
  }
  const writes: Promise<void>[] = []
  const start = (work: () => Promise<void>, within = limit) => {
    const write = within(work)
    write.catch(() => {}) // reported by the one who waits for all of them
    writes.push(write)
  }
  for (const extent of item.extents)
    start(() => writeExtent(extent), extent.sizeBytes < ASKED_BYTES ? limit : large)
  if (!isTree(item.root)) return void (await Promise.all(writes))

  const nodes: Cid[] = []
  for await (const { cid, bytes } of item.nodes(options)) {
    nodes.push(cid)
    start(() => bucket.write(NODES + cid, bytes, options))
  }
  await Promise.all(writes)
  const marker: Marker = { root: item.root, nodes, extents: item.extents }
  await limit(() => bucket.write(PINS + item.root, Buffer.from(JSON.stringify(marker)), options))
}

function isTree(root: Cid): boolean {
  return codecOf(root) === 'dag-pb'
}

function rootIn(key: string): Cid {
  return parseCid(key.slice(key.indexOf('/') + 1))
}

/** Those that are there. */
async function markersOf(
  bucket: Bucket,
  roots: readonly Cid[],
  limit: Limit,
  options: Abortable,
): Promise<Marker[]> {
  const texts = await Promise.all(roots.map(root => limit(() => bucket.read(PINS + root, options))))
  return texts.flatMap(bytes => (bytes ? (JSON.parse(bytes.toString('utf8')) as Marker) : []))
}

function keysOf({ extents, nodes }: Marker): string[] {
  return [...extents.map(({ cid }) => EXTENTS + cid), ...nodes.map(cid => NODES + cid)]
}

/** Reads the extent back and verifies it chunk by chunk. */
async function proveExtent(bucket: Bucket, { cid }: ExtentRef, options: Abortable): Promise<number> {
  const content = await bucket.read(EXTENTS + cid, options)
  if (!content) throw new EdgeError('CHUNK_ABSENT', `S3 lacks extent ${cid}`)
  if (!isTree(cid)) {
    if (sha256Of(content) !== digestOf(cid))
      throw new EdgeError('CHUNK_CORRUPT', `S3 has other bytes for ${cid}`)
    return content.length
  }
  const node = await bucket.read(NODES + cid, options)
  if (!node) throw new EdgeError('CHUNK_ABSENT', `S3 lacks node ${cid}`)
  if (sha256Of(node) !== digestOf(cid))
    throw new EdgeError('CHUNK_CORRUPT', `S3 has other bytes for node ${cid}`)
  let from = 0
  for (const { cid: chunk, sizeBytes } of parseNode(node).links) {
    if (sha256Of(content.subarray(from, from + sizeBytes)) !== digestOf(chunk)) {
      throw new EdgeError('CHUNK_CORRUPT', `S3 has other bytes for ${cid} at ${from}`)
    }
    from += sizeBytes
  }
  return content.length
}
