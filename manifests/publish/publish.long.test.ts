import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { open } from 'node:fs/promises'
import { join } from 'node:path'
import { describe, expect, it } from 'vitest'
import { openBench } from './test-folders.ts'

const GIB = 1024 ** 3
const RSS_BYTES_MAX = 200e6
/** Longer than any frame, or they would be found to repeat. */
const BLOCK_BYTES = 32 * 1024 ** 2

/** Publishes in a process of its own, with what `node/cli/tower` gives one. @returns the most memory it held. */
async function publishApart(folder: string, repo: string, compileCache: string): Promise<number> {
  const code = `
    import { folderStorage } from '${import.meta.dirname}/folder-storage.ts'
    import { publishRelease } from '${import.meta.dirname}/publish-release.ts'
    const signer = { current: async () => undefined, sign: async () => {} }
    await publishRelease({ folder: ${JSON.stringify(folder)}, dataset: 'a/b', repository: folderStorage(${JSON.stringify(repo)}), signer, now: new Date(0) })
    console.log(process.resourceUsage().maxRSS * 1024)`
  const flags = ['--max-semi-space-size=4', '--heap-growing-percent=50', '--input-type=module', '-e', code]
  const malloc = { MALLOC_ARENA_MAX: '1', MALLOC_TRIM_THRESHOLD_: '1048576' }
  const child = spawn(process.execPath, flags, {
    stdio: ['ignore', 'pipe', 'inherit'],
    env: { ...process.env, ...malloc, NODE_COMPILE_CACHE: compileCache },
  })
  let said = ''
  child.stdout.on('data', (piece: Buffer) => (said += piece.toString()))
  expect(await once(child, 'exit')).toEqual([0, null])
  return Number(said)
}

/** Noise that costs little to make: one block over and over, a little changed in every 4 KiB each time. */
async function writeNoise(path: string, sizeBytes: number): Promise<void> {
  const block = new Uint32Array(BLOCK_BYTES / 4)
  let state = 1
  for (let at = 0; at < block.length; at++) {
    state ^= state << 13
    state ^= state >>> 17
    state ^= state << 5
    block[at] = state
  }
  await using file = await open(path, 'w')
  for (let written = 0; written < sizeBytes; written += block.byteLength) {
    for (let at = 0; at < block.length; at += 1024) block[at] = block[at]! + 1
    await file.write(block)
  }
}

describe('a folder with one file of 3 GiB', () => {
  it('is published with less than 200 MB of memory', { timeout: 20 * 60_000 }, async () => {
    await using bench = await openBench({ small: 'a first run fills the cache of compiled code' })
    const compileCache = join(bench.folder, '../compiled')
    await publishApart(bench.folder, `${bench.repo}-first`, compileCache)
    await writeNoise(join(bench.folder, 'large.bin'), 3 * GIB)
    expect(await publishApart(bench.folder, bench.repo, compileCache)).toBeLessThan(RSS_BYTES_MAX)
    expect(await bench.storage.list('packs/')).toHaveLength(4)
  })
})
