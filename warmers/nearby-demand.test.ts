import { createServer } from 'node:http'
import { describe, expect, it } from 'vitest'
import { openDemand } from './demand.ts'
import { NearbyDemand, parseReport, SharedDemand } from './nearby-demand.ts'
import { serve } from './testing.ts'

const HOUR = 3_600_000
const signal = new AbortController().signal

describe('what a tower tells its neighbours', () => {
  it('is how often each item was asked for in whole hours, once', () => {
    let now = 100 * HOUR
    const shared = new SharedDemand(() => now)
    for (let n = 0; n < 3; n++) shared.asked('education/book', 'a.html')
    shared.asked('health/clinic', 'b.html')
    expect(shared.report(0).items).toEqual([]) // the hour still runs
    now += HOUR
    shared.asked('education/book', 'a.html')
    expect(shared.report(0)).toEqual({
      until: 100,
      items: [
        ['education/book', 'a.html', 3],
        ['health/clinic', 'b.html', 1],
      ],
    })
    expect(shared.report(100).items).toEqual([])
    now += HOUR
    expect(shared.report(100)).toEqual({ until: 101, items: [['education/book', 'a.html', 1]] })
  })

  it('is bounded in hours and items', () => {
    let now = 0
    const shared = new SharedDemand(() => now)
    for (let n = 0; n < 6000; n++) shared.asked('a/b', String(n))
    now = HOUR
    expect(shared.report(-1).items).toHaveLength(5000)
    now = 400 * HOUR
    shared.asked('a/b', 'new')
    now += HOUR
    expect(shared.report(-1).items).toEqual([['a/b', 'new', 1]])
  })
})

describe('what neighbours tell', () => {
  it('counts as a tenth of our own, once an hour, and a peer that is away or does not share harms nothing', async () => {
    let now = 50 * HOUR
    const shared = new SharedDemand(() => now)
    for (let n = 0; n < 20; n++) shared.asked('education/book', 'a.html')
    now += HOUR
    await using peer = await serve((req, res) => shared.handle(req, res))
    await using silent = await serve((_req, res) => void res.writeHead(404).end())
    using demand = openDemand(':memory:', () => now)
    const nearby = new NearbyDemand(
      [peer.url.href, silent.url.href, 'http://127.0.0.1:9/'],
      demand,
      () => now,
    )
    await nearby.learn({ signal })
    await nearby.learn({ signal })
    expect(demand.requestsOf('education/book', 'a.html')?.requests).toBeCloseTo(2)
    expect(peer.requests).toHaveLength(1)
    shared.asked('education/book', 'a.html')
    now += HOUR
    await nearby.learn({ signal })
    expect(demand.requestsOf('education/book', 'a.html')?.requests).toBeCloseTo(2.1, 1)
  })

  it('is believed only in form: the rest is left out', () => {
    const items = [
      ['a/b', 'ok', 2],
      ['a/b', 'much', 1e12],
      ['nonsense', 'x', 1],
      ['a/b', '', 1],
      ['a/b', 'x\ny', 1],
      ['a/b', 'n', -1],
      7,
      null,
    ]
    expect(parseReport(JSON.stringify({ until: 5, items }))).toEqual({
      until: 5,
      items: [
        ['a/b', 'ok', 2],
        ['a/b', 'much', 10_000],
      ],
    })
    expect(parseReport('{"until":"x","items":[]}')).toBeUndefined()
    expect(() => parseReport('no')).toThrow()
  })

  it('that never ends, or stalls, is left', { timeout: 15_000 }, async () => {
    const endless = createServer((_req, res) => {
      res.writeHead(200)
      const more = () => {
        while (!res.destroyed && res.write(Buffer.alloc(65_536, 32)));
      }
      res.on('drain', more)
      more()
    })
    await new Promise<void>(resolve => endless.listen(0, '127.0.0.1', resolve))
    const { port } = endless.address() as { port: number }
    using demand = openDemand(':memory:')
    await new NearbyDemand([`http://127.0.0.1:${port}/`], demand, Date.now).learn({ signal })
    endless.closeAllConnections()
    await new Promise(resolve => endless.close(resolve))
  })
})
