/**
 * For tests: ends writers with -9, or with the power, at any moment, and looks at what they left.
 *
 * Power: the store is on a file system inside an image. The writer is stopped, the image copied as it
 * is, without what was only in the kernel's cache, and the copy mounted, which replays its journal.
 */
import { execFileSync, spawn, type ChildProcess } from 'node:child_process'
import { once } from 'node:events'
import { copyFile, mkdir, rm } from 'node:fs/promises'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { CAPACITIES, extentNumbered, isPinned } from './testing-writer.ts'
import { openTestStore, temporaryFolder, UNHURRIED } from './testing.ts'
import { numberOf } from './testing-damage.ts'

const WRITER = fileURLToPath(new URL('testing-writer.ts', import.meta.url))
const IMAGE_BYTES = 96 * 1024 * 1024
const FIRST = 1000
const GAP = 100

export interface EndReport {
  acknowledged: number
  /** Pinned and acknowledged, and not there afterwards. */
  lost: number
  wrong: number
  openMsMax: number
}

/** @param aliveMsMax a writer is killed within so much time after its first acknowledgement. */
export async function killRounds(rounds: number, aliveMsMax: number): Promise<EndReport> {
  await using folder = await temporaryFolder()
  const report: EndReport = { acknowledged: 0, lost: 0, wrong: 0, openMsMax: 0 }
  for (let round = 0, first = FIRST; round < rounds; round++) {
    const writer = new Writer(folder.path, first)
    await writer.run(numberOf(`kill ${round}`) % aliveMsMax)
    await writer.kill()
    await lookAt(folder.path, writer.acknowledged, round % 3 === 0, report)
    first = (writer.acknowledged.at(-1) ?? first) + GAP
  }
  return report
}

/** Only root can mount. */
export async function powerCutRounds(rounds: number, aliveMsMax: number): Promise<EndReport> {
  await using folder = await temporaryFolder()
  const [image, crashed] = [join(folder.path, 'disk.img'), join(folder.path, 'crashed.img')]
  const [disk, after] = [join(folder.path, 'disk'), join(folder.path, 'after')]
  await mkdir(disk)
  await mkdir(after)
  execFileSync('truncate', ['-s', String(IMAGE_BYTES), image])
  execFileSync('mkfs.ext4', ['-q', '-F', image])
  const report: EndReport = { acknowledged: 0, lost: 0, wrong: 0, openMsMax: 0 }
  for (let round = 0, first = FIRST; round < rounds; round++) {
    execFileSync('mount', ['-o', 'loop', image, disk])
    const writer = new Writer(join(disk, 'store'), first)
    try {
      await writer.run(numberOf(`cut ${round}`) % aliveMsMax)
      writer.stop()
      await copyFile(image, crashed)
    } finally {
      await writer.kill()
      execFileSync('umount', [disk])
    }
    execFileSync('mount', ['-o', 'loop', crashed, after])
    try {
      await lookAt(join(after, 'store'), writer.acknowledged, round % 3 === 0, report)
    } finally {
      execFileSync('umount', [after])
    }
    await rm(crashed)
    first = (writer.acknowledged.at(-1) ?? first) + GAP
  }
  return report
}

/** @param settle else what happens in the background meets the next end, too. */
async function lookAt(
  folder: string,
  acknowledged: readonly number[],
  settle: boolean,
  report: EndReport,
): Promise<void> {
  const began = performance.now()
  await using store = await openTestStore(folder, CAPACITIES)
  report.openMsMax = Math.max(report.openMsMax, performance.now() - began)
  report.acknowledged += acknowledged.length
  if (settle) await store.settled()
  for (const number of acknowledged) {
    const { cid, bytes } = extentNumbered(number)
    const read = await store.readExtent(cid, UNHURRIED).catch(async () => {
      // set aside, healed, and ended before that was written down: it is proven right where it lies
      await Array.fromAsync(store.verify({ heal: true, ...UNHURRIED }))
      return await store.readExtent(cid, UNHURRIED).catch(() => undefined)
    })
    if (read && !read.equals(bytes)) report.wrong++
    if (!read && isPinned(number)) report.lost++
  }
}

class Writer {
  readonly #child: ChildProcess
  readonly #begun: Promise<unknown>
  #text = ''
  /** In order; of the moment when it was stopped. */
  acknowledged: readonly number[] = []

  constructor(folder: string, first: number) {
    this.#child = spawn(process.execPath, [WRITER, folder, String(first)], {
      stdio: ['ignore', 'pipe', 'inherit'],
    })
    this.#child.stdout!.setEncoding('utf8').on('data', (piece: string) => (this.#text += piece))
    this.#begun = once(this.#child.stdout!, 'data')
  }

  async run(aliveMs: number): Promise<void> {
    await this.#begun
    await new Promise(resolve => setTimeout(resolve, aliveMs))
  }

  stop(): void {
    this.#child.kill('SIGSTOP')
    this.#note()
  }

  async kill(): Promise<void> {
    const closed = once(this.#child, 'close')
    this.#child.kill('SIGKILL')
    await closed
    if (this.#child.signalCode !== 'SIGKILL') throw new Error(`ended by itself: ${this.#child.exitCode}`)
    if (this.acknowledged.length === 0) this.#note()
  }

  #note(): void {
    const whole = this.#text.slice(0, this.#text.lastIndexOf('\n') + 1)
    const numbers = whole.split('\n').filter(Boolean).map(Number)
    this.acknowledged = numbers.toSorted((a, b) => a - b)
  }
}
