/**
 * Start-up's work for the background: drafts of crashed writes, files without rows, rows without
 * files, files in both tiers. One folder at a time; serving goes on meanwhile.
 */
import { rm } from 'node:fs/promises'
import type { CommitQueue } from './commit-queue.ts'
import type { ExtentFiles } from './extent-files.ts'
import type { ExtentTable } from './extent-table.ts'
import { atLeisure } from './leisure.ts'
import type { Cid } from '../../manifests/cid.ts'
import type { DiskTier } from './store.ts'
import type { Turns } from './turns.ts'

export interface ReconcileParts {
  readonly table: ExtentTable
  readonly files: Readonly<Record<DiskTier, ExtentFiles>>
  readonly commits: CommitQueue
  readonly turns: Turns<Cid>
  readonly stopped: () => boolean
  readonly onCame: (cid: Cid, sizeBytes: number) => void
  readonly onGone: (cid: Cid, sizeBytes: number) => void
}

export interface Reconciled {
  readonly adopted: number
  readonly forgotten: number
  readonly strays: number
}

export async function reconcile(parts: ReconcileParts): Promise<Reconciled> {
  const totals = { adopted: 0, forgotten: 0, strays: 0 }
  const rest = atLeisure()
  for (const tier of ['hot', 'warm'] as const) {
    // a disk that is not mounted says nothing about what it holds
    if (!(await parts.files[tier].isThere())) continue
    for await (const { prefix, cids, strays } of parts.files[tier].folders()) {
      if (parts.stopped()) return totals
      const rows = parts.table.filesUnder(prefix, tier)
      for (const cid of cids) {
        if (!rows.has(cid) && (await parts.turns.take(cid, () => adopt(parts, tier, cid)))) totals.adopted++
      }
      for (const cid of rows) {
        if (!cids.has(cid) && (await parts.turns.take(cid, () => forget(parts, tier, cid))))
          totals.forgotten++
      }
      for (const stray of strays) await rm(stray, { force: true, recursive: true })
      totals.strays += strays.length
      await rest()
    }
  }
  return totals
}

/** A file that no row knows becomes an extent again; what it holds is proven when it is read. */
async function adopt(
  { table, files, commits, onCame }: ReconcileParts,
  tier: DiskTier,
  cid: Cid,
): Promise<boolean> {
  const sizeBytes = await files[tier].sizeOf(cid)
  const row = table.find(cid)
  if (sizeBytes === undefined || (row?.tier === tier && !row.small)) return false
  const elsewhere = row?.tier && (row.small || (await files[row.tier].sizeOf(cid)) !== undefined)
  if (elsewhere || sizeBytes === 0) {
    await files[tier].remove(cid)
    return false
  }
  await commits.commit(() => {
    table.insert({
      id: table.idOf(cid),
      cid,
      sizeBytes,
      tier,
      small: false,
      held: row?.held ?? 0,
      verifiedAtMs: 0,
      why: 'found on disk',
    })
  })
  onCame(cid, sizeBytes)
  return true
}

async function forget(
  { table, files, commits, onGone }: ReconcileParts,
  tier: DiskTier,
  cid: Cid,
): Promise<boolean> {
  const row = table.find(cid)
  if (row?.tier !== tier || row.small || (await files[tier].sizeOf(cid)) !== undefined) return false
  await commits.commit(() => table.setTier(row, null))
  onGone(cid, row.sizeBytes)
  return true
}
