import { mkdtempDisposable, readdir, readFile, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { expect, it } from 'vitest'
import { openSampleRepository } from './sample-repository.ts'

const folder = () => mkdtempDisposable(join(tmpdir(), 'towerlight-samples-'))

it('publishes two releases of both datasets, the second one as small deltas', async () => {
  await using data = await folder()
  const samples = await openSampleRepository(data.path)
  expect(samples.isNew).toBe(true)
  const first = await samples.publish(1)
  expect(first.map(({ dataset, revision }) => [dataset, revision])).toEqual([
    ['health/hands-and-water', 1],
    ['education/light-and-colour', 1],
  ])
  const second = await samples.publish(2)
  for (const { revision, itemBytes, deltaBytes } of second) {
    expect(revision).toBe(2)
    expect(deltaBytes).toBeGreaterThan(0)
    expect(deltaBytes).toBeLessThan(itemBytes / 10)
  }
})

it('goes on with what is there: the same keys, no further release, nothing left over', async () => {
  await using data = await folder()
  await (await openSampleRepository(data.path)).publish(1)
  const keys = await readdir(join(data.path, 'keys'))
  const again = await openSampleRepository(data.path)
  expect(again.isNew).toBe(false)
  expect((await again.publish(1)).map(({ changed }) => changed)).toEqual([false, false])
  expect(await readdir(join(data.path, 'keys'))).toEqual(keys)
  expect((await readdir(data.path)).toSorted()).toEqual(['keys', 'repository'])
})

it('makes again what an interruption left out', async () => {
  await using data = await folder()
  const root = (await openSampleRepository(data.path)).rootPath
  const before = await readFile(root)
  await rm(root)
  expect((await openSampleRepository(data.path)).isNew).toBe(true)
  expect(await readFile(root)).toEqual(before)
})
