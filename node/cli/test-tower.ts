/** For tests: `tower …` as a process of its own, with what it answered. */
import { execFile } from 'node:child_process'
import { join } from 'node:path'

const MAIN = join(import.meta.dirname, 'main.ts')
const ENDS_WITHIN_MS = 60_000

export interface Answer {
  readonly code: number
  readonly stdout: string
  readonly stderr: string
}

export function tower(args: readonly string[], env: NodeJS.ProcessEnv = {}): Promise<Answer> {
  const options = { env: { ...process.env, ...env }, timeout: ENDS_WITHIN_MS }
  return new Promise((resolve, reject) => {
    execFile(process.execPath, [MAIN, ...args], options, (error, stdout, stderr) => {
      if (error && typeof error.code !== 'number') reject(error)
      else resolve({ code: error ? Number(error.code) : 0, stdout, stderr })
    })
  })
}
