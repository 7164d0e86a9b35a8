/**
 * Downloads by the tools that people use, cut off and continued: `curl -C -`, `wget -c`, `aria2c -x8`; and
 * the way a media player reads. Where a tool is missing, its tests say so.
 */
import { type ChildProcess, execFile, execFileSync, spawn } from 'node:child_process'
import { randomBytes } from 'node:crypto'
import { once } from 'node:events'
import { mkdtemp, readFile, rm, stat } from 'node:fs/promises'
import { get } from 'node:http'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { promisify } from 'node:util'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { Encodings } from './encoding/encodings.ts'
import { type TestNode, startNode } from './test-client.ts'
import { TestLibrary } from './test-library.ts'

const run = promisify(execFile)
const BASE = '/data/education/physics'
const film = randomBytes(24 * 1024 * 1024)
const book = Buffer.from(randomBytes(3_500_000).toString('hex'))
const library = new TestLibrary()
library.add('film.mp4', film, { mediaType: 'video/mp4' })
library.add('book.txt', book)

let folder: string
let node: TestNode
const stack = new AsyncDisposableStack()
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'tower-clients-'))
  stack.defer(() => rm(folder, { recursive: true, force: true }))
  const encodings = stack.use(await Encodings.open({ folder, diskBytesMax: 1e8, memoryBytesMax: 1e7 }))
  node = stack.use(await startNode({ library, encodings }))
})
afterAll(() => stack.disposeAsync())

/** Ends the tool the hard way once its file has some bytes, but not all. */
async function cut(tool: string, args: readonly string[], path: string, sizeBytes: number): Promise<void> {
  const child: ChildProcess = spawn(tool, args, { stdio: 'ignore' })
  const ended = once(child, 'exit')
  await expect.poll(() => stat(path).then(({ size }) => size, () => 0), { timeout: 10_000, interval: 20 }).toBeGreaterThan(0) // biome-ignore format: one condition
  child.kill('SIGKILL')
  await ended
  expect((await stat(path)).size).toBeLessThan(sizeBytes + 1)
}

const tools: readonly {
  readonly tool: string
  readonly fast: readonly string[]
  readonly slow: readonly string[]
}[] = [
  { tool: 'curl', fast: ['-sS', '-f', '-C', '-', '-o'], slow: ['-sS', '-f', '--limit-rate', '4M', '-o'] },
  { tool: 'wget', fast: ['-q', '-c', '-O'], slow: ['-q', '--limit-rate=4m', '-O'] },
]

describe.each(tools)('$tool', ({ tool, fast, slow }) => {
  it.skipIf(isMissing(tool))('continues a film where it was cut off, byte for byte', async () => {
    const path = join(folder, `${tool}.mp4`)
    const url = `${node.url}${BASE}/film.mp4`
    await cut(tool, [...slow, path, url], path, film.length)
    const before = (await stat(path)).size
    await run(tool, [...fast, path, url], { timeout: 20_000 })
    expect(before).toBeLessThan(film.length)
    expect((await readFile(path)).equals(film)).toBe(true)
  })
})

it.skipIf(isMissing('curl'))('curl continues a text that began encoded: ranges are of the text', async () => {
  const path = join(folder, 'curl.txt')
  const url = `${node.url}${BASE}/book.txt`
  await cut('curl', ['-sS', '--compressed', '--limit-rate', '100k', '-o', path, url], path, book.length)
  await run('curl', ['-sS', '-f', '--compressed', '-C', '-', '-o', path, url], { timeout: 20_000 })
  expect((await readFile(path)).equals(book)).toBe(true)
})

describe('aria2c', () => {
  const args = (path: string, more: readonly string[]): string[] => {
    const common = [
      '--no-conf',
      '--quiet',
      '--file-allocation=none',
      '-x8',
      '-s8',
      '-k1M',
      '-c',
      '-d',
      folder,
    ]
    return [...common, '-o', path, ...more, `${node.url}${BASE}/film.mp4`]
  }

  it.skipIf(isMissing('aria2c'))('takes a film in eight pieces at once, and again after a cut', async () => {
    const path = join(folder, 'aria.mp4')
    await cut(
      'aria2c',
      args('aria.mp4', ['--max-download-limit=4M', '--auto-save-interval=1']),
      path,
      film.length,
    )
    await run('aria2c', args('aria.mp4', ['--allow-overwrite=true']), { timeout: 20_000 })
    expect((await readFile(path)).equals(film)).toBe(true)
  })
})

it('a media player opens, reads the index at the end, seeks, leaves and comes back', async () => {
  // As VLC and Chromium do: an open range, dropped after a few hundred kilobytes, then the next.
  const plan = [
    { range: 'bytes=0-', take: 300_000 },
    { range: `bytes=${film.length - 65_536}-`, take: 65_536 },
    { range: 'bytes=-1000', take: 1_000 },
    ...Array.from({ length: 40 }, (_, i) => {
      const first = (i * 7_919_113) % (film.length - 400_000)
      return { range: `bytes=${first}-`, take: 1 + ((i * 104_729) % 400_000) }
    }),
    ...Array.from({ length: 40 }, (_, i) => {
      const first = (i * 15_485_863) % (film.length - 4_096)
      return { range: `bytes=${first}-${first + 4_095}`, take: 4_096 }
    }),
    { range: 'bytes=0-', take: film.length },
  ]
  for (const { range, take } of plan) {
    const { first, body } = await takeSome(range, take)
    expect(body.equals(film.subarray(first, first + take)), range).toBe(true)
  }
})

function isMissing(tool: string): boolean {
  try {
    execFileSync('which', [tool], { stdio: 'ignore' })
    return false
  } catch {
    if (process.env.CI === 'true') throw new Error(`${tool} is not installed; CI needs it`)
    console.warn(`SKIPPED: ${tool} is not installed (apt-get install ${tool === 'aria2c' ? 'aria2' : tool})`)
    return true
  }
}

/** The first bytes of an answer; then the connection is dropped. */
function takeSome(range: string, take: number): Promise<{ first: number; body: Buffer }> {
  return new Promise((resolve, reject) => {
    const request = get(
      { host: '127.0.0.1', port: node.port, path: `${BASE}/film.mp4`, headers: { range }, agent: false },
      res => {
        const [, first] = /^bytes (\d+)-/.exec(res.headers['content-range'] ?? '') ?? []
        const parts: Buffer[] = []
        let length = 0
        res.on('data', (part: Buffer) => {
          parts.push(part)
          length += part.length
          if (length < take) return
          resolve({ first: Number(first), body: Buffer.concat(parts).subarray(0, take) })
          request.destroy()
        })
        res.once('end', () => reject(new Error(`${range} ended after ${length} bytes`)))
      },
    )
    request.once('error', reject)
  })
}
