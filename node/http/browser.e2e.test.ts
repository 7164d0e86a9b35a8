/**
 * Items as a browser takes them: encodings, and a new version against the old one (RFC 9842). Needs
 * Debian's `chromium`; elsewhere it says that it was skipped. Chromium uses dictionaries over HTTP/1 on
 * localhost alone.
 */
import { randomBytes } from 'node:crypto'
import { existsSync } from 'node:fs'
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { type Browser, chromium } from 'playwright-core'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { Encodings } from './encoding/encodings.ts'
import { type TestNode, startNode } from './test-client.ts'
import { TestLibrary } from './test-library.ts'

const CHROMIUM = '/usr/bin/chromium'
const isHere = existsSync(CHROMIUM)
if (!isHere) console.warn('NOT RUN: items in a browser, for want of Chromium (apt-get install chromium)')
const FLAGS = ['--no-sandbox', '--disable-gpu', '--disable-dev-shm-usage']
const PATH = '/data/education/physics/chapter.txt'

describe.skipIf(!isHere)('a browser', () => {
  const library = new TestLibrary()
  const stack = new AsyncDisposableStack()
  const first = randomBytes(80_000).toString('hex')
  const second = `${first.slice(0, 90_000)}, corrected, ${first.slice(90_000)}`
  let node: TestNode
  let browser: Browser

  beforeAll(async () => {
    const folder = await mkdtemp(join(tmpdir(), 'tower-browser-'))
    stack.defer(() => rm(folder, { recursive: true, force: true }))
    const encodings = stack.use(
      await Encodings.open({ folder, diskBytesMax: 10_000_000, memoryBytesMax: 1_000_000 }),
    )
    node = stack.use(await startNode({ library, encodings }))
    browser = await chromium.launch({ executablePath: CHROMIUM, args: FLAGS })
    stack.defer(() => browser.close())
  }, 60_000)
  afterAll(() => stack.disposeAsync())

  it('that has read a chapter gets only what has changed in the next version', async () => {
    library.add('chapter.txt', Buffer.from(first))
    const page = await browser.newPage()
    await page.goto(`http://localhost:${node.port}/livez`)
    const read = () =>
      page.evaluate(async path => {
        const response = await fetch(path, { cache: 'no-cache' })
        const text = await response.text()
        const entry = performance.getEntriesByName(response.url).at(-1) as PerformanceResourceTiming
        return { text, coding: response.headers.get('content-encoding'), bytes: entry.encodedBodySize }
      }, PATH)

    const before = await read()
    expect(before.text).toBe(first)
    expect(before.coding).toMatch(/^(?:zstd|br)$/)

    // The browser files a dictionary some time after the body has ended: versions come until it names one.
    let version = 1
    await expect
      .poll(
        async () => {
          const next = `${second} Edition ${++version}.`
          library.remove('chapter.txt')
          library.add('chapter.txt', Buffer.from(next))
          const { text, coding, bytes } = await read()
          expect(text).toBe(next)
          return coding === 'dcz' ? bytes : Number.POSITIVE_INFINITY
        },
        { timeout: 10_000 },
      )
      .toBeLessThan(1_000)
    await page.close()
  }, 60_000)

  it('plays a recording and seeks in it, by ranges', async () => {
    library.add('talk.wav', wavOf(300), { mediaType: 'audio/wav' })
    const page = await browser.newPage()
    const asked: { range: string | undefined; status: number; contentRange: string | undefined }[] = []
    page.on('response', response => {
      if (!response.url().endsWith('.wav')) return
      const { range } = response.request().headers()
      asked.push({ range, status: response.status(), contentRange: response.headers()['content-range'] })
    })
    await page.goto(`http://localhost:${node.port}/livez`)
    const seen = await page.evaluate<{ at: number[]; duration: number }>(PLAY_AND_SEEK)
    expect(seen.duration).toBeCloseTo(300, 0)
    for (const [i, seconds] of [290, 5, 150, 299, 0].entries())
      expect(Math.abs((seen.at[i] ?? -9) - seconds)).toBeLessThan(3)
    expect(asked.length).toBeGreaterThan(1)
    for (const { status, contentRange } of asked) {
      expect(status).toBe(206)
      expect(contentRange).toMatch(/^bytes \d+-\d+\/26460044$/)
    }
    await page.close()
  }, 60_000)
})

/** Runs in the page. */
const PLAY_AND_SEEK = `(async () => {
  const video = document.createElement('video')
  const happens = event => new Promise((resolve, reject) => {
    video.addEventListener(event, resolve, { once: true })
    video.addEventListener('error', () => reject(new Error(video.error?.message)), { once: true })
  })
  video.muted = true
  video.preload = 'auto'
  video.src = '/data/education/physics/talk.wav'
  document.body.append(video)
  await happens('canplay')
  const at = []
  for (const seconds of [290, 5, 150, 299, 0]) {
    const seeked = happens('seeked')
    video.currentTime = seconds
    await seeked
    await video.play()
    at.push(Math.floor(video.currentTime))
    video.pause()
  }
  return { at, duration: video.duration }
})()`

/** A tone, 16 bits, mono, 44.1 kHz: what every Chromium can play. */
function wavOf(seconds: number): Buffer {
  const rate = 44_100
  const bytes = Buffer.alloc(44 + seconds * rate * 2)
  bytes.write('RIFF', 0, 'latin1')
  bytes.writeUInt32LE(bytes.length - 8, 4)
  bytes.write('WAVEfmt ', 8, 'latin1')
  for (const [at, value] of [[16, 16], [24, rate], [28, rate * 2]] as const) bytes.writeUInt32LE(value, at) // biome-ignore format: pairs
  for (const [at, value] of [[20, 1], [22, 1], [32, 2], [34, 16]] as const) bytes.writeUInt16LE(value, at) // biome-ignore format: pairs
  bytes.write('data', 36, 'latin1')
  bytes.writeUInt32LE(bytes.length - 44, 40)
  for (let i = 0; i < seconds * rate; i++)
    bytes.writeInt16LE(Math.round(3_000 * Math.sin(i / 16)), 44 + i * 2)
  return bytes
}
