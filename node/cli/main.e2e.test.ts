import { mkdtempDisposable, symlink } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { describe, expect, it } from 'vitest'
import { TOWER, tower } from './testing.ts'

const NAMES = ['publish', 'keys', 'config']

describe('tower', () => {
  it('names its commands', async () => {
    const { code, stdout } = await tower(['--help'])
    expect(code).toBe(0)
    for (const name of NAMES) expect(stdout).toMatch(new RegExp(`^ {2}${name}\\b`, 'm'))
  })

  it.each(NAMES)('%s --help says how it is used', async name => {
    const { code, stdout } = await tower([name, '--help'])
    expect(code).toBe(0)
    expect(stdout).toContain(`Usage: tower ${name}`)
  })

  it('works through a symbolic link, from any folder', async () => {
    await using folder = await mkdtempDisposable(join(tmpdir(), 'towerlight-cli-'))
    const command = join(folder.path, 'tower')
    await symlink(TOWER, command)
    const { code, stdout } = await tower(['config', '--json'], { command, cwd: folder.path })
    expect(code).toBe(0)
    expect(JSON.parse(stdout)).toMatchObject({ data: join(folder.path, '.towerlight') })
  })

  it('is what the bootstrap hands over to, with settings that it knows', async () => {
    await using folder = await mkdtempDisposable(join(tmpdir(), 'towerlight-cli-'))
    const bootstrap = join(import.meta.dirname, 'bootstrap.mjs')
    const { code, stdout, stderr } = await tower([bootstrap, 'config', '--json'], {
      command: process.execPath,
      cwd: folder.path,
    })
    expect([code, stderr]).toEqual([0, ''])
    expect(JSON.parse(stdout)).toMatchObject({ data: join(folder.path, '.towerlight') })
  })

  it.each([
    [['confg'], /^error USAGE: unknown command 'confg'\n\(Did you mean config\?\)/],
    [['config', '--x'], /^error USAGE: unknown option '--x'\n {2}→ see --help\n$/],
  ])('%j is wrong usage: exit code 2', async (args, message) => {
    const { code, stdout, stderr } = await tower(args)
    expect(code).toBe(2)
    expect(stdout).toBe('')
    expect(stderr).toMatch(message)
  })

  it('names a wrong variable: exit code 2, nothing on stdout', async () => {
    const { code, stdout, stderr } = await tower(['config'], { env: { TOWER_PROT: '80' } })
    expect(code).toBe(2)
    expect(stdout).toBe('')
    expect(stderr).toMatch(
      /^error CONFIG_INVALID: TOWER_PROT is not a setting; do you mean TOWER_PORT\?\n {2}→ /,
    )
  })

  it('says the same in JSON when asked', async () => {
    const { code, stdout, stderr } = await tower(['config', '--json'], { env: { TOWER_PROT: '80' } })
    expect(code).toBe(2)
    expect(stderr).toBe('')
    expect(JSON.parse(stdout)).toMatchObject({ error: { code: 'CONFIG_INVALID' } })
  })

  it('explains every setting', async () => {
    const { stdout } = await tower(['config', '--explain', '--json'], { env: { TOWER_PORT: '81' } })
    const settings = JSON.parse(stdout) as { name: string; value: unknown; from: string }[]
    expect(settings.find(({ name }) => name === 'port')).toMatchObject({ value: 81, from: 'TOWER_PORT' })
    expect(settings.find(({ name }) => name === 'drainMs')).toMatchObject({ from: 'default' })
  })
})
