/** Runs `tower` as people do: the launcher, in a process of its own, with no settings of ours. */
import { spawn } from 'node:child_process'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
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
