import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { DEFAULT_LINK, type LinkSettings } from './link-settings.ts'
import { LinkChooser, probeLink, RETURN_MS, type Spent } from './links.ts'
import { serve } from './testing.ts'

const fibre: LinkSettings = { ...DEFAULT_LINK, name: 'fibre', costPerGiB: 0 }
const lte: LinkSettings = { ...DEFAULT_LINK, name: 'lte', costPerGiB: 5 }
const satellite: LinkSettings = { ...DEFAULT_LINK, name: 'satellite', costPerGiB: 60 }
const nothing: Spent = { inWindow: () => 0, inMonth: () => 0 }

function chooser(links: readonly LinkSettings[], spent = nothing) {
  const links_ = new LinkChooser(links, spent)
  return { of: (nowMs: number) => links_.choose(nowMs)?.link.name, links: links_ }
}

describe('choosing a link', () => {
  it('takes the cheapest that is up, and fails over', () => {
    const { of, links } = chooser([satellite, lte, fibre])
    expect(of(0)).toBeUndefined()
    for (const { name } of [satellite, lte, fibre]) links.report(name, true, 0)
    expect(of(1)).toBe('fibre')
    links.report('fibre', false, 2)
    expect(of(2)).toBe('fibre') // once is luck
    links.report('fibre', false, 3)
    expect(of(3)).toBe('lte')
    links.report('lte', false, 4)
    links.report('lte', false, 5)
    expect(of(5)).toBe('satellite')
  })

  it('comes back to a better link only when that has been up for a while', () => {
    const { of, links } = chooser([fibre, lte])
    links.report('lte', true, 0)
    expect(of(0)).toBe('lte')
    links.report('fibre', true, 1000)
    expect(of(1000 + RETURN_MS - 1)).toBe('lte')
    expect(of(1000 + RETURN_MS)).toBe('fibre')
  })

  it('does not flutter when the best link does', () => {
    const { of, links } = chooser([fibre, lte])
    let changes = 0
    let last: string | undefined
    for (let now = 0; now < 3_600_000; now += 5000) {
      links.report('lte', true, now)
      links.report('fibre', Math.floor(now / 20_000) % 2 === 0, now)
      const chosen = of(now)
      if (chosen !== last) changes++
      last = chosen
    }
    expect(changes).toBeLessThanOrEqual(3)
  })

  it('leaves a link whose bytes are used up, and says why', () => {
    const capped = { ...fibre, bytesPerMonthMax: 1000 }
    const { of, links } = chooser([capped, lte], {
      inWindow: () => 0,
      inMonth: link => (link === 'fibre' ? 1000 : 0),
    })
    for (const name of ['fibre', 'lte']) links.report(name, true, 0)
    expect(of(RETURN_MS)).toBe('lte')
    expect(links.states(0)[0]).toMatchObject({
      usable: false,
      bytesLeft: 0,
      why: "the month's bytes are used up",
    })
  })

  it('keeps to windows', () => {
    const night = {
      ...fibre,
      windows: [{ start: '01:00', minutes: 60, timeZone: 'UTC', bytesMax: 500 }],
    } as LinkSettings
    const { of, links } = chooser([night, lte], { inWindow: () => 200, inMonth: () => 0 })
    for (const name of ['fibre', 'lte']) links.report(name, true, 0)
    expect(of(30 * 60_000)).toBe('lte')
    expect(of(61 * 60_000)).toBe('fibre')
    expect(links.choose(61 * 60_000)?.bytesLeft).toBe(300)
    expect(of(121 * 60_000)).toBe('lte')
  })

  it('never takes one that is not usable', () => {
    const names = ['fibre', 'lte', 'satellite']
    const report = fc.record({ name: fc.constantFrom(...names), up: fc.boolean(), after: fc.nat(100_000) })
    fc.assert(
      fc.property(fc.array(report), reports => {
        const { links } = chooser([fibre, lte, satellite])
        let now = 0
        for (const { name, up, after } of reports) {
          links.report(name, up, (now += after))
          const chosen = links.choose(now)
          const usable = links.states(now).filter(state => state.usable)
          expect(chosen === undefined).toBe(usable.length === 0)
          if (chosen) expect(usable.map(({ link }) => link.name)).toContain(chosen.link.name)
        }
      }),
    )
  })
})

describe('a probe', () => {
  const signal = new AbortController().signal

  it('measures the way to whoever listens, and costs no payload', async () => {
    await using server = await serve((_, response) => void response.end())
    expect(await probeLink(server.url, {}, 1000, { signal })).toBeGreaterThan(0)
    await expect.poll(() => server.wire).toEqual({ down: 0, up: 0 })
  })

  it('fails when nobody does', async () => {
    const server = await serve((_, response) => void response.end())
    await server[Symbol.asyncDispose]()
    await expect(probeLink(server.url, {}, 1000, { signal })).rejects.toThrow('ECONNREFUSED')
    await expect(probeLink(new URL('http://192.0.2.1/'), {}, 50, { signal })).rejects.toThrow()
  })
})
