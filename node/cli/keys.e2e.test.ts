import { chmod, mkdir, mkdtemp, readdir, readFile, rename, rm, stat, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { loadKeys } from '../key-folder.ts'
import { tower } from './testing.ts'

let folder: string
let keys: string
let repository: string

beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), 'keys-'))
  keys = join(folder, 'keys')
  repository = join(folder, 'repository')
})
afterEach(() => rm(folder, { recursive: true, force: true }))

const run = (...args: string[]) => tower(['keys', ...args, '--keys', keys, '--to', repository])
const answer = async (...args: string[]): Promise<unknown> =>
  JSON.parse((await run(...args, '--json')).stdout)
const rows = async () => ((await answer('list')) as { roles: readonly Record<string, unknown>[] }).roles

describe('tower keys', () => {
  it('begins a repository with keys that only their owner reads, and says what to do next', async () => {
    const { code, stdout } = await run(
      'init',
      '--root-keys',
      '3',
      '--threshold',
      '2',
      '--expiry',
      'timestamp=7',
    )
    expect(code).toBe(0)
    expect(stdout).toContain('off line')
    const pems = (await readdir(keys)).filter(name => name.endsWith('.pem'))
    expect(pems).toEqual([
      'root-1.pem',
      'root-2.pem',
      'root-3.pem',
      'snapshot.pem',
      'targets.pem',
      'timestamp.pem',
    ])
    for (const pem of pems) expect((await stat(join(keys, pem))).mode & 0o777).toBe(0o600)
    expect(await readFile(join(keys, 'root.json'))).toEqual(
      await readFile(join(repository, 'metadata/1.root.json')),
    )
    const { signed } = JSON.parse(await readFile(join(repository, 'metadata/timestamp.json'), 'utf8')) as {
      signed: { expires: string }
    }
    const days = (Date.parse(signed.expires) - Date.now()) / 86_400_000
    expect(Math.round(days)).toBe(7)
  })

  it('begins once, and refuses before a key is made when it is too late', async () => {
    await run('init')
    const other = join(folder, 'other')
    const { code, stderr } = await tower(['keys', 'init', '--keys', other, '--to', repository])
    expect([code, stderr]).toEqual([3, expect.stringContaining('PUBLISH_CONFLICT')])
    await expect(readdir(other)).rejects.toMatchObject({ code: 'ENOENT' })
  })

  it('adds, changes and revokes publishers', async () => {
    await run('init')
    expect(await answer('add', 'health')).toMatchObject({ paths: ['health/*/manifest.json'] })
    expect(await answer('add', 'health', '--paths', 'clinic/*/manifest.json')).toMatchObject({
      paths: ['clinic/*/manifest.json'],
    })
    expect(await rows()).toContainEqual(
      expect.objectContaining({ role: 'health', keys: 1, here: 1, version: 2 }),
    )
    expect((await run('remove', 'health')).code).toBe(0)
    expect((await rows()).map(({ role }) => role)).toEqual(['root', 'timestamp', 'snapshot', 'targets'])
    expect((await run('add', 'Bad Name')).stderr).toContain('REQUEST_INVALID')
  })

  it('lets a publisher in who keeps the private key to themselves', async () => {
    await run('init')
    const theirs = join(folder, 'theirs')
    const made = await tower(['keys', 'new', 'edu', '--keys', theirs, '--json'])
    const { publicKey } = JSON.parse(made.stdout) as { publicKey: string }
    expect((await run('add', 'edu', '--public-key', publicKey)).code).toBe(0)
    expect(await rows()).toContainEqual(
      expect.objectContaining({ role: 'edu', keys: 1, here: 0, version: 0 }),
    )
    expect(await loadKeys([theirs])).toHaveLength(1)
  })

  it('changes a two-of-three root whose keys lie on two sticks', async () => {
    await run('init', '--root-keys', '3', '--threshold', '2')
    const sticks = [join(folder, 'stick-a'), join(folder, 'stick-b')]
    for (const [at, stick] of sticks.entries()) {
      await mkdir(stick)
      await rename(join(keys, `root-${at + 1}.pem`), join(stick, 'root.pem'))
    }
    await rm(join(keys, 'root-3.pem'))
    const lacking = await run('rotate', 'root')
    expect([lacking.code, lacking.stderr]).toEqual([1, expect.stringContaining('KEY_ABSENT')])
    const together = await tower([
      'keys',
      'rotate',
      'root',
      '--keys',
      keys,
      '--keys',
      sticks[0]!,
      '--keys',
      sticks[1]!,
      '--to',
      repository,
    ])
    expect(together).toMatchObject({ code: 0 })
    expect(await rows()).toContainEqual(
      expect.objectContaining({ role: 'root', version: 2, here: 3, threshold: 2 }),
    )
    expect(await readdir(sticks[0]!)).toEqual(['root.retired.pem'])
  })

  it.each(['timestamp', 'snapshot', 'targets', 'health'])('rotates %s', async role => {
    await run('init')
    await run('add', 'health')
    expect((await run('rotate', role)).code).toBe(0)
    expect(await rows()).toContainEqual(expect.objectContaining({ role, keys: 1, here: 1 }))
    expect((await run('renew')).code).toBe(0)
  })

  it('keeps the denylist', async () => {
    await run('init')
    const digest = 'ab'.repeat(32)
    await run('deny', '--sha256', digest, '--reason', 'wrong dosage')
    const both = await answer('deny', '--dataset', 'health/guide', '--path', 'a b.html')
    expect(both).toMatchObject({
      entries: [{ sha256: digest, reason: 'wrong dosage' }, { path: 'a b.html' }],
    })
    expect(await answer('deny', '--sha256', digest, '--undo')).toMatchObject({
      entries: [{ path: 'a b.html' }],
    })
    expect((await run('deny')).stderr).toContain('REQUEST_INVALID')
    expect((await run('deny', '--sha256', 'short')).stderr).toContain('not a SHA-256')
  })

  it('says what is wrong with keys and folders', async () => {
    expect((await run('list')).stderr).toContain('KEY_ABSENT')
    await run('init')
    expect((await tower(['keys', 'list', '--keys', keys, '--to', join(folder, 'empty')])).stderr).toContain(
      'TRUST_ROOT_ABSENT',
    )
    expect((await tower(['keys', 'list', '--keys', keys, '--to', 'http://tower/'])).stderr).toContain(
      'REQUEST_INVALID',
    )
    await writeFile(join(keys, 'broken.pem'), 'not a key')
    expect((await run('list')).stderr).toMatch(/KEY_INVALID: .*broken\.pem/)
    await rm(join(keys, 'broken.pem'))
    await writeFile(join(keys, 'root.json'), await readFile(join(repository, 'metadata/timestamp.json')))
    expect((await run('list')).stderr).toContain('TRUST_INVALID')
    await chmod(keys, 0o700)
  })
})
