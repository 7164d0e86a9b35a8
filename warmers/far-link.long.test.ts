/** Fills over bad links: far, narrow, cut a hundred times, and losing half of all packets. */
import { setTimeout as sleep } from 'node:timers/promises'
import { describe, expect, it } from 'vitest'
import { bytesOf } from '../node/store/testing.ts'
import { fillOnce, type FillRequest } from './fill-once.ts'
import { openFarSide } from './test-netns.ts'
import { openSlowProxy } from './test-proxy.ts'
import { STALL } from './stall.ts'
import { openNode, openOrigin } from './test-world.ts'

const MIB = 1024 * 1024
const patient: Partial<FillRequest> = { board: { attemptsMax: 100, pauseMs: 100, pauseMsMax: 1000 } }

describe('a link', () => {
  it('of 2 Mbit/s and 600 ms delay is used for at least 90 % by useful bytes', async () => {
    await using origin = await openOrigin()
    await using server = await origin.serve()
    await using proxy = await openSlowProxy(server.url, { delayMs: 300, bytesPerSecond: 250_000 })
    await using node = await openNode(origin.root)
    await origin.publish('media/films', { 'film.mp4': bytesOf('film', 8 * MIB) })
    const upstream = node.upstream(proxy.url, { connectionsMax: 6, stall: STALL })
    let since = 0
    for await (const { type } of fillOnce(node.request([upstream])))
      if (type === 'planned') since = performance.now()
    const used = (8 * MIB) / ((performance.now() - since) / 1000) / 250_000
    console.log(JSON.stringify({ link: '2 Mbit/s, 600 ms', used: Number(used.toFixed(3)) }))
    expect(used).toBeGreaterThan(0.92)
  }, 120_000)

  it('that is cut 100 times costs at most 1.05 times the bytes', async () => {
    await using origin = await openOrigin()
    await using server = await origin.serve()
    await using proxy = await openSlowProxy(server.url, { delayMs: 20, bytesPerSecond: 2_000_000 })
    await using node = await openNode(origin.root)
    const { packBytes } = await origin.publish('media/films', { 'film.mp4': bytesOf('film', 24 * MIB) })
    const upstream = node.upstream(proxy.url, { connectionsMax: 4, stall: STALL })
    const stop = new AbortController()
    let cuts = 0
    const cutting = (async () => {
      while (cuts < 100 && !stop.signal.aborted) {
        await sleep(60 + ((cuts * 7919) % 90))
        proxy.cutAll()
        cuts++
      }
    })()
    let complete = false
    for (let round = 0; round < 20 && !complete; round++) {
      for await (const event of fillOnce(node.request([upstream], patient)))
        if (event.type === 'done') complete = event.complete
    }
    stop.abort()
    await cutting
    console.log(
      JSON.stringify({
        cuts,
        ratio: Number((proxy.bytesDown / packBytes).toFixed(4)),
        ours: Number((upstream.wire.bytesDown / packBytes).toFixed(4)),
      }),
    )
    expect(complete).toBe(true)
    expect(cuts).toBeGreaterThan(80)
    expect(upstream.wire.bytesDown).toBeLessThan(packBytes * 1.05)
    await node.items('media/films')
  }, 240_000)

  it.each([
    [30, 25],
    [50, 8],
  ])(
    'that loses %i percent each way gives at least %i KiB/s',
    async (lossPercent, leastKiBps) => {
      using link = openFarSide({ lossPercent })
      if (!link) return
      await using origin = await openOrigin()
      await origin.publish('media/films', { 'film.mp4': bytesOf('film', 3 * MIB) })
      const url = await link.serve(origin.folder)
      await using node = await openNode(origin.root)
      const upstream = node.upstream(url, {
        connectionsMax: 6,
        stall: STALL,
      })
      let since = 0
      let complete = false
      for (let round = 0; round < 5 && !complete; round++) {
        for await (const event of fillOnce(node.request([upstream], patient))) {
          if (event.type === 'planned' && since === 0) since = performance.now()
          if (event.type === 'done') complete = event.complete
        }
      }
      const kibps = (3 * 1024) / ((performance.now() - since) / 1000)
      console.log(JSON.stringify({ lossPercent, kibps: Number(kibps.toFixed(1)), wire: upstream.wire }))
      expect(complete).toBe(true)
      expect(kibps).toBeGreaterThan(leastKiBps)
      expect(upstream.wire.bytesDown).toBeLessThan(3 * MIB * 1.1)
    },
    590_000,
  )
})
