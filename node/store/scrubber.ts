/**
 * Proves everything that is here, in rotation: extents in the order of their rows, then the nodes.
 * Where it was is remembered, so that every byte is proven again and again although nobody waits
 * for a whole round.
 */
import { setTimeout as sleep } from 'node:timers/promises'
import type { Cid } from '../../manifests/cid.ts'
import type { CommitQueue } from './commit-queue.ts'
import type { Database } from './database.ts'
import type { ExtentReader } from './extent-reader.ts'
import type { ExtentTable, Located } from './extent-table.ts'
import type { NodeTable } from './node-table.ts'
import type { VerifyOptions, VerifyProgress } from './store.ts'

const ROWS_AT_ONCE = 200
const SCRATCH_BYTES = 256 * 1024
/** Small blocks are read at once: others get their turn after so long. */
const TURN_MS = 4
const POSITION = 'scrub-position'
/** At least this often the position and the proofs are written. */
const NOTED_BYTES = 64 * 1024 * 1024

export interface ScrubParts {
  readonly database: Database
  readonly table: ExtentTable
  readonly nodes: NodeTable
  readonly reader: ExtentReader
  readonly commits: CommitQueue
  readonly now: () => number
  readonly healExtent: (cid: Cid, options: VerifyOptions) => Promise<boolean>
  readonly healNode: (cid: Cid, options: VerifyOptions) => Promise<boolean>
}

interface Counts {
  extents: number
  bytes: number
  damaged: number
  healed: number
}

export async function* scrub(parts: ScrubParts, options: VerifyOptions): AsyncGenerator<VerifyProgress> {
  const counts: Counts = { extents: 0, bytes: 0, damaged: 0, healed: 0 }
  const { extents: extentsTotal } = parts.table.totals()
  const began = performance.now()
  const scratch = Buffer.allocUnsafeSlow(SCRATCH_BYTES)
  let turnEnds = began + TURN_MS
  const from = positionOf(parts.database)
  const proven: Located[] = []
  let provenBytes = 0

  for (const part of [
    { after: from, upTo: Number.POSITIVE_INFINITY },
    { after: 0, upTo: from },
  ]) {
    for (let after = part.after; after < part.upTo && !options.signal.aborted; ) {
      const rows = parts.table.rowsAfter(after, ROWS_AT_ONCE)
      for (const row of rows) {
        if (row.id > part.upTo || options.signal.aborted) break
        if (!row.tier) continue
        const last = await proveOne(parts, row, scratch, options, counts)
        if (!last.finding || last.healed) proven.push(row)
        provenBytes += row.sizeBytes
        if (proven.length >= ROWS_AT_ONCE || provenBytes >= NOTED_BYTES) {
          await noteProofs(parts, proven.splice(0), row.id)
          provenBytes = 0
        }
        yield { ...counts, extentsTotal, last }
        await keepRate(options, counts.bytes, began)
        if (performance.now() < turnEnds) continue
        await new Promise(resolve => setImmediate(resolve))
        turnEnds = performance.now() + TURN_MS
      }
      if (rows.length === 0) break
      after = rows.at(-1)!.id
    }
  }
  await noteProofs(parts, proven, options.signal.aborted ? undefined : 0)
  for await (const cid of brokenNodes(parts, options)) {
    counts.damaged++
    const healed = options.heal && (await parts.healNode(cid, options))
    if (healed) counts.healed++
    yield { ...counts, extentsTotal, last: { cid, finding: 'its node is damaged', healed } }
  }
  yield { ...counts, extentsTotal }
}

async function proveOne(
  parts: ScrubParts,
  row: Located,
  scratch: Buffer,
  options: VerifyOptions,
  counts: Counts,
): Promise<NonNullable<VerifyProgress['last']>> {
  const { cid } = row
  counts.extents++
  counts.bytes += row.sizeBytes
  const finding = await findingOf(parts, cid, scratch, options)
  if (!finding) return { cid }
  counts.damaged++
  const healed = options.heal && (await parts.healExtent(cid, options))
  if (healed) counts.healed++
  return { cid, finding, healed }
}

/** @returns undefined when every byte is right. */
async function findingOf(
  parts: ScrubParts,
  cid: Cid,
  scratch: Buffer,
  options: VerifyOptions,
): Promise<string | undefined> {
  try {
    const damage = await parts.reader.findDamage(cid, scratch, options)
    const bytes = damage.reduce((sum, { sizeBytes }) => sum + sizeBytes, 0)
    return damage.length === 0 ? undefined : `${bytes} bytes in ${damage.length} places are wrong or missing`
  } catch (error) {
    if (options.signal.aborted) return undefined
    return error instanceof Error ? error.message : String(error)
  }
}

/** Nodes whose stored bytes are not what their CID says; they are dropped as they are met. */
async function* brokenNodes({ nodes }: ScrubParts, options: VerifyOptions): AsyncGenerator<Cid> {
  for (let after = 0; !options.signal.aborted; ) {
    const { last, broken } = nodes.proveAfter(after, ROWS_AT_ONCE)
    yield* broken
    if (last === undefined) return
    after = last
    await new Promise(resolve => setImmediate(resolve))
  }
}

async function noteProofs(
  parts: ScrubParts,
  proven: readonly Located[],
  position: number | undefined,
): Promise<void> {
  const at = parts.now()
  await parts.commits.commit(() => {
    for (const { cid } of proven) parts.table.setVerified(cid, at)
    if (position !== undefined) {
      parts.database.run(
        'INSERT OR REPLACE INTO state (name, value) VALUES (?, ?)',
        POSITION,
        String(position),
      )
    }
  })
}

function positionOf(database: Database): number {
  const value = Number(database.get('SELECT value FROM state WHERE name = ?', POSITION)?.['value'] ?? 0)
  return Number.isSafeInteger(value) && value > 0 ? value : 0
}

async function keepRate(
  { rateBytesPerSecond, signal }: VerifyOptions,
  bytes: number,
  began: number,
): Promise<void> {
  if (!rateBytesPerSecond) return
  const due = (bytes / rateBytesPerSecond) * 1000 - (performance.now() - began)
  if (due > 5) await sleep(due, undefined, { signal }).catch(() => undefined)
}
