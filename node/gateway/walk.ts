/**
 * Walks an item's tree of blocks depth first, verified block by block, in memory of one path.
 */
import { type Cid, codecOf } from '../../manifests/cid.ts'
import { EdgeError } from '../../manifests/errors.ts'
import type { Abortable, ByteRange, DagNode, ExtentRef } from '../../manifests/extent.ts'
import { parseNode } from '../../manifests/unixfs.ts'

/** Where blocks come from; the composition root joins it to the store. Bytes are verified (I1). */
export interface BlockSource {
  /** Undefined when the block is not here. */
  block(cid: Cid, options: Abortable): Promise<Uint8Array | undefined>
}

export interface Walk {
  /** Content bytes that are wanted; blocks wholly outside are left out. Absent: all. */
  readonly range?: ByteRange
  /** A block that was sent is not sent again. */
  readonly once: boolean
  /** The root alone. */
  readonly rootOnly?: boolean
}

/**
 * @returns blocks with the place of their content in the item.
 * @throws EdgeError `CHUNK_ABSENT` at the first block that is not here.
 */
export async function* walkBlocks(
  source: BlockSource,
  root: Cid,
  walk: Walk,
  options: Abortable,
): AsyncGenerator<DagNode & { readonly offset: number }> {
  const sent = new Set<Cid>()
  const first = walk.range?.first ?? 0
  const last = walk.range?.last ?? Number.MAX_SAFE_INTEGER
  const below = async function* (cid: Cid, offset: number): AsyncGenerator<DagNode & { offset: number }> {
    if (walk.once && sent.has(cid)) return
    const bytes = await source.block(cid, options)
    if (!bytes) throw new EdgeError('CHUNK_ABSENT', `block ${cid} is not here`)
    if (walk.once) sent.add(cid)
    yield { cid, bytes, offset }
    if (walk.rootOnly || codecOf(cid) === 'raw') return
    let at = offset
    for (const link of parseNode(bytes).links) {
      if (at <= last && at + link.sizeBytes > first) yield* below(link.cid, at)
      at += link.sizeBytes
    }
  }
  yield* below(root, 0)
}

/** What an item's root says of its content. @throws EdgeError `CHUNK_ABSENT` */
export async function sizeOfRoot(source: BlockSource, root: Cid, options: Abortable): Promise<ExtentRef> {
  const bytes = await source.block(root, options)
  if (!bytes) throw new EdgeError('CHUNK_ABSENT', `block ${root} is not here`)
  if (codecOf(root) === 'raw') return { cid: root, sizeBytes: bytes.length, dagBytes: bytes.length }
  const { sizeBytes, dagBytes } = parseNode(bytes)
  return { cid: root, sizeBytes, dagBytes }
}
