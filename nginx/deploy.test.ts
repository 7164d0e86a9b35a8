/**
 * The units in `deploy/`: hardened as far as systemd's own judgement goes, and pointing at what exists.
 */
import { execFile } from 'node:child_process'
import { access, readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { promisify } from 'node:util'
import { describe, expect, it } from 'vitest'

const run = promisify(execFile)
const ROOT = join(import.meta.dirname, '..')
const SERVICES = ['towerlight.service', 'towerlight-nginx.service']
/** systemd's scale: 0 is sealed, 10 open. */
const EXPOSURE_MAX = 2.5

const analyse = await run('systemd-analyze', ['--version']).then(
  () => true,
  () => {
    console.warn('SKIPPED: systemd-analyze is not installed')
    return false
  },
)

describe.each(SERVICES)('%s', name => {
  it.skipIf(!analyse)('is sealed', async () => {
    const path = join(ROOT, 'deploy', name)
    const { stdout } = await run('systemd-analyze', ['security', '--offline=true', path])
    const [, exposure] = /Overall exposure level for \S+: ([\d.]+)/.exec(stdout) ?? []
    expect(Number(exposure)).toBeLessThanOrEqual(EXPOSURE_MAX)
  })

  it('restarts for ever, and drains first', async () => {
    const text = await readFile(join(ROOT, 'deploy', name), 'utf8')
    expect(text).toMatch(/^Restart=always$/m)
    expect(text).toMatch(/^StartLimitIntervalSec=0$/m)
    expect(text).toMatch(/^TimeoutStopSec=\d+s$/m)
  })
})

it('the unit starts a file that exists', async () => {
  const unit = await readFile(join(ROOT, 'deploy/towerlight.service'), 'utf8')
  const [, script] = /^ExecStart=\/opt\/towerlight\/(\S+) serve$/m.exec(unit) ?? []
  await access(join(ROOT, script!))
})

it('the image has every folder that the program imports', async () => {
  const dockerfile = await readFile(join(ROOT, 'deploy/Dockerfile'), 'utf8')
  for (const folder of ['manifests', 'node', 'warmers', 'pinning', 'nginx'])
    expect(dockerfile).toContain(`COPY ${folder} ${folder}`)
})
