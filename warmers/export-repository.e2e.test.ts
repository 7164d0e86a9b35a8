import { readdir, rm, stat, truncate } from 'node:fs/promises'
import { join } from 'node:path'
import { pathToFileURL } from 'node:url'
import { describe, expect, it } from 'vitest'
import { bytesOf } from '../node/store/testing.ts'
import {
  checkExport,
  exportRepository,
  parseWantList,
  wantListOf,
  type WantList,
} from './export-repository.ts'
import { openFileUpstream } from './file-upstream.ts'
import { openNode, openOrigin, signal, type Files, type TestNode } from './test-world.ts'
import { temporaryFolder } from './testing.ts'
import type { Upstream } from './upstream.ts'

const OLD: Files = {
  'film.mp4': bytesOf('film', 3_000_000),
  'table.csv': Array.from({ length: 60_000 }, (_, n) => `${n},${(n * 7919) % 997}\n`).join(''),
}
const NEW: Files = { ...OLD, 'table.csv': `${OLD['table.csv'] as string}60000,1\n` }

async function exportTo(
  folder: string,
  node: TestNode,
  upstream: Upstream,
  wants?: WantList,
  datasets?: string[],
) {
  const { trust, releases } = node
  return await Array.fromAsync(
    exportRepository({
      folder,
      trust,
      releases,
      upstreams: [upstream],
      signal,
      ...(wants && { wants }),
      ...(datasets && { datasets }),
    }),
  )
}

function stick(folder: string): Upstream {
  return openFileUpstream(pathToFileURL(`${folder}/`), () => undefined)
}

async function sizeOf(folder: string): Promise<number> {
  const names = await readdir(folder, { recursive: true })
  const sizes = await Promise.all(names.map(name => stat(join(folder, name))))
  return sizes.reduce((sum, found) => sum + (found.isFile() ? found.size : 0), 0)
}

describe('a stick', () => {
  it('carries a dataset to a node that has no link, and later its update only', async () => {
    await using origin = await openOrigin()
    await using server = await origin.serve()
    await using here = await openNode(origin.root)
    await using there = await openNode(origin.root)
    await using folder = await temporaryFolder()
    const upstream = here.upstream(server.url)
    await origin.publish('media/films', OLD)
    await here.fill([upstream])
    await exportTo(folder.path, here, upstream)
    expect((await there.fill([stick(folder.path)])).at(-1)).toMatchObject({ complete: true })
    expect((await there.items('media/films'))['film.mp4']!.equals(OLD['film.mp4'] as Buffer)).toBe(true)

    await origin.publish('media/films', NEW)
    await here.fill([upstream])
    const wants = parseWantList(JSON.stringify(await wantListOf(there.releases)))
    expect(wants.datasets).toEqual([{ dataset: 'media/films', revision: 1, whole: true }])
    await using second = await temporaryFolder()
    await exportTo(second.path, here, upstream, wants)
    expect(await sizeOf(second.path)).toBeLessThan(20_000)
    expect((await there.fill([stick(second.path)])).at(-1)).toMatchObject({ complete: true, fallbacks: 0 })
    expect(String((await there.items('media/films'))['table.csv'])).toBe(NEW['table.csv'])
  })

  it('carries only what was asked for, and that is enough', async () => {
    await using origin = await openOrigin()
    await using server = await origin.serve()
    await using here = await openNode(origin.root)
    await using there = await openNode(origin.root)
    await using folder = await temporaryFolder()
    await origin.publish('media/films', OLD)
    await origin.publish('health/who', { note: 'wash hands' })
    const upstream = here.upstream(server.url)
    await here.fill([upstream])
    await exportTo(folder.path, here, upstream, undefined, ['health/who'])
    expect(await sizeOf(folder.path)).toBeLessThan(20_000)
    expect((await there.fill([stick(folder.path)])).at(-1)).toMatchObject({ complete: true })
    expect(String((await there.items('health/who')).note)).toBe('wash hands')
  })

  it('that lacks a piece, or has a damaged one, says which', async () => {
    await using origin = await openOrigin()
    await using server = await origin.serve()
    await using here = await openNode(origin.root)
    await using there = await openNode(origin.root)
    await using folder = await temporaryFolder()
    const upstream = here.upstream(server.url)
    const { manifest } = await origin.publish('media/films', OLD)
    await here.fill([upstream])
    await exportTo(folder.path, here, upstream)
    const problems = () => Array.fromAsync(checkExport(folder.path, { signal }))
    expect(await problems()).toEqual([])
    const pack = `packs/${manifest.packs[0]!.sha256}.pack`
    await truncate(join(folder.path, pack), 1_000_000)
    expect(await problems()).toEqual([{ path: pack, problem: 'damaged' }])
    await rm(join(folder.path, pack))
    expect(await problems()).toEqual([{ path: pack, problem: 'missing' }])
    const events = await there.fill([stick(folder.path)])
    expect(events.find(event => event.type === 'failed')).toMatchObject({
      message: expect.stringContaining(pack) as string,
    })

    // the rest is gone on with
    const again = await exportTo(folder.path, here, upstream)
    expect(again[0]).toMatchObject({ type: 'planned', here: 0 })
    expect(await problems()).toEqual([])
    expect((await there.fill([stick(folder.path)])).at(-1)).toMatchObject({ complete: true })
  })
})
