/**
 * Question: how many bytes does an update take, everything that is on the wire included, beside the
 * best of what there is?
 *
 * Workload: two versions of a file or a folder. We publish both, fill a node with the old one and then
 * with the new one over HTTP from a plain static server that counts its sockets' bytes (requests,
 * headers, metadata, indexes), and compare every item that the node then serves. Rivals on the same
 * input: xdelta3 -9, bsdiff, zstd --patch-from -19 and -22, rsync with and without -z, zsync -z, casync
 * with a seed, and the whole with zstd -19; for folders a tar of them, rsync the folder itself.
 * `ofAllowed`, `ofSynced`, `ofFirst` (the first fill, beside the old version's `zstd -19`) and `ofPatchCpu`
 * (publishing, beside `--patch-from -19`) are ours over theirs.
 *
 *   npm run -s bench:delta -- --old PATH --new PATH [--table] [--codec] [--no-rivals]
 */
import { mkdir, mkdtempDisposable, stat } from 'node:fs/promises'
import { cpus, tmpdir } from 'node:os'
import { join, resolve } from 'node:path'
import { parseArgs } from 'node:util'
import { codecFigures } from './delta-codec.ts'
import { filesOf, runRivals, tarOf, type RivalName, type RivalResult } from './delta-rivals.ts'
import { measureUpdate } from './delta-update.ts'
import { rounded } from './rounded.ts'

const { values } = parseArgs({
  options: {
    old: { type: 'string' },
    new: { type: 'string' },
    table: { type: 'boolean', default: false },
    codec: { type: 'boolean', default: false },
    rivals: { type: 'boolean', default: true },
  },
  allowNegative: true,
})
if (!values.old || !values.new)
  throw new Error('usage: bench/delta.ts --old PATH --new PATH [--table] [--codec] [--no-rivals]')
const oldPath = resolve(values.old)
const newPath = resolve(values.new)

await using scratch = await mkdtempDisposable(join(tmpdir(), 'tower-bench-delta-'))
const isFolder = (await stat(newPath)).isDirectory()
const [oldFile, newFile] = isFolder
  ? [join(scratch.path, 'old.tar'), join(scratch.path, 'new.tar')]
  : [oldPath, newPath]
if (isFolder) await Promise.all([tarOf(oldPath, oldFile), tarOf(newPath, newFile)])

const update = values.codec ? undefined : await measureUpdate(oldPath, newPath, join(scratch.path, 'tower'))
const codec = await codecFigures(oldPath, newPath)
await mkdir(join(scratch.path, 'rivals'))
const rivals = values.rivals
  ? await runRivals({ oldFile, newFile, oldPath, newPath, scratch: join(scratch.path, 'rivals') })
  : undefined

const full = (await stat(newFile)).size
const bytesOf = (name: RivalName) => rivals?.[name].bytes ?? Infinity
/** What an update should cost at most: 1.05 of the best tool for whole files, and some for metadata. */
const best = Math.min(bytesOf('xdelta3'), bytesOf('zstdPatch22'), bytesOf('bsdiff'))
const allowed = Math.round(best * 1.05 + 8192 + 100 * (update?.changedItems ?? 0))
const synced = Math.min(bytesOf('rsyncZ'), bytesOf('zsync'), bytesOf('casync'))
const figures = {
  bench: 'delta',
  old: values.old,
  new: values.new,
  items: (await filesOf(newPath)).size,
  full,
  ...update,
  delta: codec.deltaBytes,
  deltaHead: codec.headBytes,
  deltaBuildCpuS: rounded(codec.buildCpuS),
  applyCpuS: rounded(codec.applyCpuS),
  applyCpuSPer100Mb: rounded((codec.applyCpuS / codec.appliedBytes) * 1e8),
  ...(rivals && {
    rivals: mapped(rivals, ({ bytes }) => bytes),
    rivalCpuS: mapped(rivals, ({ cpuS }) => cpuS),
    ...(update && {
      allowed,
      ofAllowed: rounded(update.wire / allowed),
      ofSynced: rounded(update.wire / synced),
      ofFirst: rounded(update.firstFill / bytesOf('zstd19Old')),
      ofPatchCpu: rounded(update.publishCpuS / (rivals.zstdPatch19.cpuS ?? Infinity)),
    }),
  }),
  machine: cpus()[0]?.model,
  node: process.version,
}
console.log(JSON.stringify(figures))
if (values.table) showTable()

function mapped<T>(
  results: Record<RivalName, RivalResult>,
  of: (result: RivalResult) => T,
): Record<string, T> {
  return Object.fromEntries(Object.entries(results).map(([name, result]) => [name, of(result)]))
}

function showTable(): void {
  const rows: [string, number | null, number | null][] = []
  if (update) rows.push(['towerlight, all on the wire', update.wire, update.publishCpuS])
  rows.push(['towerlight, the delta alone', codec.deltaBytes, figures.deltaBuildCpuS])
  for (const [name, { bytes, cpuS }] of Object.entries(rivals ?? {})) rows.push([name, bytes, cpuS])
  rows.push(['whole', full, null])
  for (const [name, bytes, cpuS] of rows) {
    console.log(
      `${name.padEnd(30)} ${(bytes ?? '–').toLocaleString('en').padStart(14)} B ${(cpuS === null ? '' : cpuS.toFixed(2)).padStart(9)} s`,
    )
  }
}
