/** A hub with the real commands: origin → hub → tower, which was away for three releases; and a stick out of the hub. */
import { mkdir, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { expect, it } from 'vitest'
import { bytesOf } from '../store/testing.ts'
import { openWorld } from './test-world.ts'

const DATASET = 'education/book'
const NEWEST = 4

interface Done {
  readonly complete: boolean
  readonly wireBytes: number
  readonly contentBytes: number
  readonly datasets: readonly { readonly byReason: { readonly frame: { readonly extents: number } } }[]
}

it('a tower goes by the chain through a hub, and through a stick that the hub wrote', async () => {
  await using world = await openWorld('education')
  const { folder } = world
  const files = join(folder, 'files')
  const settingsOf = (name: string, upstream: string) => ({
    TOWER_DATA: join(folder, name),
    TOWER_UPSTREAM: upstream,
  })
  const hubSettings = { TOWER_DATA: join(folder, 'hub'), TOWER_MIRROR: 'true' }
  const publish = async (revision: number) => {
    const film = [bytesOf('film', 3_000_000), bytesOf(`scene ${revision}`, 20_000)]
    await writeFile(join(files, 'film.mp4'), Buffer.concat(film))
    await world.publish(files, DATASET)
  }
  await mkdir(files)
  await publish(1)
  await using hub = await world.serve(hubSettings)
  const fillHub = async () => {
    const { wireBytes, contentBytes } = (await world.ask(['plan'], hubSettings)) as Done
    expect(await world.ask(['fill', '--once'], hubSettings)).toMatchObject({ wireBytes, contentBytes })
  }
  await fillHub()
  const far = settingsOf('far', `${hub.url}repo/`)
  const offline = settingsOf('offline', '')
  await world.ask(['fill', '--once'], far)
  await world.ask(['export', '--to', join(folder, 'stick 1')], hubSettings)
  await world.ask(['import', join(folder, 'stick 1')], offline)
  for (let revision = 2; revision <= NEWEST; revision++) await publish(revision)
  await fillHub()

  const planned = (await world.ask(['plan'], far)) as Done
  const filled = (await world.ask(['fill', '--once'], far)) as Done
  expect(planned.datasets.map(({ byReason }) => byReason.frame.extents)).toEqual([0])
  expect(filled).toMatchObject({
    complete: true,
    contentBytes: planned.contentBytes,
    wireBytes: planned.wireBytes,
  })
  expect(filled.wireBytes).toBeLessThan(200_000)

  await writeFile(join(folder, 'wants.json'), (await world.run(['export', '--wants'], offline)).stdout)
  const stick = join(folder, 'stick 2')
  const written = await world.ask(['export', '--for', join(folder, 'wants.json'), '--to', stick], hubSettings)
  expect((written as { bytes: number }).bytes).toBeLessThan(200_000)
  expect(await world.ask(['import', stick], offline)).toMatchObject({ complete: true, problems: [] })
  for (const settings of [far, offline])
    expect(await world.ask(['status'], settings)).toMatchObject({ datasets: [{ revision: NEWEST }] })
}, 120_000)
