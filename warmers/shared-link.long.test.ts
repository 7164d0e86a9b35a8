/**
 * People on a link that a fill uses, too, over a real interface with a rate and a queue: what they wait for a
 * page alone, beside a fill that shares, and beside one that does not; and what the fill has of the link.
 */
import { randomBytes } from 'node:crypto'
import { writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { describe, expect, it } from 'vitest'
import { fillOnce } from './fill-once.ts'
import { openLedger } from './ledger.ts'
import { parseLinks } from './link-settings.ts'
import { openLinks } from './open-links.ts'
import { openFarSide } from './test-netns.ts'
import { openNode, openOrigin, signal } from './test-world.ts'
import { temporaryFolder } from './testing.ts'

const MIB = 1024 * 1024
const BYTES_PER_SECOND = 250_000
const PAGE_BYTES = 100_000
const ALONE_MS = 10_000
const BESIDE_MS = 40_000
/** After so long a change has been answered. */
const SETTLED_MS = 20_000

describe('a link of 2 Mbit/s that people use', () => {
  it('is theirs while they need it, and the fill’s when they do not', { timeout: 600_000 }, async () => {
    using link = openFarSide({ rate: '2mbit' })
    if (!link) return
    await using pages = await temporaryFolder()
    await writeFile(join(pages.path, 'page'), randomBytes(PAGE_BYTES))
    const page = new URL('page', await link.serve(pages.path))
    const alone = median(await readFor(page, ALONE_MS))

    const measured: Record<string, { alone: number; page: number; beside: number; after: number }> = {}
    for (const shared of [true, false]) {
      await using origin = await openOrigin()
      await using node = await openNode(origin.root, undefined, { hotBytesMax: 256 * MIB })
      await origin.publish('media/films', { 'film.mp4': randomBytes(64 * MIB) }, { priority: 3 })
      using ledger = openLedger(':memory:')
      const settings = parseLinks([{ name: 'lte', shared }])
      const urls = [await link.serve(origin.folder)]
      await using links = openLinks({ links: settings, urls, ledger, connectionsMax: 6 })
      await links.probe({ signal })
      using open = links.open()
      if (!open) throw new Error('no window is open')
      let wireBytes = 0
      const filling = (async () => {
        for await (const event of fillOnce(node.request(open.upstreams, { signal: open.signal })))
          if (event.type === 'progress') ({ wireBytes } = event)
      })().catch(() => undefined)
      const bytesIn = async (ms: number) => {
        const before = wireBytes
        await sleep(ms)
        return (wireBytes - before) / (ms / 1000) / BYTES_PER_SECOND
      }
      const has = async (ms: number) => {
        await sleep(SETTLED_MS)
        return await bytesIn(ms - SETTLED_MS)
      }
      const usedAlone = await has(BESIDE_MS)
      const [waited, beside] = await Promise.all([readFor(page, BESIDE_MS, SETTLED_MS), has(BESIDE_MS)])
      const after = await has(BESIDE_MS)
      open.close('that is enough')
      await filling
      measured[shared ? 'shared' : 'not shared'] = {
        alone: usedAlone,
        page: median(waited) / alone,
        beside,
        after,
      }
    }
    console.log(JSON.stringify({ pageMs: alone, ...measured }))
    const { shared, 'not shared': greedy } = measured
    expect(shared?.alone).toBeGreaterThan(0.85)
    expect(shared?.page).toBeLessThan(3.5)
    expect(shared?.page).toBeLessThan(greedy!.page / 1.5)
    expect(shared?.after).toBeGreaterThan(0.85)
  })
})

/** Page after page. @returns milliseconds of each that began after `fromMs`. */
async function readFor(page: URL, ms: number, fromMs = 0): Promise<number[]> {
  const tookMs: number[] = []
  const beganMs = performance.now()
  while (performance.now() - beganMs < ms) {
    const sinceMs = performance.now()
    await (await fetch(page)).arrayBuffer()
    if (sinceMs - beganMs >= fromMs) tookMs.push(performance.now() - sinceMs)
  }
  return tookMs
}

function median(values: readonly number[]): number {
  return values.toSorted((a, b) => a - b)[Math.floor(values.length / 2)] ?? Number.NaN
}
