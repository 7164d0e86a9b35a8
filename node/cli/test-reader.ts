/**
 * For tests, a thread of its own: reads the same items over and over, as one who knows nothing of what
 * happens beside, and answers every message with the milliseconds of each read since the last one.
 */
import { Agent, request } from 'undici'
import { parentPort, workerData } from 'node:worker_threads'

const { urls } = workerData as { readonly urls: readonly string[] }
const PAUSE_MS = 2

let tookMs: number[] = []
let refused = 0
parentPort!.on('message', () => {
  parentPort!.postMessage({ tookMs, refused }, [])
  tookMs = []
  refused = 0
})

const dispatcher = new Agent({ connections: 1 })
for (let at = 0; ; at = (at + 1) % urls.length) {
  const before = performance.now()
  const { statusCode, body } = await request(urls[at]!, { dispatcher })
  await body.bytes()
  if (statusCode === 200) tookMs.push(performance.now() - before)
  else refused++
  await new Promise(resolve => setTimeout(resolve, PAUSE_MS)) // so that it does not measure itself
}
