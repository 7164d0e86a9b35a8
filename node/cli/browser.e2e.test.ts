/**
 * The tower as people meet it: Chromium, a phone's screen, the samples. Needs Debian's `chromium`;
 * without it these tests say that they did not run.
 */
import { existsSync } from 'node:fs'
import { mkdtempDisposable } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { type Browser, chromium, type Page } from 'playwright-core'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { openTower, type RunningTower } from './testing.ts'

const CHROMIUM = '/usr/bin/chromium'
const isHere = existsSync(CHROMIUM)
if (!isHere) console.warn('NOT RUN: tests in a browser, for want of Chromium (apt-get install chromium)')

const FLAGS = [
  '--no-sandbox',
  '--disable-gpu',
  '--disable-quic',
  '--no-first-run',
  '--disable-background-networking',
  '--disable-component-update',
  '--disable-sync',
]

describe.runIf(isHere)('in Chromium', () => {
  let stack: AsyncDisposableStack
  let tower: RunningTower<{ readonly event: string }>
  let browser: Browser

  beforeAll(async () => {
    stack = new AsyncDisposableStack()
    const folder = stack.use(await mkdtempDisposable(join(tmpdir(), 'towerlight-browser-')))
    tower = stack.use(await openTower(['up', '--port', '0'], { cwd: folder.path }))
    browser = await chromium.launch({ executablePath: CHROMIUM, args: FLAGS })
    stack.defer(() => browser.close())
  }, 60_000)
  afterAll(() => stack.disposeAsync())

  const openPage = async (path: string): Promise<Page> => {
    const page = await browser.newPage({ viewport: { width: 390, height: 844 } })
    await page.goto(new URL(path, tower.url).href)
    return page
  }

  it('a visitor finds a dataset from the front page and opens an item', async () => {
    const page = await openPage('/')
    expect(await page.title()).toContain('Towerlight')
    await page.getByText('Light and colour').first().click()
    await page.waitForURL(/education\/light-and-colour/)
    await page.getByRole('link', { name: 'tables/refractive-indices.csv' }).waitFor()
    const overflows = await page.evaluate('document.documentElement.scrollWidth > innerWidth')
    expect(overflows).toBe(false)
    await page.close()
  })

  it('search by name leads to items', async () => {
    const page = await openPage('/')
    await page.getByRole('searchbox').fill('rainbow')
    await page.getByRole('button', { name: 'Search' }).click()
    await page.getByRole('link', { name: /rainbow\.jpg/ }).waitFor()
    await page.close()
  })

  it('a published page shows its pictures', async () => {
    const page = await openPage('/data/health/hands-and-water/index.html')
    await page.waitForFunction('[...document.images].every(image => image.complete)')
    const broken = await page.evaluate(
      '[...document.images].filter(image => image.naturalWidth === 0).length',
    )
    expect(broken).toBe(0)
    await page.close()
  })

  it('a video element plays and seeks, by ranges', async () => {
    const page = await openPage('/data/education/light-and-colour/media/refraction.webm')
    const seeked = await page.evaluate(`(async () => {
      const video = document.querySelector('video')
      if (video.readyState < 1) await new Promise(resolve => video.addEventListener('loadedmetadata', resolve))
      video.currentTime = video.duration * 0.8
      await new Promise(resolve => video.addEventListener('seeked', resolve))
      return { time: video.currentTime, duration: video.duration, error: video.error }
    })()`)
    expect(seeked).toMatchObject({ error: null })
    const { time, duration } = seeked as { time: number; duration: number }
    expect(time).toBeGreaterThan(duration * 0.7)
    await page.close()
  })
})
