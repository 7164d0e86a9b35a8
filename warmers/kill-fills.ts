/** For tests only: fills that are killed with -9 at random moments, and what that costs. */
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { expect } from 'vitest'
import { bytesOf } from '../node/store/testing.ts'
import { planOnce } from './fill-once.ts'
import { openNode, openOrigin, type Files } from './test-world.ts'
import { temporaryFolder } from './testing.ts'

const CONNECTIONS = 4

/**
 * @param seed of the moments; @param kills how many; @param seconds about how long an unbroken fill takes
 * @throws when a byte is wrong, the fill is not finished in the end, or too much was fetched twice
 */
export async function killFills(
  seed: number,
  kills: number,
  sizeBytes: number,
  seconds: number,
): Promise<{ wastedBytes: number }> {
  await using origin = await openOrigin()
  await using server = await origin.serve()
  await using folder = await temporaryFolder()
  const files: Files = {
    'film.mp4': bytesOf('film', sizeBytes),
    'table.csv': Array.from({ length: 20_000 }, (_, n) => `${n},${(n * 7919) % 1009}\n`).join(''),
    ...Object.fromEntries(Array.from({ length: 50 }, (_, n) => [`notes/${n}.bin`, bytesOf(n, 3000 + n)])),
  }
  await origin.publish('health/who', files)
  const root = join(folder.path, 'root.json')
  await writeFile(root, origin.root)
  const data = join(folder.path, 'data')
  const random = randomOf(seed)

  let neededBytes = 0
  {
    await using other = await openNode(origin.root)
    const plan = await planOnce(other.request([other.upstream(server.url)]))
    neededBytes = server.requests.reduce((sum, request) => sum + askedFor(request), 0) + plan.wire.down
  }
  server.requests.length = 0
  let killed = 0
  for (let run = 0; run <= kills; run++) {
    const child = spawn(
      process.execPath,
      [
        join(import.meta.dirname, 'fill-process.ts'),
        data,
        server.url.href,
        root,
        String(sizeBytes / seconds),
      ],
      {
        stdio: ['ignore', 'pipe', 'inherit'],
      },
    )
    const exited = once(child, 'exit')
    let said = ''
    child.stdout.setEncoding('utf8').on('data', (text: string) => (said += text))
    if (run < kills) {
      while (!said.includes('ready') && child.exitCode === null) await sleep(5)
      await sleep(random() * ((seconds * 1000) / Math.max(1, kills / 6)))
      if (child.kill('SIGKILL')) killed++
      await exited
    } else {
      await exited
      expect(said).toContain('"complete":true')
    }
  }
  {
    await using node = await openNode(origin.root, data)
    const items = await node.items('health/who')
    for (const [path, bytes] of Object.entries(files))
      expect(items[path]!.equals(Buffer.from(bytes as Uint8Array)), path).toBe(true)
  }
  const asked = server.requests.reduce((sum, request) => sum + askedFor(request), 0)
  const wastedBytes = asked - neededBytes
  // what was asked for is more than what arrived: so this holds whatever sat in sockets
  expect(wastedBytes).toBeLessThanOrEqual(killed * CONNECTIONS * 256 * 1024)
  return { wastedBytes }
}

function askedFor(request: string): number {
  const range = /bytes=(\d+)-(\d+)$/.exec(request)
  return range ? Number(range[2]) - Number(range[1]) + 1 : 0
}

/** mulberry32 */
function randomOf(seed: number): () => number {
  return () => {
    seed = (seed + 0x6d2b79f5) | 0
    let t = Math.imul(seed ^ (seed >>> 15), 1 | seed)
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t
    return ((t ^ (t >>> 14)) >>> 0) / 4294967296
  }
}
