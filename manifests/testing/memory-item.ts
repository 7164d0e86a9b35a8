/** Items in memory, cut as a publisher cuts them: for tests and benches. */
import { type Cid, rawCidOf } from '../cid.ts'
import { EdgeError } from '../errors.ts'
import type { DagNode, ExtentRef } from '../extent.ts'
import { chunksOf } from '../fastcdc.ts'
import { type CutExtent, ExtentCutter, itemDag } from '../unixfs.ts'

export interface MemoryItem {
  readonly root: Cid
  readonly bytes: Uint8Array
  readonly sizeBytes: number
  readonly extents: readonly ExtentRef[]
  /** Every block of the item: nodes and chunks. */
  readonly blocks: ReadonlyMap<Cid, Uint8Array>
  nodes(): AsyncGenerator<DagNode>
  readExtent(cid: Cid): Promise<Uint8Array>
}

export async function memoryItem(bytes: Uint8Array): Promise<MemoryItem> {
  const cutter = new ExtentCutter()
  const cuts: CutExtent[] = []
  const keep = (cut: CutExtent | undefined) => void (cut && cuts.push(cut))
  for await (const { digest, sizeBytes } of chunksOf([bytes])) keep(cutter.add({ digest, sizeBytes }))
  keep(cutter.end())

  const dag = itemDag(cuts.map(({ extent }) => extent))
  const nodes = [...cuts.flatMap(({ node }) => node ?? []), ...dag.nodes]
  const blocks = new Map(nodes.map(node => [node.cid, node.bytes]))
  const contentOf = new Map<Cid, Uint8Array>()
  let from = 0
  for (const { extent } of cuts) {
    contentOf.set(extent.cid, bytes.subarray(from, from + extent.sizeBytes))
    for (const { digest, sizeBytes } of extent.chunks) {
      blocks.set(rawCidOf(digest), bytes.subarray(from, from + sizeBytes))
      from += sizeBytes
    }
  }
  return {
    root: dag.root,
    bytes,
    sizeBytes: bytes.length,
    extents: cuts.map(
      ({ extent: { cid, sizeBytes, dagBytes } }): ExtentRef => ({ cid, sizeBytes, dagBytes }),
    ),
    blocks,
    async *nodes() {
      yield* nodes
    },
    async readExtent(cid) {
      const content = contentOf.get(cid)
      if (!content) throw new EdgeError('CHUNK_ABSENT', `extent ${cid}`)
      return content
    },
  }
}

/** Bytes that do not compress, the same for the same seed. */
export function noise(sizeBytes: number, seed: number): Buffer {
  const bytes = Buffer.alloc(sizeBytes)
  let state = seed + 1
  for (let at = 0; at < sizeBytes; at++) {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0
    bytes[at] = state >>> 24
  }
  return bytes
}
