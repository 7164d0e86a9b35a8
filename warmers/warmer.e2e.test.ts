import { describe, expect, it } from 'vitest'
import { bytesOf } from '../node/store/testing.ts'
import { fillOnce } from './fill-once.ts'
import { openLedger } from './ledger.ts'
import { DEFAULT_LINK, type LinkSettings } from './link-settings.ts'
import { openLinks } from './open-links.ts'
import type { PowerState } from './power.ts'
import { openNode, openOrigin } from './test-world.ts'
import { openWarmer, type WarmerEvent } from './warmer.ts'

const MIB = 1024 * 1024

/** A node with links, and its warmer running until `until` says so. */
async function warm(
  links: readonly LinkSettings[],
  until: (events: readonly WarmerEvent[]) => boolean,
  more: {
    power?: () => PowerState
    now?: () => number
    onEvent?: (event: WarmerEvent) => void
    around?: Parameters<Awaited<ReturnType<typeof openOrigin>>['serve']>[0]
  } = {},
) {
  await using origin = await openOrigin()
  await using server = await origin.serve(more.around)
  await using node = await openNode(origin.root)
  using ledger = openLedger(':memory:', more.now)
  await origin.publish('media/films', { 'film.mp4': bytesOf('m', 3 * MIB) }, { priority: 3 })
  await origin.publish('health/who', { 'a.bin': bytesOf('h', 3 * MIB) }, { priority: 0 })
  await using open = openLinks({
    links,
    urls: [server.url],
    ledger,
    connectionsMax: 4,
    ...(more.now ? { now: more.now } : {}),
  })
  const warmer = openWarmer({
    links: open,
    settings: links,
    refreshMs: 50,
    lookMs: 50,
    pauseMs: 20,
    readPower: async () => more.power?.() ?? { mains: true, percent: undefined },
    fill: work => fillOnce({ ...node.request(work.upstreams), ...work }),
    ...(more.now ? { now: more.now } : {}),
  })
  const stop = new AbortController()
  const events: WarmerEvent[] = []
  for await (const event of warmer.run({ signal: stop.signal })) {
    events.push(event)
    more.onEvent?.(event)
    if (until(events)) stop.abort()
  }
  const here: string[] = []
  for (const { dataset } of node.releases.releases()) {
    const { nodes, extents } = await node.releases.missing(dataset)
    if (nodes.length + extents.length === 0) here.push(dataset)
  }
  return {
    events,
    ledger: ledger.totalsBy('window'),
    byLink: ledger.totalsBy('link'),
    totals: ledger.totals(),
    here,
    wire: server.wire,
    asked: server.requests,
  }
}

const isDone = (events: readonly WarmerEvent[]) => events.some(event => event.type === 'done')

describe('the warmer', () => {
  it('fills when the link is up, and accounts for every byte', async () => {
    const { here, byLink, totals } = await warm([{ ...DEFAULT_LINK, name: 'fibre' }], isDone)
    expect(here.toSorted()).toEqual(['health/who', 'media/films'])
    expect(byLink).toEqual([{ key: 'fibre', ...totals }])
    expect(totals.bytesDown).toBeGreaterThan(6 * MIB)
  })

  it("keeps to a window's bytes: what arrives is the plan's beginning, the important first", async () => {
    const capped: LinkSettings = {
      ...DEFAULT_LINK,
      name: 'lte',
      windows: [{ name: 'all', start: '00:00', minutes: 1440, timeZone: 'UTC', bytesMax: 4 * MIB }],
    }
    const { here, totals, events } = await warm(
      [capped],
      events => events.filter(({ type }) => type === 'done').length === 2,
    )
    expect(here).toEqual(['health/who'])
    expect(totals.bytesDown + totals.bytesUp).toBeLessThanOrEqual(4 * MIB)
    expect(events.find(event => event.type === 'done')).toMatchObject({ complete: false })
  })

  it('ends what runs within a second of the window', async () => {
    const short: LinkSettings = {
      ...DEFAULT_LINK,
      name: 'sat',
      bytesPerSecondMax: MIB,
      windows: [{ name: 'w', start: '03:00', minutes: 1, timeZone: 'UTC' }],
    }
    // two seconds before the window's end when the warmer first looks at its clock
    let began: number | undefined
    const clock = () => Date.parse('2026-11-20T03:00:58Z') + performance.now() - (began ??= performance.now())
    let closedMs = 0
    const { events, totals } = await warm([short], events => events.some(({ type }) => type === 'waiting'), {
      now: clock,
      onEvent: event => {
        if (event.type === 'window-closed') closedMs = clock() - Date.parse('2026-11-20T03:01:00Z')
      },
    })
    expect(events.find(({ type }) => type === 'window-closed')).toMatchObject({
      message: 'sat: the window w 2026-11-20T03:00:00.000Z has ended',
    })
    expect(closedMs).toBeGreaterThanOrEqual(-5)
    expect(closedMs).toBeLessThan(1000)
    expect(totals.bytesDown).toBeLessThan(4 * MIB)
  })

  it('warms only what the battery allows, and says so', async () => {
    const { here, events } = await warm([DEFAULT_LINK], isDone, {
      power: () => ({ mains: false, percent: 40 }),
    })
    expect(here).toEqual(['health/who'])
    expect(events.find(event => event.type === 'shedding')).toMatchObject({
      percent: 40,
      shed: ['scrub', 'renditions', 'warmP3'],
    })
  })

  it('does nothing when the battery is nearly empty', async () => {
    const { asked, events } = await warm(
      [DEFAULT_LINK],
      events => events.some(({ type }) => type === 'waiting'),
      { power: () => ({ mains: false, percent: 5 }) },
    )
    expect(asked).toEqual([])
    expect(events.at(-1)).toMatchObject({ type: 'waiting', message: 'the battery is low' })
  })

  it('goes by another link when one is down', async () => {
    const links: LinkSettings[] = [
      { ...DEFAULT_LINK, name: 'fibre', probeUrl: 'http://127.0.0.1:9/' },
      { ...DEFAULT_LINK, name: 'lte', costPerGiB: 5 },
    ]
    const { byLink, here } = await warm(links, isDone)
    expect(byLink.map(({ key }) => key)).toEqual(['lte'])
    expect(here).toHaveLength(2)
  })

  it('goes on after failures', async () => {
    let refused = 8
    const { here } = await warm(
      [DEFAULT_LINK],
      events => events.some(event => event.type === 'done' && event.complete),
      {
        around: honest => (request, response) =>
          refused-- > 0 ? void response.writeHead(503).end() : honest(request, response),
      },
    )
    expect(here).toHaveLength(2)
  }, 60_000)
})
