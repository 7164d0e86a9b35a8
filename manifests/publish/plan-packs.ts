/**
 * Which of the packs that a repository has a new release goes on using, and what it must pack anew.
 *
 * A pack of which less than half is still needed is not used any more; so it goes when the last
 * kept revision that needs it goes. When a manifest would list too many packs, the smallest are
 * rewritten together: a dataset with a release a day does not grow a long manifest.
 */
import { codecOf, type Cid } from '../cid.ts'
import type { DagNode } from '../extent.ts'
import type { PackReader } from './pack-reader.ts'

export interface PackPlan {
  /** In the order of the candidates. */
  readonly keep: readonly PackReader[]
  /** Extents to pack. */
  readonly missing: ReadonlySet<Cid>
  /** Nodes above extents, to go into the last new pack. */
  readonly missingNodes: readonly DagNode[]
}

const PACKS_MAX = 12
/** So many remain after rewriting: it happens every sixth release at most. */
const PACKS_AFTER_REWRITE = 6

/**
 * @param needed sizes of all extents of the new release, its catalog's too.
 * @param nodes all its nodes above extents.
 * @param candidates packs in the repository, those of the current release first.
 * @param trusted extents that the current release has for certain: their short keys need no proof.
 */
export async function planPacks(request: {
  readonly needed: ReadonlyMap<Cid, number>
  readonly nodes: readonly DagNode[]
  readonly candidates: readonly PackReader[]
  readonly trusted: ReadonlySet<Cid>
}): Promise<PackPlan> {
  const { needed, nodes, candidates, trusted } = request
  const held = new Map<PackReader, Cid[]>(candidates.map(pack => [pack, []]))
  for (const cid of needed.keys()) {
    const holder = await holderOf(cid, candidates, trusted)
    if (holder) held.get(holder)!.push(cid)
  }

  const usedBytes = (pack: PackReader) => held.get(pack)!.reduce((sum, cid) => sum + needed.get(cid)!, 0)
  const keep = fewEnough(
    candidates.filter(pack => held.get(pack)!.length > 0 && usedBytes(pack) * 2 >= pack.rawBytes),
    usedBytes,
  )
  const missing = new Set(needed.keys())
  for (const pack of keep) for (const cid of held.get(pack)!) missing.delete(cid)
  const keptNodes = new Set(keep.flatMap(pack => pack.directory.nodes.map(node => node.cid)))
  return { keep, missing, missingNodes: distinct(nodes).filter(node => !keptNodes.has(node.cid)) }
}

async function holderOf(
  cid: Cid,
  candidates: readonly PackReader[],
  trusted: ReadonlySet<Cid>,
): Promise<PackReader | undefined> {
  const found = candidates.filter(pack => pack.directory.find(cid).length > 0)
  if (found.length === 1 && trusted.has(cid) && found[0]!.directory.find(cid).length === 1) return found[0]
  for (const pack of found) {
    const proof =
      codecOf(cid) === 'raw' ? await pack.extent(cid).catch(() => undefined) : await pack.nodeOf(cid)
    if (proof) return pack
  }
  return undefined
}

function fewEnough(
  packs: readonly PackReader[],
  usedBytes: (pack: PackReader) => number,
): readonly PackReader[] {
  if (packs.length < PACKS_MAX) return packs
  const largest = new Set(
    packs.toSorted((left, right) => usedBytes(right) - usedBytes(left)).slice(0, PACKS_AFTER_REWRITE),
  )
  return packs.filter(pack => largest.has(pack))
}

function distinct(nodes: readonly DagNode[]): DagNode[] {
  return [...new Map(nodes.map(node => [node.cid, node])).values()]
}
