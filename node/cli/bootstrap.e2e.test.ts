import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { chmod, copyFile, mkdir, mkdtempDisposable, readFile, symlink, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { text } from 'node:stream/consumers'
import { describe, expect, it } from 'vitest'

const LOCK = {
  packages: {
    '': { name: 'towerlight' },
    'node_modules/zod': { version: '1.0.0', integrity: 'sha512-a' },
    'node_modules/elsewhere': { version: '1.0.0', integrity: 'sha512-b', optional: true },
  },
}
const HERE = { packages: { 'node_modules/zod': { version: '1.0.0', integrity: 'sha512-a' } } }

/** A clone with one `tower` command of our own, and a PATH on which every program is a stub that writes down its call. */
async function openClone({ installed = true, npm = '', programs = ['redis-server', 'nginx'] } = {}) {
  const folder = await mkdtempDisposable(join(tmpdir(), 'towerlight-bootstrap-'))
  const root = join(folder.path, 'clone')
  const bin = join(folder.path, 'bin')
  const calls = join(folder.path, 'calls')
  await mkdir(join(root, 'node', 'cli'), { recursive: true })
  await mkdir(join(root, 'node_modules', '.bin'), { recursive: true })
  await mkdir(bin)
  for (const name of ['bootstrap.mjs', 'tower'])
    await copyFile(join(import.meta.dirname, name), join(root, 'node', 'cli', name))
  for (const tool of ['dirname', 'readlink']) await symlink(`/usr/bin/${tool}`, join(bin, tool))
  await writeFile(join(root, 'package-lock.json'), JSON.stringify(LOCK))
  if (installed) await writeFile(join(root, 'node_modules', '.package-lock.json'), JSON.stringify(HERE))
  await writeFile(
    join(root, 'node', 'cli', 'main.ts'),
    `if (process.argv[2] === 'wait') process.on('SIGTERM', () => process.exit(7)), setInterval(() => {}, 1000)
     console.log(JSON.stringify({ args: process.argv.slice(2), cwd: process.cwd() }))`,
  )
  await symlink(process.execPath, join(root, 'node_modules', '.bin', 'node'))
  const stub = async (name: string, body = '') => {
    await writeFile(join(bin, name), `#!/bin/sh\necho "${name} $*" >> '${calls}'\n${body}\n`)
    await chmod(join(bin, name), 0o755)
  }
  await writeFile(calls, '')
  await stub('npm', npm)
  await stub('apt-get', 'exit 1')
  for (const program of programs) await stub(program)

  const start = (...args: string[]) =>
    spawn(process.execPath, [join(root, 'node', 'cli', 'bootstrap.mjs'), ...args], {
      cwd: folder.path,
      env: { PATH: bin },
    })
  return {
    root,
    folder: folder.path,
    start,
    run: async (...args: string[]) => {
      const child = start(...args)
      const [code, stdout, stderr] = await Promise.all([
        exitOf(child),
        text(child.stdout),
        text(child.stderr),
      ])
      return { code, stdout, stderr, calls: await readFile(calls, 'utf8') }
    },
    [Symbol.asyncDispose]: () => folder[Symbol.asyncDispose](),
  }
}

async function exitOf(child: ChildProcess): Promise<number | null> {
  const [code] = (await once(child, 'exit')) as [number | null]
  return code
}

describe('bootstrap', () => {
  it('hands over at once when all is here: no npm, no apt-get, in the caller’s folder', async () => {
    await using clone = await openClone()
    const { code, stdout, stderr, calls } = await clone.run('status', '--json')
    expect([code, stderr, calls]).toEqual([0, '', ''])
    expect(JSON.parse(stdout)).toEqual({ args: ['status', '--json'], cwd: clone.folder })
  })

  it('installs the locked packages when they are not here, without their scripts', async () => {
    await using clone = await openClone({
      installed: false,
      npm: `printf '%s' '${JSON.stringify(HERE)}' > node_modules/.package-lock.json`,
    })
    const first = await clone.run('status')
    expect(first.calls).toBe('npm ci --ignore-scripts --no-audit --no-fund --loglevel=error\n')
    expect(first.stderr).toMatch(/installing the locked packages/)
    expect(first.code).toBe(0)
    expect((await clone.run('status')).calls).toBe(first.calls)
  })

  it('installs again when the lockfile changed', async () => {
    await using clone = await openClone()
    const changed = structuredClone(LOCK)
    changed.packages['node_modules/zod'].version = '1.0.1'
    await writeFile(join(clone.root, 'package-lock.json'), JSON.stringify(changed))
    expect((await clone.run('status')).calls).toMatch(/^npm ci/)
  })

  it('says what is needed when npm fails', async () => {
    await using clone = await openClone({ installed: false, npm: 'exit 1' })
    const { code, stderr } = await clone.run('status')
    expect(code).toBe(1)
    expect(stderr).toMatch(/npm ci did not finish\ntowerlight: → this first run needs a network/)
  })

  it('goes on without Redis for a tower, and says what to type', async () => {
    await using clone = await openClone({ programs: [] })
    const { code, stdout, stderr } = await clone.run('up')
    expect(code).toBe(0)
    expect(JSON.parse(stdout)).toMatchObject({ args: ['up'] })
    expect(stderr).toMatch(/going on without redis-server/)
    expect(stderr).toContain('type: sudo apt-get install --no-install-recommends redis-server\n')
  })

  it('does not start the tests without the servers they need, and says what to type', async () => {
    await using clone = await openClone({ programs: ['nginx'] })
    const { code, stderr } = await clone.run('test')
    expect(code).toBe(1)
    expect(stderr).toMatch(
      /redis-server not installed\n.*type: sudo apt-get install --no-install-recommends redis-server chromium\n$/,
    )
  })

  it('passes signals on, and the exit code back', async () => {
    await using clone = await openClone()
    const child = clone.start('wait')
    await once(child.stdout, 'data')
    child.kill('SIGTERM')
    expect(await exitOf(child)).toBe(7)
  })
})
