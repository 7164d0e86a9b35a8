/**
 * An item as blocks: its upper nodes, its extents' nodes, and the chunks that those name, cut out
 * of the extents' content. One extent (≤ 8 MiB) in memory at a time.
 */
import { codecOf } from '../manifests/cid.ts'
import type { Abortable, DagNode } from '../manifests/extent.ts'
import { EdgeError } from '../manifests/errors.ts'
import { parseNode } from '../manifests/unixfs.ts'
import type { PinItem } from './pin-target.ts'

/** @throws EdgeError `CHUNK_ABSENT` when a node or an extent is not here. */
export async function* cutIntoBlocks(item: PinItem, options: Abortable): AsyncGenerator<DagNode> {
  const nodeOf = new Map<string, Uint8Array>()
  for await (const node of item.nodes(options)) {
    nodeOf.set(node.cid, node.bytes)
    yield node
  }
  for (const { cid } of item.extents) {
    const content = await item.readExtent(cid, options)
    if (codecOf(cid) === 'raw') {
      yield { cid, bytes: content }
      continue
    }
    const node = nodeOf.get(cid)
    if (!node) throw new EdgeError('CHUNK_ABSENT', `node ${cid}`)
    let from = 0
    for (const link of parseNode(node).links) {
      yield { cid: link.cid, bytes: content.subarray(from, from + link.sizeBytes) }
      from += link.sizeBytes
    }
  }
}
