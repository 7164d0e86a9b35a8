/**
 * Deletes what nobody wants: one round over the rows, some hundred at a time, while serving goes on.
 */
import type { Cid } from '../../manifests/cid.ts'
import type { CommitQueue } from './commit-queue.ts'
import type { ExtentTable } from './extent-table.ts'
import type { NodeTable } from './node-table.ts'
import { HELD } from './schema.ts'
import type { Wanted } from './store.ts'
import type { Tiers } from './tiers.ts'

const ROWS_AT_ONCE = 300

export interface RetainParts {
  readonly table: ExtentTable
  readonly nodes: NodeTable
  readonly tiers: Tiers
  readonly commits: CommitQueue
  readonly stopped: boolean
}

/** @returns bytes freed. */
export async function retainOnly(
  parts: RetainParts,
  wanted: Wanted,
  remove: (cids: Iterable<Cid>, why: string) => Promise<number>,
  why: string,
): Promise<number> {
  const { table, nodes } = parts
  const lastNode = nodes.lastRow
  let freed = 0
  for (let after = 0; !parts.stopped; ) {
    const rows = table.rowsAfter(after, ROWS_AT_ONCE)
    if (rows.length === 0) break
    after = rows.at(-1)!.id
    await endHolds(
      parts,
      rows.filter(row => row.held !== 0 && !wanted.isHeld(row.cid)).map(({ cid }) => cid),
    )
    const unused = rows.filter(row => row.tier && !wanted.isUsed(row.cid)).map(({ cid }) => cid)
    if (unused.length > 0) freed += await remove(unused, why)
    await new Promise(resolve => setImmediate(resolve))
  }
  for (let after = 0; after < lastNode && !parts.stopped; ) {
    const found = nodes.numberedAfter(after, ROWS_AT_ONCE)
    if (found.length === 0) break
    after = found.at(-1)!.number
    // a node that is an extent's goes with it
    const unused = found.map(({ cid }) => cid).filter(cid => !wanted.isUsed(cid) && !table.find(cid)?.tier)
    if (unused.length > 0) await remove(unused, why)
    await new Promise(resolve => setImmediate(resolve))
  }
  return freed
}

async function endHolds({ table, tiers, commits }: RetainParts, cids: readonly Cid[]): Promise<void> {
  if (cids.length === 0) return
  await commits.commit(() => {
    for (const cid of cids) for (const why of ['pinned', 'mustHave'] as const) table.unsetHeld(cid, why)
  })
  for (const cid of cids) {
    const row = table.find(cid)
    if (row) for (const why of Object.keys(HELD) as (keyof typeof HELD)[]) tiers.release(row.id, why)
  }
}
