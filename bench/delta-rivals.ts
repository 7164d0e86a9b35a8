/**
 * What else carries an old file to a new one, each at its best setting: bytes that would travel, down
 * and up together, and CPU seconds. A program that is not installed, or cannot, gives null.
 */
import { spawn } from 'node:child_process'
import { copyFile, cp, glob, mkdir, readFile, rm, stat } from 'node:fs/promises'
import { basename, join } from 'node:path'
import { text } from 'node:stream/consumers'
import { serveFolder } from './delta-server.ts'

export interface RivalResult {
  readonly bytes: number | null
  readonly cpuS: number | null
}

export const RIVALS = [
  'xdelta3',
  'bsdiff',
  'zstdPatch19',
  'zstdPatch22',
  'rsync',
  'rsyncZ',
  'zsync',
  'casync',
  'zstd19',
  'zstd19Old',
] as const
export type RivalName = (typeof RIVALS)[number]

interface Versions {
  /** Files: the item, or a tar of the folder. */
  readonly oldFile: string
  readonly newFile: string
  /** As published: a file or a folder. */
  readonly oldPath: string
  readonly newPath: string
  /** Empty folder to work in. */
  readonly scratch: string
}

/** bsdiff needs 17 times the file in memory. */
const BSDIFF_BYTES_MAX = 100 * 1024 * 1024
const RSYNC_BLOCKS = [[], ['-B', '2048'], ['-B', '1024']]

export async function runRivals(versions: Versions): Promise<Record<RivalName, RivalResult>> {
  const results = {} as Record<RivalName, RivalResult>
  for (const name of RIVALS) {
    const scratch = join(versions.scratch, name)
    await mkdir(scratch)
    results[name] = await RUN[name]({ ...versions, scratch }).catch(() => ({ bytes: null, cpuS: null }))
    await rm(scratch, { recursive: true })
  }
  return results
}

const RUN: Record<RivalName, (versions: Versions) => Promise<RivalResult>> = {
  xdelta3: ({ oldFile, newFile, scratch }) =>
    fileOf(join(scratch, 'x'), out => [
      'xdelta3',
      '-9',
      '-f',
      '-e',
      '-B',
      '2000000000',
      '-s',
      oldFile,
      newFile,
      out,
    ]),
  async bsdiff({ oldFile, newFile, scratch }) {
    if ((await stat(oldFile)).size > BSDIFF_BYTES_MAX) return { bytes: null, cpuS: null }
    return fileOf(join(scratch, 'b'), out => ['bsdiff', oldFile, newFile, out])
  },
  zstdPatch19: versions => zstdPatch(versions, 19),
  zstdPatch22: versions => zstdPatch(versions, 22),
  rsync: versions => rsync(versions, []),
  rsyncZ: versions => rsync(versions, ['-z', '--zc=zstd', '--zl=19']),
  zsync,
  casync,
  zstd19: ({ newFile, scratch }) => zstdWhole(newFile, scratch),
  zstd19Old: ({ oldFile, scratch }) => zstdWhole(oldFile, scratch),
}

function zstdWhole(file: string, scratch: string): Promise<RivalResult> {
  return fileOf(join(scratch, 'z'), out => ['zstd', '-q', '-f', '-19', '-T1', file, '-o', out])
}

async function zstdPatch({ oldFile, newFile, scratch }: Versions, level: number): Promise<RivalResult> {
  const bytes = Math.max((await stat(oldFile)).size, (await stat(newFile)).size)
  const long = Math.min(Math.max(Math.ceil(Math.log2(bytes + 1)), 27), 31)
  return fileOf(join(scratch, 'z'), out => [
    'zstd',
    '-q',
    '-f',
    '--ultra',
    `-${level}`,
    '-T1',
    `--long=${long}`,
    `--patch-from=${oldFile}`,
    newFile,
    '-o',
    out,
  ])
}

