/** Items in memory for tests and benches of pin targets. */
import type { Cid } from '../../manifests/cid.ts'
import type { DagNode, ExtentRef } from '../../manifests/extent.ts'
import { chunksOf } from '../../manifests/fastcdc.ts'
import { type CutExtent, ExtentCutter, itemDag } from '../../manifests/unixfs.ts'
import { EdgeError } from '../../manifests/errors.ts'
import type { PinItem } from '../pin-target.ts'

export interface MemoryItem extends PinItem {
  readonly bytes: Uint8Array
}

export async function memoryItem(bytes: Uint8Array): Promise<MemoryItem> {
  const cutter = new ExtentCutter()
  const cuts: (CutExtent | never[])[] = []
  for await (const { digest, sizeBytes } of chunksOf([bytes])) cuts.push(cutter.add({ digest, sizeBytes }) ?? [])
  const last = cutter.end()
  return assembled(bytes, last ? [...cuts.flat(), last] : cuts.flat())
}

function assembled(bytes: Uint8Array, cuts: readonly CutExtent[]): MemoryItem {
  const { root, nodes: upper } = itemDag(cuts.map(({ extent }) => extent))
  const contentOf = new Map<Cid, Uint8Array>()
  let from = 0
  for (const { extent } of cuts) {
    contentOf.set(extent.cid, bytes.subarray(from, from + extent.sizeBytes))
    from += extent.sizeBytes
  }
  return {
    root,
    bytes,
    sizeBytes: bytes.length,
    extents: cuts.map(({ extent: { cid, sizeBytes, dagBytes } }): ExtentRef => ({ cid, sizeBytes, dagBytes })),
    async *nodes(): AsyncGenerator<DagNode> {
      for (const { node } of cuts) if (node) yield node
      yield* upper
    },
    async readExtent(cid) {
      const content = contentOf.get(cid)
      if (!content) throw new EdgeError('CHUNK_ABSENT', `extent ${cid}`)
      return content
    },
  }
}
