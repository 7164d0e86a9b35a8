/** What a reader waits who comes now and then, beside the load: by tier, and for the first byte of a big item. */
import { setTimeout as sleep } from 'node:timers/promises'
import { Agent, type Dispatcher } from 'undici'

export interface Probes {
  readonly firstByteMs: readonly number[]
  /** Ranges of 64 KiB, by the tier that `Cache-Status` names. */
  readonly rangeMs: Readonly<Record<string, readonly number[]>>
}

const RANGE_BYTES = 64 * 1024
const PAUSE_MS = 4
/** So many ranges are read for each first byte. */
const RANGES = 25

export async function probeFor(url: string, sizeBytes: number, seconds: number): Promise<Probes> {
  const agent = new Agent({ connections: 2 })
  await using _closing = { [Symbol.asyncDispose]: () => agent.destroy() }
  const { origin, pathname: path } = new URL(url)
  const firstByteMs: number[] = []
  const rangeMs: Record<string, number[]> = {}
  const endsAtMs = performance.now() + seconds * 1000
  for (let n = 0; performance.now() < endsAtMs; n++) {
    const from = Math.floor(Math.random() * (sizeBytes - RANGE_BYTES))
    const isRange = n % RANGES !== 0
    const headers = isRange ? { range: `bytes=${from}-${from + RANGE_BYTES - 1}` } : {}
    const sinceMs = performance.now()
    const answer = await agent.request({ origin, path, method: 'GET', headers })
    if (isRange) {
      await answer.body.bytes()
      ;(rangeMs[tierOf(answer)] ??= []).push(performance.now() - sinceMs)
    } else {
      for await (const _bytes of answer.body) {
        firstByteMs.push(performance.now() - sinceMs)
        break
      }
    }
    await sleep(PAUSE_MS)
  }
  return { firstByteMs, rangeMs }
}

function tierOf({ headers }: Dispatcher.ResponseData): string {
  return /detail=(\w+)/.exec(String(headers['cache-status']))?.[1] ?? 'none'
}
