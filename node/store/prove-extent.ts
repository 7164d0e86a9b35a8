/**
 * Whether bytes are the extent that a CID names: by its node where that is known (one hash per
 * chunk), else by cutting them again with the rule that cut them first.
 */
import { setImmediate as nextTurn } from 'node:timers/promises'
import { codecOf, digestOf, type Cid } from '../../manifests/cid.ts'
import { chunksOfExtent, extentOf } from '../../manifests/chunk-rule.ts'
import { sha256Of } from '../../manifests/digest.ts'
import { EdgeError } from '../../manifests/errors.ts'
import type { ChunkRef, ChunkRule, DagNode } from '../../manifests/extent.ts'
import { nodeExtent } from '../../manifests/unixfs.ts'
import type { ExtentReader } from './extent-reader.ts'
import type { NodeView } from './node-view.ts'

const RULES = ['fastcdc-v1', 'catalog-v1'] as const

/** About a millisecond of work. */
const TURN_BYTES = 512 * 1024

/**
 * Others have their turns in between: 8 MiB at once would hold every reader up for 14 ms. The bytes
 * must not change meanwhile.
 *
 * @returns the extent's node, when it was not known before and the CID is not raw.
 * @throws EdgeError `CHUNK_CORRUPT`
 */
export async function proveExtent(
  cid: Cid,
  bytes: Uint8Array,
  rule: ChunkRule,
  view: NodeView | undefined,
): Promise<DagNode | undefined> {
  if (codecOf(cid) === 'raw') {
    if (sha256Of(bytes) !== digestOf(cid)) throw corrupt(cid)
    return undefined
  }
  if (view) {
    const isRight = (chunk: ChunkRef, link: number) => chunk.digest === view.digestAt(link)
    if (bytes.length !== view.sizeBytes || !(await inTurns(chunksByNode(bytes, view))).every(isRight))
      throw corrupt(cid)
    return undefined
  }
  const { extent, node } = nodeExtent(await inTurns(chunksOfExtent(bytes, rule)))
  if (extent.cid !== cid) throw corrupt(cid)
  return node
}

async function inTurns(chunks: Iterable<ChunkRef>): Promise<ChunkRef[]> {
  const all: ChunkRef[] = []
  let bytes = 0
  for (const chunk of chunks) {
    all.push(chunk)
    bytes += chunk.sizeBytes
    if (bytes < TURN_BYTES) continue
    await nextTurn()
    bytes = 0
  }
  return all
}

/** Where the node says that they are; the last ones are short when bytes are missing. */
function* chunksByNode(bytes: Uint8Array, view: NodeView): Generator<ChunkRef> {
  for (let link = 0; link < view.links; link++) {
    const from = view.startOf(link)
    const chunk = bytes.subarray(from, from + view.sizeOf(link))
    yield { digest: sha256Of(chunk), sizeBytes: chunk.length }
  }
}

/** The chunks of `bytes` that are not what the node says, as numbers of its links. */
export function badLinks(bytes: Uint8Array, view: NodeView): number[] {
  const bad: number[] = []
  let link = 0
  for (const { digest, sizeBytes } of chunksByNode(bytes, view)) {
    if (sizeBytes !== view.sizeOf(link) || digest !== view.digestAt(link)) bad.push(link)
    link++
  }
  return bad
}

/** An extent's node follows from its content, when all of that is right: cut it again. */
export function nodeFromContent(
  reader: Pick<ExtentReader, 'readUnproven'>,
  cid: Cid,
): Uint8Array | undefined {
  for (const tier of ['hot', 'warm'] as const) {
    const bytes = reader.readUnproven(cid, tier)
    if (!bytes) continue
    for (const rule of RULES) {
      const { extent, node } = extentOf(bytes, rule, false)
      if (extent.cid === cid) return node?.bytes
    }
  }
  return undefined
}

function corrupt(cid: Cid): EdgeError {
  return new EdgeError('CHUNK_CORRUPT', `these bytes are not extent ${cid}`)
}
