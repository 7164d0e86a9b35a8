/** Sneakernet with the real commands: out of one tower, into another that has no link, and back. */
import { mkdir, readdir, truncate, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { expect, it } from 'vitest'
import { openWorld } from './test-world.ts'

it('a stick carries releases to a tower without a link, and later only what that one lacks', async () => {
  await using world = await openWorld('health')
  const { folder } = world
  const files = join(folder, 'files')
  const stick = join(folder, 'stick')
  const wants = join(folder, 'wants.json')
  const far = { TOWER_DATA: join(folder, 'far'), TOWER_UPSTREAM: '' }
  await mkdir(files)
  const lines = (count: number) =>
    Array.from({ length: count }, (_, n) => `${n},${(n * 7919) % 997}\n`).join('')
  await writeFile(join(files, 'table.csv'), lines(80_000))
  await world.publish(files, 'health/tables')
  await world.ask(['fill', '--once'])

  expect(await world.ask(['export', '--to', stick])).toMatchObject({ files: expect.any(Number) as number })
  expect(await world.ask(['import', stick], far)).toMatchObject({ complete: true, problems: [] })

  await writeFile(join(files, 'table.csv'), lines(80_100))
  await world.publish(files, 'health/tables')
  await world.ask(['fill', '--once'])
  const list = await world.run(['export', '--wants'], far)
  await writeFile(wants, list.stdout)
  const small = join(folder, 'small')
  const { bytes } = (await world.ask(['export', '--for', wants, '--to', small])) as { bytes: number }
  expect(bytes).toBeLessThan(30_000)
  expect(await world.ask(['import', small], far)).toMatchObject({ complete: true, problems: [] })
  expect(await world.ask(['status'], far)).toMatchObject({ datasets: [{ revision: 2 }] })

  const [pack] = await readdir(join(stick, 'packs'))
  await truncate(join(stick, 'packs', pack!), 100)
  const third = { TOWER_DATA: join(folder, 'third'), TOWER_UPSTREAM: '' }
  const damaged = await world.run(['import', stick, '--json'], third)
  expect(damaged.code).toBe(3)
  expect(JSON.parse(damaged.stdout)).toMatchObject({
    complete: false,
    problems: [{ path: `packs/${pack}`, problem: 'damaged' }],
  })
}, 120_000)
