import { spawn } from 'node:child_process'
import { existsSync } from 'node:fs'
import { chmod, cp, mkdir, mkdtempDisposable, readFile, stat, symlink, writeFile } from 'node:fs/promises'
import { createServer, type AddressInfo } from 'node:net'
import { tmpdir } from 'node:os'
import { delimiter, join } from 'node:path'
import { text } from 'node:stream/consumers'
import { expect, it } from 'vitest'

const ROOT = join(import.meta.dirname, '..', '..')
const SAMPLE = join(ROOT, 'node', 'samples', 'education', 'light-and-colour')
const DATA = process.env['TOWERLIGHT_DATA'] ?? join(ROOT, '..', 'shared', 'data')
const BOOK = join(DATA, 'datasets', 'cphys-text')
/** What we put on the wire for an update, against what the dataset weighs. */
const UPDATE_SHARE_MAX = 0.05

/** The commands of docs/first-hour.md, block by block, in one shell. */
async function firstHourScript(): Promise<string> {
  const page = await readFile(join(ROOT, 'docs', 'first-hour.md'), 'utf8')
  const blocks = [...page.matchAll(/^```sh\n([\s\S]*?)^```/gm)].map(([, block]) => block!)
  expect(blocks.length).toBeGreaterThan(5)
  return ['set -euo pipefail', ...blocks].join('\n')
}

async function freePort(): Promise<number> {
  await using server = createServer().listen(0, '127.0.0.1')
  if (!server.listening) await new Promise(resolve => server.once('listening', resolve))
  return (server.address() as AddressInfo).port
}

async function runFirstHour(folder: string, old: string, next: string) {
  await chmod(folder, 0o755) // NGINX's workers are another user, when root starts it
  await mkdir(join(folder, 'bin'))
  await symlink(join(ROOT, 'node', 'cli', 'tower'), join(folder, 'bin', 'tower'))
  await mkdir(join(folder, 'work'))
  const shell = spawn('bash', ['-c', await firstHourScript()], {
    cwd: join(folder, 'work'),
    detached: true, // a group of its own, so that a failed run leaves nothing behind
    stdio: ['ignore', 'pipe', 'pipe'],
    env: {
      PATH: [join(folder, 'bin'), join(ROOT, 'node_modules', '.bin'), process.env['PATH'], '/usr/sbin'].join(
        delimiter,
      ),
      HOME: folder,
      OLD: old,
      NEW: next,
      ORIGIN_PORT: String(await freePort()),
      TOWER_PORT: String(await freePort()),
    },
  })
  const exit = new Promise<number | null>(resolve => shell.once('exit', resolve))
  try {
    const [stdout, stderr, code] = await Promise.all([text(shell.stdout), text(shell.stderr), exit])
    return { code, stdout, stderr }
  } finally {
    await stopWhatIsLeft(shell.pid!, join(folder, 'work', 'nginx.pid'))
  }
}

async function stopWhatIsLeft(group: number, pidFile: string): Promise<void> {
  const nginx = Number(await readFile(pidFile, 'utf8').catch(() => ''))
  for (const pid of [-group, nginx]) {
    try {
      if (pid !== 0) process.kill(pid, 'SIGTERM')
    } catch {} // it ended by itself, as it should
  }
}

/** Bytes down and up that a plan or a fill reports; a fill's last line counts. */
async function wireBytesIn(path: string): Promise<number> {
  const last = (await readFile(path, 'utf8')).trim().split('\n').at(-1)!
  const { wire } = JSON.parse(last) as { wire: { down: number; up: number } }
  return wire.down + wire.up
}

/** @returns what the update put on the wire. */
async function expectFirstHour(folder: string, old: string, next: string): Promise<number> {
  const { code, stdout, stderr } = await runFirstHour(folder, old, next)
  expect(code, stderr).toBe(0)
  expect(stdout).toContain(`every item of ${old} is served as it is`)
  expect(stdout).toContain(`every item of ${next} is served as it is`)
  const planned = await wireBytesIn(join(folder, 'work', 'plan.json'))
  const filled = await wireBytesIn(join(folder, 'work', 'fill.json'))
  expect(Math.abs(filled - planned)).toBeLessThanOrEqual(planned * 0.01)
  return filled
}

it('the first hour works as written, with a sample dataset and an awkward name', async () => {
  await using folder = await mkdtempDisposable(join(tmpdir(), 'towerlight-hour-'))
  const [old, next] = [join(folder.path, 'old'), join(folder.path, 'new')]
  await cp(join(SAMPLE, 'r1'), old, { recursive: true })
  await writeFile(join(old, 'größe & 100%.txt'), 'ein Name\n')
  await cp(old, next, { recursive: true })
  await cp(join(SAMPLE, 'r2'), next, { recursive: true })
  await expectFirstHour(folder.path, old, next)
}, 120_000)

it.runIf(existsSync(BOOK))(
  'the first hour works with a real book, and its update costs a small part of it',
  async () => {
    await using folder = await mkdtempDisposable(join(tmpdir(), 'towerlight-hour-'))
    const [old, next] = [join(folder.path, 'old'), join(folder.path, 'new')]
    for (const [version, to] of [
      ['old', old],
      ['new', next],
    ] as const) {
      await mkdir(to)
      await unpack(join(BOOK, `${version}.tar`), to)
    }
    const wireBytes = await expectFirstHour(folder.path, old, next)
    expect(wireBytes / (await stat(join(BOOK, 'new.tar'))).size).toBeLessThan(UPDATE_SHARE_MAX)
  },
  300_000,
)

async function unpack(archive: string, folder: string): Promise<void> {
  const tar = spawn('tar', ['-xf', archive, '-C', folder], { stdio: ['ignore', 'ignore', 'inherit'] })
  const code = await new Promise(resolve => tar.once('exit', resolve))
  expect(code).toBe(0)
}

if (!existsSync(BOOK))
  console.warn(`${BOOK} is not here: the first hour is not tried with a real book (TOWERLIGHT_DATA)`)
