import { mkdir, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { expect, it } from 'vitest'
import { openWorld } from './test-world.ts'

it('status says what share of requests was answered from here, by class and dataset', {
  timeout: 60_000,
}, async () => {
  await using world = await openWorld('education')
  const files = join(world.folder, 'files')
  await mkdir(files)
  await writeFile(join(files, 'page.html'), '<p>hello')
  await world.publish(files, 'education/book')
  await using node = await world.serve()
  const url = '/data/education/book/page.html'
  await expect.poll(async () => (await node.get(url)).status, { timeout: 20_000 }).toBe(200)
  for (let time = 0; time < 3; time++) await (await node.get(url)).text()

  const { stdout } = await world.run(['status'])
  expect(stdout).toMatch(/Hits: \d+\.\d % of \d+ requests, \d+\.\d % of bytes \(.*hot \d+/)
  expect(stdout).toMatch(/education\/book +\d+ requests +\d+\.\d % hits/)
  expect(stdout).not.toContain('has dropped')
  const { reads } = (await (await node.get('/api/v1/status')).json()) as {
    reads: { byClass: { name: string }[] }
  }
  expect(reads.byClass.map(({ name }) => name)).toEqual(['P1'])
})
