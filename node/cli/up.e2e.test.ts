import { mkdtempDisposable, readFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { describe, expect, it } from 'vitest'
import { openTower } from './testing.ts'

const SAMPLES = join(import.meta.dirname, '..', 'samples')

interface Said {
  readonly event: string
  readonly what?: string
  readonly url?: string
  readonly contentBytes?: number
  readonly wire?: { readonly down: number; readonly up: number }
}

const openUp = (folder: string) => openTower<Said>(['up', '--port', '0'], { cwd: folder })

describe('tower up', () => {
  it('publishes, fills, updates for a small part of the bytes, serves, and stops on Ctrl-C', async () => {
    await using folder = await mkdtempDisposable(join(tmpdir(), 'towerlight-up-'))
    await using tower = await openUp(folder.path)
    const [first, update] = tower.said.filter(({ event }) => event === 'filled')
    expect(first?.contentBytes).toBeGreaterThan(300_000)
    expect(update!.wire!.down + update!.wire!.up).toBeLessThan(first!.contentBytes! / 5)

    for (const [path, file] of [
      ['health/hands-and-water/2-diarrhoea.md', 'health/hands-and-water/r2/2-diarrhoea.md'], // changed by the update
      [
        'health/hands-and-water/media/twenty-seconds.wav',
        'health/hands-and-water/r1/media/twenty-seconds.wav',
      ],
      [
        'education/light-and-colour/4-total-reflection.md',
        'education/light-and-colour/r2/4-total-reflection.md',
      ], // added
      [
        'education/light-and-colour/media/refraction.webm',
        'education/light-and-colour/r1/media/refraction.webm',
      ],
    ] as const) {
      const response = await tower.get(`data/${path}`)
      expect(response.status, path).toBe(200)
      expect(
        Buffer.from(await response.arrayBuffer()).equals(await readFile(join(SAMPLES, file))),
        path,
      ).toBe(true)
    }
    const page = await tower.get('')
    expect(page.headers.get('content-type')).toMatch(/^text\/html/)
    expect(await page.text()).toContain('hands-and-water')

    expect(await tower.stop('SIGINT')).toEqual({ code: 0, stderr: '' })
    await expect(tower.get('')).rejects.toThrow()
  }, 60_000)

  it('serves at once when started again, also after kill -9, without fetching content again', async () => {
    await using folder = await mkdtempDisposable(join(tmpdir(), 'towerlight-up-'))
    {
      await using _killed = await openUp(folder.path)
    }
    await using tower = await openUp(folder.path)
    expect(tower.said.filter(({ event }) => event === 'filled')).toMatchObject([
      { what: 'fill', contentBytes: 0 },
    ])
    const response = await tower.get('data/education/light-and-colour/index.html')
    expect(await response.text()).toContain('Second release')
    expect((await tower.stop()).code).toBe(0)
  }, 60_000)
})
