import { mkdtempDisposable, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { expect, it } from 'vitest'
import { loadConfig } from './config.ts'

const folder = () => mkdtempDisposable(join(tmpdir(), 'towerlight-config-'))
const invalid = (message: RegExp) => ({
  code: 'CONFIG_INVALID',
  message: expect.stringMatching(message) as string,
})

it('has a default for everything, and is frozen', async () => {
  await using cwd = await folder()
  const { config } = await loadConfig({ env: {}, cwd: cwd.path })
  expect(config).toMatchObject({
    data: join(cwd.path, '.towerlight'),
    warm: join(cwd.path, '.towerlight', 'warm'),
    port: 8080,
    upstream: [],
    mirror: false,
  })
  expect(Object.isFrozen(config) && Object.isFrozen(config.upstream)).toBe(true)
})

it('takes options over variables over the file over defaults, and says which', async () => {
  await using cwd = await folder()
  const file = join(cwd.path, 'tower.config.json')
  await writeFile(file, JSON.stringify({ port: 1000, hotBytesMax: '1MiB', workers: 2, host: '::1' }))
  const { config, explain } = await loadConfig({
    env: { TOWER_PORT: '2000', TOWER_HOT_BYTES: '2 GB', TOWER_HOST: '' },
    cwd: cwd.path,
    options: { port: 3000, data: undefined },
  })
  expect(config).toMatchObject({ port: 3000, hotBytesMax: 2e9, workers: 2, host: '::1' })
  expect(Object.fromEntries(explain().map(({ name, from }) => [name, from]))).toMatchObject({
    port: 'command line',
    hotBytesMax: 'TOWER_HOT_BYTES',
    workers: file,
    host: file,
    drainMs: 'default',
  })
})

it('reads the file that TOWER_CONFIG names, with paths relative to it', async () => {
  await using cwd = await folder()
  const file = join(cwd.path, 'elsewhere.json')
  await writeFile(file, JSON.stringify({ data: 'kept', upstream: ['file:///media/usb'] }))
  const { config } = await loadConfig({ env: { TOWER_CONFIG: file }, cwd: '/' })
  expect(config).toMatchObject({ data: join(cwd.path, 'kept'), upstream: ['file:///media/usb'] })
})

it('splits lists and understands flags in variables', async () => {
  await using cwd = await folder()
  const env = {
    TOWER_UPSTREAM: 'http://a.example/r, https://b.example',
    TOWER_MIRROR: 'yes',
    TOWER_PEERS: 'http://c.example',
  }
  const { config } = await loadConfig({ env, cwd: cwd.path })
  expect(config.upstream).toEqual(['http://a.example/r', 'https://b.example'])
  expect(config.peers).toEqual(['http://c.example'])
  expect(config.mirror).toBe(true)
})

it('masks passwords when it explains, not in the config', async () => {
  await using cwd = await folder()
  const env = {
    TOWER_S3_URL: 'http://key:secret@s3.example/bucket',
    REDIS_URL: 'redis://:hush@r.example:6379',
  }
  const { config, explain } = await loadConfig({ env, cwd: cwd.path })
  expect(config.s3Url).toContain('secret')
  expect(JSON.stringify(explain())).not.toMatch(/secret|hush/)
  expect(explain().find(({ name }) => name === 's3Url')?.value).toBe('http://key:***@s3.example/bucket')
})

it.each([
  [{ TOWER_PROT: '1' }, /TOWER_PROT is not a setting; do you mean TOWER_PORT\?/],
  [{ TOWER_XYZZY_SOMETHING_ELSE: '1' }, /is not a setting; see tower config --explain/],
  [{ TOWER_PORT: 'http' }, /TOWER_PORT: port: /],
  [{ TOWER_PORT: '70000' }, /TOWER_PORT: port: /],
  [{ TOWER_HOT_BYTES: '20 parsecs' }, /TOWER_HOT_BYTES: hotBytesMax: an amount such as 20GiB/],
  [{ TOWER_UPSTREAM: 'ftp://a.example' }, /TOWER_UPSTREAM: upstream: a URL/],
  [{ REDIS_URL: 'localhost' }, /REDIS_URL: redisUrl: redis:\/\//],
  [{ TOWER_CONFIG: 'absent.json' }, /absent\.json/],
])('refuses %j', async (env, message) => {
  await using cwd = await folder()
  await expect(loadConfig({ env, cwd: cwd.path })).rejects.toMatchObject(invalid(message))
})

it.each([
  ['{"prot": 1}', /"prot" is not a setting; do you mean port\?/],
  ['{"port": 1,}', /tower\.config\.json/],
  ['[]', /a JSON object is needed/],
  ['{"port": "x", "workers": -1}', /port: .*; .*workers: /],
])('refuses the file %s', async (text, message) => {
  await using cwd = await folder()
  await writeFile(join(cwd.path, 'tower.config.json'), text)
  await expect(loadConfig({ env: {}, cwd: cwd.path })).rejects.toMatchObject(invalid(message))
})
