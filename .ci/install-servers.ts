/**
 * Installs Kubo and two S3 servers for the tests that need them, once, into a cache folder outside the tree.
 * Already on PATH or in the cache: does nothing. Needs a current Go; takes several minutes on two cores.
 *
 * Kubo is built as a dependency of a throw-away module: `go install pkg@version` asks the module
 * proxy for the list of all versions, which some proxies do not give.
 */
import { execFileSync } from 'node:child_process'
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { findServer, SERVER_CACHE, type ServerName } from '../pinning/testing/servers.ts'

const SERVERS = {
  ipfs: { module: 'github.com/ipfs/kubo', version: 'v0.42.0', main: 'github.com/ipfs/kubo/cmd/ipfs' },
  minio: {
    module: 'github.com/minio/minio',
    version: 'v0.0.0-20260212201848-7aac2a2c5b7c',
    main: 'github.com/minio/minio',
  },
  versitygw: {
    module: 'github.com/versity/versitygw',
    version: 'v1.0.14',
    main: 'github.com/versity/versitygw/cmd/versitygw',
  },
} as const satisfies Record<ServerName, unknown>

mkdirSync(SERVER_CACHE, { recursive: true })
for (const name of Object.keys(SERVERS) as ServerName[]) {
  const found = findServer(name)
  console.log(found ? `${name}: ${found}` : `${name}: building, this takes several minutes`)
  if (!found) build(name)
}

function build(name: ServerName): void {
  const { module, version, main } = SERVERS[name]
  const folder = mkdtempSync(join(tmpdir(), 'tower-go-'))
  try {
    writeFileSync(
      join(folder, 'go.mod'),
      `module towerlight.invalid/servers\n\ngo 1.25\n\nrequire ${module} ${version}\n`,
    )
    writeFileSync(join(folder, 'server.go'), `//go:build tools\n\npackage servers\n\nimport _ "${main}"\n`)
    const run = (...args: string[]) => execFileSync('go', args, { cwd: folder, stdio: 'inherit' })
    run('mod', 'tidy')
    run('build', '-o', join(SERVER_CACHE, name), main)
  } catch (cause) {
    throw new Error(`cannot build ${name}: is a current Go on PATH? (put an "${name}" on PATH instead)`, {
      cause,
    })
  } finally {
    rmSync(folder, { recursive: true, force: true })
  }
}
