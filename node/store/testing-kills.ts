/**
 * For tests: kills writers with -9 at any moment, and looks at what they left.
 */
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { fileURLToPath } from 'node:url'
import { CAPACITIES, extentNumbered, isPinned } from './testing-writer.ts'
import { openTestStore, temporaryFolder, UNHURRIED } from './testing.ts'
import { numberOf } from './testing-damage.ts'

const WRITER = fileURLToPath(new URL('testing-writer.ts', import.meta.url))

export interface KillReport {
  readonly acknowledged: number
  /** Pinned and acknowledged, and not there afterwards. */
  readonly lost: number
  readonly wrong: number
  readonly openMsMax: number
}

/** @param aliveMsMax a writer is killed within so much time after its first acknowledgement. */
export async function killRounds(rounds: number, aliveMsMax: number): Promise<KillReport> {
  await using folder = await temporaryFolder()
  const acknowledged: number[] = []
  let lost = 0
  let wrong = 0
  let openMsMax = 0
  for (let round = 0; round < rounds; round++) {
    const first = (acknowledged.at(-1) ?? 1000) + 100
    acknowledged.push(...(await killOne(folder.path, first, numberOf(`kill ${round}`) % aliveMsMax)))

    const began = performance.now()
    await using store = await openTestStore(folder.path, CAPACITIES)
    openMsMax = Math.max(openMsMax, performance.now() - began)
    if (round % 3 === 0) await store.settled() // else what happens in the background meets the kill, too
    for (const number of acknowledged.slice(-60)) {
      const { cid, bytes } = extentNumbered(number)
      if (!store.has(cid)) {
        if (isPinned(number)) lost++
        continue
      }
      const read = await store.readExtent(cid, UNHURRIED).catch(() => undefined)
      if (read && !read.equals(bytes)) wrong++
      if (!read && isPinned(number)) lost++
    }
  }
  return { acknowledged: acknowledged.length, lost, wrong, openMsMax }
}

async function killOne(folder: string, first: number, aliveMs: number): Promise<number[]> {
  const child = spawn(process.execPath, [WRITER, folder, String(first)], {
    stdio: ['ignore', 'pipe', 'inherit'],
  })
  let text = ''
  let timer: NodeJS.Timeout | undefined
  child.stdout.setEncoding('utf8')
  child.stdout.on('data', (piece: string) => {
    text += piece
    timer ??= setTimeout(() => child.kill('SIGKILL'), aliveMs)
  })
  await once(child, 'close')
  clearTimeout(timer)
  if (child.signalCode !== 'SIGKILL') throw new Error(`the writer ended by itself: ${child.exitCode}`)
  const whole = text.slice(0, text.lastIndexOf('\n') + 1)
  return whole
    .split('\n')
    .filter(Boolean)
    .map(Number)
    .toSorted((a, b) => a - b)
}
