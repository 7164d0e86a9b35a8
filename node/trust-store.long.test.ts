/**
 * Power cuts. The store lies on an ext4 in a file; at a random moment its writer is stopped and the
 * file copied: what had not reached the device is missing from the copy, as after a cut. Mounting the
 * copy replays the journal; then nothing that was acknowledged may be gone. Needs root for the mounts.
 */
import { type ChildProcess, execFileSync, spawn } from 'node:child_process'
import { copyFileSync } from 'node:fs'
import { mkdir, mkdtemp, rm, truncate, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { afterAll, beforeAll, expect, it } from 'vitest'
import { findTarget } from '../manifests/tuf/accepted-state.ts'
import { parseTimestamp } from '../manifests/tuf/metadata.ts'
import { openTrustStore } from './trust-store.ts'

const WRITER = join(import.meta.dirname, 'test-trust-writer.ts')
const POWER_CUTS = 300
const KILLS = 200
const RELEASES_PER_LIFE = 40

let folder: string
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'power-'))
})
afterAll(() => rm(folder, { recursive: true, force: true }))

const canMount = ((): boolean => {
  if (process.getuid?.() === 0 && tryRun('which', 'mkfs.ext4', 'losetup')) return true
  if (process.env['CI']) throw new Error('power cuts need root, mkfs.ext4 and loop mounts')
  console.warn('NOT RUN: power cuts, which need root, mkfs.ext4 and loop mounts')
  return false
})()

it.runIf(canMount)(`survives ${POWER_CUTS} power cuts`, async () => {
  const image = join(folder, 'disk.img')
  const crashed = join(folder, 'crashed.img')
  const mounted = join(folder, 'mounted')
  const again = join(folder, 'again')
  for (const place of [mounted, again]) await mkdir(place)
  let cuts = 0
  while (cuts < POWER_CUTS) {
    await writeFile(image, '')
    await truncate(image, 8 << 20)
    execFileSync('mkfs.ext4', ['-q', '-F', image])
    execFileSync('mount', ['-o', 'loop', image, mounted])
    try {
      await using writer = startWriter(join(mounted, 'trust-v1'))
      await writer.acknowledged(1)
      for (let cut = 0; cut < RELEASES_PER_LIFE; cut++) {
        await sleep(Math.random() * 20)
        writer.process.kill('SIGSTOP')
        await sleep(2)
        const floor = writer.last()
        copyFileSync(image, crashed)
        writer.process.kill('SIGCONT')
        execFileSync('mount', ['-o', 'loop', crashed, again])
        try {
          await expectAtLeast(join(again, 'trust-v1'), floor)
        } finally {
          execFileSync('umount', [again])
        }
        cuts++
      }
    } finally {
      execFileSync('umount', [mounted])
    }
  }
})

it(`survives ${KILLS} kills`, async () => {
  for (let kill = 0; kill < KILLS; kill++) {
    const place = join(folder, `kill-${kill}`)
    const writer = startWriter(place)
    await writer.acknowledged(1 + (kill % 5))
    await sleep(Math.random() * 10)
    await writer[Symbol.asyncDispose]()
    await expectAtLeast(place, writer.last())
    await rm(place, { recursive: true })
  }
})

interface Floor {
  readonly sequence: number
  readonly timestamp: number
}

interface Writer extends AsyncDisposable {
  readonly process: ChildProcess
  last(): Floor
  acknowledged(count: number): Promise<void>
}

async function expectAtLeast(place: string, floor: Floor): Promise<void> {
  const store = await openTrustStore(place)
  expect(store.damaged).toBeUndefined()
  expect(store.sequence).toBeGreaterThanOrEqual(floor.sequence)
  const { accepted } = store.record
  const version = accepted?.timestamp ? parseTimestamp(accepted.timestamp).version : 0
  expect(version).toBeGreaterThanOrEqual(floor.timestamp)
  if (accepted?.served) expect(findTarget(accepted, 'health/guide/manifest.json')).toBeDefined()
}

function startWriter(place: string): Writer {
  const child = spawn(process.execPath, [WRITER, place], { stdio: ['ignore', 'pipe', 'inherit'] })
  const lines: Floor[] = []
  let text = ''
  child.stdout.on('data', (piece: Buffer) => {
    const parts = (text + piece.toString()).split('\n')
    text = parts.pop() ?? ''
    for (const line of parts) {
      const [sequence = 0, timestamp = 0] = line.split(' ').map(Number)
      lines.push({ sequence, timestamp })
    }
  })
  const ended = new Promise<void>(resolve => child.once('close', () => resolve()))
  return {
    process: child,
    last: () => lines.at(-1) ?? { sequence: 0, timestamp: 0 },
    async acknowledged(count) {
      while (lines.length < count && child.exitCode === null) await sleep(1)
    },
    async [Symbol.asyncDispose]() {
      child.kill('SIGCONT')
      child.kill('SIGKILL')
      await ended
    },
  }
}

function tryRun(program: string, ...args: string[]): boolean {
  try {
    execFileSync(program, args, { stdio: 'ignore' })
    return true
  } catch {
    return false
  }
}
