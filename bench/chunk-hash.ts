/**
 * How fast is what publishing does to every byte: FastCDC, SHA-256 of each chunk, SHA-256 of the
 * whole item? On one core and on two; beside it the bound, one SHA-256 of the same bytes.
 *
 * Workload: pseudo-random bytes from memory, so that the disk is not what is measured. Run as
 * `node bench/chunk-hash.ts [--mib 256] [--passes 4]`; prints one JSON line, rates in MB/s (10^6
 * bytes) of the best pass, because other work on the machine only ever takes away. `perCpu` is
 * bytes per second of CPU, which other work changes less.
 */
import { createHash } from 'node:crypto'
import { availableParallelism, cpus } from 'node:os'
import { parseArgs } from 'node:util'
import { openItemHasher, type ReadInto } from '../manifests/publish/item-hasher.ts'

const { values } = parseArgs({
  options: { mib: { type: 'string', default: '256' }, passes: { type: 'string', default: '4' } },
})
const sizeBytes = Number(values.mib) * 1024 * 1024
const source = noise(64 * 1024 * 1024, 1)

const oneCore = await measure(1)
const twoCores = await measure(2)
const sha256 = await best(async () => {
  const hash = createHash('sha256')
  for (let done = 0; done < sizeBytes; done += source.length) hash.update(source)
  hash.digest()
})
console.log(
  JSON.stringify({
    bench: 'chunk-hash',
    chunkHashMBps: oneCore.wall,
    chunkHashPerCpu: oneCore.perCpu,
    chunkHash2MBps: twoCores.wall,
    chunkHash2PerCpu: twoCores.perCpu,
    sha256MBps: sha256.wall,
    mib: Number(values.mib),
    cpu: cpus()[0]?.model,
    cores: availableParallelism(),
    node: process.version,
  }),
)

async function measure(threads: 1 | 2): Promise<Rate> {
  await using hasher = openItemHasher(threads)
  return await best(async () => void (await hasher.hash(readOf(sizeBytes))))
}

interface Rate {
  readonly wall: number
  readonly perCpu: number
}

/** The first pass, which warms up, does not count. */
async function best(work: () => Promise<void>): Promise<Rate> {
  await work()
  const rate = { wall: 0, perCpu: 0 }
  for (let pass = 0; pass < Number(values.passes); pass++) {
    const startedMs = performance.now()
    const cpuBefore = process.cpuUsage()
    await work()
    const { user, system } = process.cpuUsage(cpuBefore)
    rate.wall = Math.max(rate.wall, Math.round(sizeBytes / (performance.now() - startedMs) / 1000))
    rate.perCpu = Math.max(rate.perCpu, Math.round(sizeBytes / (user + system)))
  }
  return rate
}

/** The source over and over; its period is no multiple of the segments', so cuts differ. */
function readOf(total: number): ReadInto {
  return async (buffer, position) => {
    const length = Math.min(buffer.length, total - position)
    for (let filled = 0; filled < length; ) {
      const from = (position + filled) % (source.length - 7)
      const piece = source.subarray(from, Math.min(from + length - filled, source.length - 7))
      buffer.set(piece, filled)
      filled += piece.length
    }
    return length
  }
}

/** xorshift32: incompressible enough, the same everywhere. */
function noise(length: number, seed: number): Uint8Array {
  const words = new Uint32Array(length / 4)
  let state = seed
  for (let at = 0; at < words.length; at++) {
    state ^= state << 13
    state ^= state >>> 17
    state ^= state << 5
    words[at] = state
  }
  return new Uint8Array(words.buffer)
}
