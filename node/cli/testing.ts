/** Runs `tower` as people do: the launcher, in a process of its own, with no settings of ours. */
import { spawn } from 'node:child_process'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import { text } from 'node:stream/consumers'

export const TOWER = join(import.meta.dirname, 'tower')

export interface TowerRun {
  readonly env?: Readonly<Record<string, string>>
  readonly cwd?: string
  /** Instead of the launcher. */
  readonly command?: string
}

export interface Ended {
  readonly code: number | null
  readonly stdout: string
  readonly stderr: string
}

export function startTower(
  args: readonly string[],
  { env = {}, cwd = tmpdir(), command = TOWER }: TowerRun = {},
) {
  const child = spawn(command, args, {
    cwd,
    env: { PATH: process.env['PATH'], ...env },
    stdio: ['ignore', 'pipe', 'pipe'],
  })
  const exit = Promise.withResolvers<number | null>()
  child.on('error', exit.reject).on('exit', exit.resolve)
  return { child, exit: exit.promise }
}

export async function tower(args: readonly string[], run?: TowerRun): Promise<Ended> {
  const { child, exit } = startTower(args, run)
  const [code, stdout, stderr] = await Promise.all([exit, text(child.stdout), text(child.stderr)])
  return { code, stdout, stderr }
}

export interface RunningTower<Said> extends AsyncDisposable {
  readonly url: string
  readonly pid: number
  /** What it said on stdout, up to and with `ready`. */
  readonly said: readonly Said[]
  get(path: string, init?: RequestInit): Promise<Response>
  stop(signal?: NodeJS.Signals): Promise<{ code: number | null; stderr: string }>
}

/** `tower up` or `tower serve`, with `--json`, until it says that it is ready. Killed when disposed. */
export async function openTower<Said extends { readonly event: string; readonly url?: string }>(
  args: readonly string[],
  run?: TowerRun,
): Promise<RunningTower<Said>> {
  const { child, exit } = startTower([...args, '--json'], run)
  const said: Said[] = []
  const stderr = text(child.stderr)
  for await (const line of createInterface({ input: child.stdout })) {
    said.push(JSON.parse(line) as Said)
    if (said.at(-1)!.event === 'ready') break
  }
  child.stdout.resume()
  const url = said.at(-1)?.url
  if (url === undefined) throw new Error(`it never was ready: ${JSON.stringify(said)} ${await stderr}`)
  return {
    said,
    url,
    pid: child.pid!,
    get: async (path, init) => await fetch(new URL(path, url), init),
    async stop(signal = 'SIGTERM') {
      child.kill(signal)
      return { code: await exit, stderr: await stderr }
    },
    async [Symbol.asyncDispose]() {
      child.kill('SIGKILL')
      await exit
    },
  }
}
