/**
 * A contact window with much more wanted than fits, over a real interface with a rate: what arrives is
 * the beginning of the plan, the end is the end, and the ledger is what the kernel carried.
 * `WINDOW_SECONDS` for another length.
 */
import { execFile } from 'node:child_process'
import { randomBytes } from 'node:crypto'
import { promisify } from 'node:util'
import { describe, expect, it } from 'vitest'
import { fillOnce, type FillRequest } from './fill-once.ts'
import { openLedger } from './ledger.ts'
import { parseLinks } from './link-settings.ts'
import { openLinks } from './open-links.ts'
import { mergedBatches } from './plan-fill.ts'
import { planPrepared, prepareDataset } from './prepare-dataset.ts'
import { openFarSide } from './test-netns.ts'
import { openNode, openOrigin, signal, type Files, type TestNode } from './test-world.ts'

const MIB = 1024 * 1024
const WINDOW_MS = Number(process.env['WINDOW_SECONDS'] ?? 90) * 1000
/** Four times what fits. */
const FILM_BYTES = 18 * MIB * (WINDOW_MS / 90_000)
const BATCHES_AT_ONCE = 4
const run = promisify(execFile)

const some = (count: number, bytes: number, ending: string): Files =>
  Object.fromEntries(Array.from({ length: count }, (_, n) => [`item ${n}.${ending}`, randomBytes(bytes)]))

describe('a window', () => {
  it(
    `of ${WINDOW_MS / 1000} s at 2 Mbit/s with four times as much wanted brings the beginning of the plan`,
    async () => {
      using link = openFarSide({ rate: '2mbit' })
      if (!link) return
      await using origin = await openOrigin()
      await using node = await openNode(origin.root, undefined, { hotBytesMax: 8 * FILM_BYTES })
      // in no order that would help
      await origin.publish('media/films', some(4, FILM_BYTES, 'mp4'), { priority: 3 })
      await origin.publish('education/books', some(80, 120_000, 'pdf'), { priority: 1 })
      await origin.publish('health/clinic', some(60, 60_000, 'pdf'), { priority: 0 })
      const url = await link.serve(origin.folder)

      // the window of 01:00 has so much left
      const shiftMs = Date.UTC(2026, 0, 1, 1, 30) - WINDOW_MS - Date.now()
      const now = () => Date.now() + shiftMs
      const rule = { name: 'night', start: '01:00', minutes: 30, timeZone: 'UTC' }
      const settings = parseLinks([{ name: 'satellite', shared: false, windows: [rule] }])
      using ledger = openLedger(':memory:')
      await using links = openLinks({ links: settings, urls: [url], ledger, connectionsMax: 6, now })
      await links.probe({ signal })
      using open = links.open()
      if (!open) throw new Error('no window is open')

      const kernel = watchKernel(link.address)
      const since = performance.now()
      const limits = { wireBytesMax: open.bytesLeft }
      const request = { concurrency: BATCHES_AT_ONCE, window: open.window.id, limits, signal: open.signal }
      const all = node.request(open.upstreams, request)
      let planned: string[][] = []
      const failure = await (async () => {
        for await (const { type } of fillOnce(all))
          if (type === 'planned') planned = await plannedExtents(node, all)
      })().catch((error: unknown) => error)
      const endedMs = performance.now() - since
      const carried = await kernel.stop()
      expect(failure).toMatchObject({ code: 'WINDOW_CLOSED' })
      expect(Math.abs(endedMs - WINDOW_MS)).toBeLessThan(1000)

      const isHere = planned.map(extents => extents.every(cid => node.store.has(cid as never)))
      const first = isHere.indexOf(false)
      const after = isHere.slice(first).filter(Boolean).length
      const touched = planned
        .slice(first + BATCHES_AT_ONCE)
        .flat()
        .filter(cid => node.store.has(cid as never))
      const entered = ledger.totals({ window: open.window.id })
      const bytes = { down: entered.bytesDown, up: entered.bytesUp }
      const share = bytes.down / (WINDOW_MS / 1000) / 250_000
      console.log(JSON.stringify({ batches: planned.length, first, after, bytes, carried, share, endedMs }))
      expect(first).toBeGreaterThan(3)
      expect(after).toBeLessThan(BATCHES_AT_ONCE)
      expect(touched).toEqual([])
      for (const dataset of ['health/clinic', 'education/books'])
        expect((await node.releases.missing(dataset)).extents).toEqual([])
      expect(Math.abs(bytes.down - carried.down) / carried.down).toBeLessThan(0.01)
      expect(share).toBeGreaterThan(0.85)
    },
    WINDOW_MS + 300_000,
  )
})

/** The plan's batches in their order: the extents of each. */
async function plannedExtents(node: TestNode, request: FillRequest): Promise<string[][]> {
  const plans = []
  for (const { dataset } of node.releases.releases()) {
    const prepared = await prepareDataset(dataset, request, { signal })
    if (prepared) plans.push(planPrepared(prepared, request))
  }
  return mergedBatches(plans).map(({ steps }) => steps.flatMap(({ wants }) => wants.map(({ cid }) => cid)))
}

/** TCP payload of connections to an address, as `ss -ti` tells it; looked at four times a second. */
function watchKernel(address: string) {
  const bySocket = new Map<string, { down: number; up: number }>()
  const look = async () => {
    const { stdout } = await run('ss', ['-tinHO', 'dst', address])
    for (const line of stdout.split('\n')) {
      const local = line.trim().split(/\s+/)[3]
      const numberOf = (name: string) => Number(new RegExp(`\\b${name}:(\\d+)`).exec(line)?.[1] ?? 0)
      if (local) bySocket.set(local, { down: numberOf('bytes_received'), up: numberOf('bytes_acked') })
    }
  }
  let looking = Promise.resolve()
  const timer = setInterval(() => {
    looking = looking.then(look).catch(() => undefined)
  }, 250)
  return {
    async stop() {
      clearInterval(timer)
      await looking
      const sum = (of: 'down' | 'up') =>
        [...bySocket.values()].reduce((total, socket) => total + socket[of], 0)
      return { down: sum('down'), up: sum('up') }
    },
  }
}
