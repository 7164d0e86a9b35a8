/**
 * What those who read notice of pin targets that are killed, hung, emptied and started again in the
 * middle of pinning: nothing. And how long the targets are without their pins.
 */
import { once } from 'node:events'
import { readdirSync } from 'node:fs'
import { rm } from 'node:fs/promises'
import { setPriority } from 'node:os'
import { join } from 'node:path'
import { Worker } from 'node:worker_threads'
import { expect, it } from 'vitest'
import { suspend } from '../../pinning/testing/servers.ts'
import type { RunningNode } from '../main.ts'
import { bytesOf } from '../store/testing.ts'
import { DATASET, fill, openPinWorld, type PinWorld, untilPinned, upstreamOf } from './test-pins.ts'

const ITEMS = 150
const PHASE_MS = 4000
const ROUNDS = 3
const RETURN_MS = 30_000
/** Of p99, against the time before the fault. */
const SLOWER_MAX = 1.1

interface Reads {
  readonly tookMs: readonly number[]
  readonly refused: number
}

it('readers notice nothing, and pins are back within half a minute', async () => {
  const files = new Map(
    Array.from({ length: ITEMS }, (_, n) => [`${n}.bin`, bytesOf(`item ${n}`, 2000 + n * 400)] as const),
  )
  await using world = await openPinWorld(files)
  const targets = { ipfsApi: [world.kubo.url], s3Url: world.minio.url }
  await using node = await world.start(await world.folder(), { ...targets, ...upstreamOf(world) })
  letReadersFirst(world)
  await fill(node)
  await untilPinned(node, ITEMS + 1, 5 * 60_000)

  const urls = [...files.keys()].slice(0, 50).map(path => new URL(`data/${DATASET}/${path}`, node.url).href)
  const reader = new Worker(new URL('test-reader.ts', import.meta.url), { workerData: { urls } })
  const quiet: number[] = []
  const during = new Map<string, number[]>()
  const returns: Record<string, number> = {}
  try {
    for (let round = 0; round < ROUNDS; round++) {
      for (const [name, { fault, end }] of Object.entries(FAULTS)) {
        quiet.push(...(await readFor(reader, PHASE_MS)))
        await fault(world)
        node.owner.pins!.wake()
        during.set(name, [...(during.get(name) ?? []), ...(await readFor(reader, PHASE_MS))])
        await end(world)
        returns[name] = Math.max(returns[name] ?? 0, await msUntilPinned(node))
      }
    }
  } finally {
    await reader.terminate()
  }
  const before = p99(quiet)
  const slower = Object.fromEntries([...during].map(([name, tookMs]) => [name, p99(tookMs) / before]))
  console.log(JSON.stringify({ reads: quiet.length, p99QuietMs: before, slower, returns }))
  for (const ms of Object.values(returns)) expect(ms).toBeLessThan(RETURN_MS)
  for (const ratio of Object.values(slower)) expect(ratio).toBeLessThan(SLOWER_MAX)
})

interface Fault {
  fault(world: PinWorld): Promise<void>
  end(world: PinWorld): Promise<void>
}

const restart = async (world: PinWorld) => {
  world.kubo = await world.kubo.restart()
  world.minio = await world.minio.restart()
  letReadersFirst(world)
}
/** As docs/pinning.md has it for servers on the tower itself. */
const letReadersFirst = ({ kubo, minio }: PinWorld) => {
  for (const { process } of [kubo, minio]) {
    // priorities are of threads; those to come have that of the one that starts them
    for (const thread of readdirSync(`/proc/${process.pid}/task`)) setPriority(Number(thread), 10)
  }
}
const signalBoth = (world: PinWorld, name: NodeJS.Signals) => {
  for (const { process } of [world.kubo, world.minio]) process.kill(name)
}

const FAULTS: Readonly<Record<string, Fault>> = {
  killed: {
    fault: async world => signalBoth(world, 'SIGKILL'),
    end: restart,
  },
  hung: {
    fault: async ({ kubo, minio }) => void (await Promise.all([kubo, minio].map(suspend))),
    end: async world => signalBoth(world, 'SIGCONT'),
  },
  /** Pinning goes on while it is read, and is cut off in the middle. */
  emptied: {
    async fault(world) {
      const roots = (await world.kubo.run('pin', 'ls', '--type=recursive', '--quiet')).toString()
      await world.kubo.run('pin', 'rm', ...roots.split('\n').filter(cid => cid.startsWith('baf')))
      for (let drive = 1; drive <= 6; drive++) {
        const bucket = join(world.minio.folder, `drive${drive}`, 'towerlight')
        await rm(bucket, { recursive: true, force: true })
      }
    },
    end: restart,
  },
}

async function readFor(reader: Worker, ms: number): Promise<readonly number[]> {
  await taken(reader)
  await new Promise(resolve => setTimeout(resolve, ms)) // a span of time is what is measured
  const { tookMs, refused } = await taken(reader)
  expect(refused).toBe(0)
  return tookMs
}

async function taken(reader: Worker): Promise<Reads> {
  const answer = once(reader, 'message')
  reader.postMessage('take', [])
  const [reads] = (await answer) as [Reads]
  return reads
}

async function msUntilPinned(node: RunningNode): Promise<number> {
  const before = performance.now()
  await untilPinned(node, ITEMS + 1, RETURN_MS)
  return Math.round(performance.now() - before)
}

function p99(tookMs: readonly number[]): number {
  return tookMs.toSorted((a, b) => a - b)[Math.floor(tookMs.length * 0.99)] ?? 0
}
