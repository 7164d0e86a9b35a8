/** For tests: `tower` commands run to their end, with how long they took and the most memory they held. */
import { readFileSync } from 'node:fs'
import { text } from 'node:stream/consumers'
import { expect } from 'vitest'
import type { World } from './test-world.ts'
import { startTower } from './testing.ts'

const LOOK_MS = 100

export interface Cost {
  readonly seconds: number
  /** The most that any one of the command's processes held. */
  readonly rssMiB: number
}

/** With `--json`; it has to end well. @returns with what it said on stdout. */
export async function measured(
  world: World,
  args: readonly string[],
  env: Record<string, string> = {},
): Promise<{ readonly cost: Cost; readonly said: string }> {
  const sinceMs = performance.now()
  const { child, exit } = startTower([...args, '--json'], {
    cwd: world.folder,
    env: { ...world.env, ...env },
  })
  const texts = Promise.all([text(child.stdout), text(child.stderr)])
  using rss = watchRss(child.pid!)
  const code = await exit
  const [said, problems] = await texts
  expect(code, said + problems).toBe(0)
  return { cost: { seconds: secondsSince(sinceMs), rssMiB: rss.mostMiB() }, said }
}

export const secondsSince = (sinceMs: number) => Math.round((performance.now() - sinceMs) / 100) / 10

/** Peaks (VmHWM) of a process and its children, looked at until disposed. */
export function watchRss(pid: number): Disposable & { mostMiB: () => number } {
  let mostKib = 0
  const look = (of: number): void => {
    mostKib = Math.max(mostKib, Number(/^VmHWM:\s+(\d+) kB$/m.exec(readProc(`${of}/status`))?.[1] ?? 0))
    for (const child of readProc(`${of}/task/${of}/children`).split(' ').filter(Boolean)) look(Number(child))
  }
  const timer = setInterval(() => look(pid), LOOK_MS)
  return {
    mostMiB() {
      look(pid)
      return Math.round(mostKib / 1024)
    },
    [Symbol.dispose]: () => clearInterval(timer),
  }
}

/** Empty when the process has gone. */
function readProc(path: string): string {
  try {
    return readFileSync(`/proc/${path}`, 'utf8')
  } catch {
    return ''
  }
}
