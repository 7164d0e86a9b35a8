/**
 * A nightly copy of the node's own records at a pin target, and putting it back into an empty data
 * folder: what it knows of content (`node.db`, without the content), its accounts and what people
 * asked for, the operator's pins, and the highest revisions accepted.
 *
 *   snapshot-v1/<node id>/<YYYY-MM-DD>/<file>.zst.<part>   and, last, index.json
 *
 * It is nobody's authority: metadata and content are verified again wherever they come from, floors
 * are only ever raised by it (I2), and SQLite files that are not what the index says are refused.
 */
import { once } from 'node:events'
import { existsSync } from 'node:fs'
import { mkdir, mkdtemp, open, rename, rm, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { promisify } from 'node:util'
import { Worker } from 'node:worker_threads'
import { zstdCompress, zstdDecompress } from 'node:zlib'
import { z } from 'zod'
import { isSha256, type Sha256, sha256Of } from '../manifests/digest.ts'
import { EdgeError } from '../manifests/errors.ts'
import type { Abortable } from '../manifests/extent.ts'
import type { TrustRecord } from '../node/trust-store.ts'
import type { PinFiles } from './pin-target.ts'

export const SNAPSHOTS_FOLDER = 'snapshot-v1/'
const DATABASES = ['node.db', 'ledger.db', 'demand.db'] as const
const PART_BYTES = 8 * 1024 * 1024
const FILE_BYTES_MAX = 4 * 1024 ** 3
const KEPT = 7

const Part = z.strictObject({
  sha256: z.custom<Sha256>(isSha256),
  storedBytes: z.number().int(),
  rawBytes: z.number().int(),
})
const Index = z.object({
  takenAt: z.iso.datetime(),
  node: z.string(),
  pins: z.array(z.string()),
  revisionFloors: z.record(z.string(), z.number().int()),
  files: z.array(z.strictObject({ name: z.enum(DATABASES), parts: z.array(Part) })),
})
export type SnapshotIndex = z.infer<typeof Index>

export interface SnapshotWish {
  readonly files: PinFiles
  /** The data folder. */
  readonly folder: string
  readonly nodeId: string
  readonly trust: Pick<TrustRecord, 'pins' | 'revisionFloors'>
  readonly now: Date
}

const compress = promisify(zstdCompress)
const decompress = promisify(zstdDecompress)

/** Once a day; the second call of a day does nothing. @returns whether one was taken. */
export async function takeSnapshot(wish: SnapshotWish, options: Abortable): Promise<boolean> {
  const { files, nodeId, now } = wish
  const base = `${SNAPSHOTS_FOLDER}${nodeId}/`
  const day = now.toISOString().slice(0, 10)
  const there = await files.list(base, options)
  if (there.includes(`${base}${day}/index.json`)) return false

  const scratch = await mkdtemp(join(wish.folder, 'snapshot-'))
  try {
    const kept: SnapshotIndex['files'] = []
    for (const name of DATABASES) {
      const copy = join(scratch, name)
      if (!(await copyDatabase(join(wish.folder, name), copy))) continue
      kept.push({ name, parts: await writeParts(files, `${base}${day}/${name}.zst`, copy, options) })
      await rm(copy, { force: true })
    }
    const index: SnapshotIndex = {
      takenAt: now.toISOString(),
      node: nodeId,
      pins: [...wish.trust.pins],
      revisionFloors: Object.fromEntries(wish.trust.revisionFloors),
      files: kept,
    }
    await files.write(`${base}${day}/index.json`, Buffer.from(JSON.stringify(index)), options)
  } finally {
    await rm(scratch, { recursive: true, force: true })
  }
  const days = [...new Set(there.map(path => path.split('/')[2]!))].filter(other => other !== day).toSorted()
  const old = new Set(days.slice(0, Math.max(0, days.length - (KEPT - 1))))
  await files.remove(
    there.filter(path => old.has(path.split('/')[2]!)),
    options,
  )
  return true
}

/**
 * Puts the newest snapshot of a node into a data folder that has no store yet.
 * @param nodeId whose; when there is only one, it need not be said.
 * @returns what has to go into the trust record.
 * @throws EdgeError `STORE_FORMAT` when the folder has a store, `NOT_FOUND` without a snapshot,
 * `CHUNK_CORRUPT` when it is damaged, `PIN_TARGET_DOWN`
 */
export async function restoreSnapshot(
  { files, folder, nodeId }: Pick<SnapshotWish, 'files' | 'folder'> & { readonly nodeId: string | undefined },
  options: Abortable,
): Promise<SnapshotIndex> {
  const base = nodeId === undefined ? SNAPSHOTS_FOLDER : `${SNAPSHOTS_FOLDER}${nodeId}/`
  const indexes = (await files.list(base, options)).filter(path => path.endsWith('/index.json'))
  const nodes = new Set(indexes.map(path => path.split('/')[1]))
  if (nodes.size !== 1) {
    const found =
      nodes.size === 0 ? 'there is no snapshot' : `there are snapshots of ${[...nodes].join(', ')}: name one`
    throw new EdgeError('NOT_FOUND', found)
  }
  if (existsSync(join(folder, 'node.db'))) {
    throw new EdgeError('STORE_FORMAT', `${folder} has a store already: a snapshot goes into an empty folder`)
  }
  const path = indexes.toSorted().at(-1)!
  const index = parseIndex(await mustRead(files, path, options))
  await mkdir(folder, { recursive: true })
  for (const { name, parts } of index.files) {
    const draft = join(folder, `${name}.draft`)
    await writeFile(draft, '')
    for (const [at, part] of parts.entries()) {
      const stored = await mustRead(files, `${path.replace('index.json', name)}.zst.${at}`, options)
      if (sha256Of(stored) !== part.sha256)
        throw new EdgeError('CHUNK_CORRUPT', `part ${at} of ${name} is damaged`)
      await writeFile(draft, await decompress(stored, { maxOutputLength: part.rawBytes }), { flag: 'a' })
    }
    await rename(draft, join(folder, name))
  }
  return index
}

/** @returns false when there is none. Readers and writers of the original go on meanwhile. */
async function copyDatabase(from: string, to: string): Promise<boolean> {
  if (!existsSync(from)) return false
  const worker = new Worker(new URL('copy-database.ts', import.meta.url), { workerData: { from, to } })
  await once(worker, 'exit') // rejects with what the thread throws
  return true
}

async function writeParts(
  files: PinFiles,
  path: string,
  from: string,
  options: Abortable,
): Promise<SnapshotIndex['files'][number]['parts']> {
  const parts: SnapshotIndex['files'][number]['parts'] = []
  await using file = await open(from)
  const buffer = Buffer.allocUnsafeSlow(PART_BYTES)
  for (;;) {
    options.signal.throwIfAborted()
    const { bytesRead } = await file.read(buffer, 0, PART_BYTES, parts.length * PART_BYTES)
    if (bytesRead === 0) return parts
    const raw = buffer.subarray(0, bytesRead)
    const stored = await compress(raw)
    await files.write(`${path}.${parts.length}`, stored, options)
    parts.push({ sha256: sha256Of(stored), storedBytes: stored.length, rawBytes: bytesRead })
  }
}

async function mustRead(files: PinFiles, path: string, options: Abortable): Promise<Uint8Array> {
  const bytes = await files.read(path, FILE_BYTES_MAX, options)
  if (!bytes) throw new EdgeError('NOT_FOUND', `${path} is not there`)
  return bytes
}

function parseIndex(bytes: Uint8Array): SnapshotIndex {
  try {
    return Index.parse(JSON.parse(Buffer.from(bytes).toString('utf8')))
  } catch (cause) {
    throw new EdgeError('CHUNK_CORRUPT', 'the index of the snapshot is damaged', { cause })
  }
}
