/**
 * For tests only: a fill in a process of its own, to be killed.
 * `node fill-process.ts FOLDER URL ROOT-FILE BYTES-PER-SECOND`; says `ready`, then `done`.
 */
import { readFile } from 'node:fs/promises'
import { setTimeout as sleep } from 'node:timers/promises'
import { fillOnce } from './fill-once.ts'
import { openPace } from './pace.ts'
import { openNode } from './test-world.ts'

const [folder, url, root, rate] = process.argv.slice(2) as [string, string, string, string]
const pace = openPace({
  bytesPerSecondMax: Number(rate),
  shared: false,
  nowMs: () => performance.now(),
  wait: (ms, signal) => sleep(ms, undefined, { signal }),
})
await using node = await openNode(await readFile(root), folder)
console.log('ready')
const upstream = node.upstream(new URL(url), { pace, connectionsMax: 4 })
for await (const event of fillOnce(node.request([upstream]))) {
  if (event.type === 'failed') console.log(`failed ${event.code} ${event.message}`)
  if (event.type === 'done') console.log(`done ${JSON.stringify(event)}`)
}