async function rsync(
  { oldPath, newPath, scratch }: Versions,
  options: readonly string[],
): Promise<RivalResult> {
  let best: RivalResult = { bytes: null, cpuS: null }
  for (const block of RSYNC_BLOCKS) {
    const target = join(scratch, 'target')
    await rm(target, { recursive: true, force: true })
    await cp(oldPath, target, { recursive: true })
    const isFolder = (await stat(newPath)).isDirectory()
    const { stdout, cpuS } = await run([
      'rsync',
      '-r',
      '-c',
      '--delete',
      '--no-whole-file',
      '--stats',
      ...options,
      ...block,
      isFolder ? `${newPath}/` : newPath,
      target,
    ])
    const bytes = [...stdout.matchAll(/^Total bytes (?:sent|received): ([\d,.]+)/gm)].reduce(
      (sum, [, digits]) => sum + Number(digits!.replaceAll(/[,.]/g, '')),
      0,
    )
    if (best.bytes === null || bytes < best.bytes) best = { bytes, cpuS }
  }
  return best
}

async function zsync({ oldFile, newFile, scratch }: Versions): Promise<RivalResult> {
  await copyFile(newFile, join(scratch, 'item'))
  await using server = await serveFolder(scratch)
  await run(['zsyncmake', '-z', '-u', `${server.url}item.gz`, '-o', 'item.zsync', 'item'], scratch)
  server.traffic()
  const { cpuS } = await run(['zsync', '-q', '-i', oldFile, '-o', 'out', `${server.url}item.zsync`], scratch)
  const { down, up } = server.traffic()
  await same(join(scratch, 'out'), newFile)
  return { bytes: down + up, cpuS }
}

async function casync({ oldFile, newFile, scratch }: Versions): Promise<RivalResult> {
  await run(['casync', 'make', '--compression=zstd', '--store=store.castr', 'item.caibx', newFile], scratch)
  await using server = await serveFolder(scratch)
  const { cpuS } = await run(
    [
      'casync',
      'extract',
      `--store=${server.url}store.castr`,
      `--seed=${oldFile}`,
      `${server.url}item.caibx`,
      'out',
    ],
    scratch,
  )
  const { down, up } = server.traffic()
  await same(join(scratch, 'out'), newFile)
  return { bytes: down + up, cpuS }
}

async function same(one: string, other: string): Promise<void> {
  if (!(await readFile(one)).equals(await readFile(other)))
    throw new Error(`${basename(one)} is not what it should be`)
}

async function fileOf(out: string, commandOf: (out: string) => string[]): Promise<RivalResult> {
  const { cpuS } = await run(commandOf(out))
  return { bytes: (await stat(out)).size, cpuS }
}

/** CPU seconds by the shell's own count: Node does not tell those of a child. */
async function run(command: readonly string[], cwd?: string): Promise<{ stdout: string; cpuS: number }> {
  const timed = spawn('bash', ['-c', 'TIMEFORMAT="cpu %U %S"; time "$0" "$@"', ...command], {
    cwd,
    stdio: ['ignore', 'pipe', 'pipe'],
  })
  const exit = new Promise<number | null>((resolve, reject) => timed.on('error', reject).on('close', resolve))
  const [stdout, stderr, code] = await Promise.all([text(timed.stdout), text(timed.stderr), exit])
  if (code !== 0) throw new Error(`${command[0]} ended with ${code}: ${stderr.slice(-500)}`)
  const [, user, system] = /^cpu (\S+) (\S+)$/m.exec(stderr) ?? []
  return { stdout, cpuS: Number(user) + Number(system) }
}

/** A tar that depends on the content only. */
export async function tarOf(folder: string, out: string): Promise<void> {
  await run([
    'tar',
    '--sort=name',
    '--mtime=@0',
    '--owner=0',
    '--group=0',
    '--numeric-owner',
    '-cf',
    out,
    '-C',
    folder,
    '.',
  ])
}

export async function filesOf(path: string): Promise<Map<string, string>> {
  if ((await stat(path)).isFile()) return new Map([['item', path]])
  const files = new Map<string, string>()
  for await (const entry of glob('**', { cwd: path, withFileTypes: true })) {
    const file = join(entry.parentPath, entry.name)
    if (entry.isFile()) files.set(file.slice(path.replace(/\/*$/, '/').length), file)
  }
  return files
}
