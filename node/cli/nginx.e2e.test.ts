import { execFile } from 'node:child_process'
import { mkdtemp, readFile, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { promisify } from 'node:util'
import { expect, it } from 'vitest'

const run = promisify(execFile)
const MAIN = join(import.meta.dirname, 'main.ts')

async function tower(data: string, ...args: string[]): Promise<{ stdout: string; code: number }> {
  const env = { PATH: process.env.PATH, TOWER_DATA: data, TOWER_PORT: '8080', TOWER_ADMIN: '9090' }
  return run(process.execPath, [MAIN, 'nginx', ...args], { env }).then(
    ({ stdout }) => ({ stdout, code: 0 }),
    (error: { stdout: string; code: number }) => ({ stdout: error.stdout, code: error.code }),
  )
}

it('tower nginx writes a configuration, and client certificates for it', async () => {
  const data = await mkdtemp(join(tmpdir(), 'tower-cli-nginx-'))
  await using _ = { [Symbol.asyncDispose]: () => rm(data, { recursive: true, force: true }) }
  const early = await tower(data, '--client', 'amina', '--role', 'publisher', '--json')
  expect([early.code, JSON.parse(early.stdout).error.code]).toEqual([1, 'KEY_ABSENT'])

  const written = await tower(data, '--write', '--name', 'tower.lan', '--json')
  expect(JSON.parse(written.stdout)).toMatchObject({ changed: true, config: join(data, 'nginx/nginx.conf') })
  expect(await readFile(join(data, 'nginx/nginx.conf'), 'utf8')).toContain('server 127.0.0.1:8080')
  expect((await tower(data, '--write', '--name', 'tower.lan')).stdout).toMatch(/^unchanged/)

  const client = await tower(data, '--client', 'amina', '--role', 'publisher', '--json')
  expect(await readFile(JSON.parse(client.stdout).certificate, 'utf8')).toContain('BEGIN CERTIFICATE')
}, 30_000)

it.each([
  [['--write', '--http', 'x'], 2],
  [['--write', '--name', 'a;b'], 2],
  [['--write', '--cert', '/c.pem'], 2],
  [[], 1],
])('tower nginx %j fails and says why', async (args, code) => {
  const data = await mkdtemp(join(tmpdir(), 'tower-cli-nginx-'))
  await using _ = { [Symbol.asyncDispose]: () => rm(data, { recursive: true, force: true }) }
  const failed = await tower(data, ...args, '--json')
  expect([failed.code, JSON.parse(failed.stdout).error.message.length > 10]).toEqual([code, true])
})
