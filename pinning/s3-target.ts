/**
 * An S3 server (MinIO) as a pin target. An extent's content is one object, `extents-v1/<cid>`; its
 * dag-pb nodes are `nodes-v1/<cid>`; an item is kept once its marker, `pins-v1/<root>`, is written,
 * which happens last. Markers list what the item needs, so that removing one frees exactly what no
 * other needs.
 *
 * Nothing is asked of the server that Garage and SeaweedFS lack: no versioning, locks or tags.
 */
import pLimit from 'p-limit'
import { type Cid, codecOf, digestOf, parseCid } from '../manifests/cid.ts'
import { sha256Of } from '../manifests/digest.ts'
import { EdgeError } from '../manifests/errors.ts'
import type { Abortable, ExtentRef } from '../manifests/extent.ts'
import { parseNode } from '../manifests/unixfs.ts'
import { Bucket, type S3Options } from './bucket.ts'
import type { PinItem, PinOutcome, PinTarget } from './pin-target.ts'

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
      await bucket.remove(
        keys.filter(key => !needed.has(key)),
        options,
      )
    },

    async *list(options) {
      for await (const key of bucket.keys(PINS, options)) yield parseCid(key.slice(PINS.length))
    },

    async prove({ root, extents }, options) {
      if (!(await bucket.read(`${PINS}${root}`, options))) {
        throw new EdgeError('CHUNK_ABSENT', `S3 has no marker for ${root}`)
      }
      const sizes = await Promise.all(
        extents.map(extent => limit(() => proveExtent(bucket, extent, options))),
      )
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
