/**
 * A real NGINX for tests, on free ports of 127.0.0.1, in a folder that goes away with it.
 */
import { type ChildProcess, execFileSync, spawn } from 'node:child_process'
import { once } from 'node:events'
import { chmod, mkdtemp, rm } from 'node:fs/promises'
import { createServer } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { NGINX_LIMITS, type NginxLimits } from './settings.ts'
import { type WrittenNginx, writeNginx } from './write.ts'

export interface TestNginx extends AsyncDisposable {
  readonly folder: string
  readonly httpPort: number
  readonly httpsPort: number
  readonly adminPort: number
  readonly written: WrittenNginx
}

export interface TestNginxOptions {
  readonly nodes: readonly number[]
  readonly adminUpstream?: number
  readonly limits?: Partial<NginxLimits>
}

/** Whether there is one; without it tests are skipped, loudly, and never in CI. */
export function nginxIsHere(): boolean {
  try {
    execFileSync('nginx', ['-v'], { stdio: 'ignore' })
    return true
  } catch {
    if (process.env.CI === 'true') throw new Error('NGINX is not installed; CI needs it')
    console.warn('SKIPPED: NGINX is not installed (apt-get install nginx-light)')
    return false
  }
}

export async function startTestNginx({ nodes, adminUpstream, limits }: TestNginxOptions): Promise<TestNginx> {
  await using undo = new AsyncDisposableStack()
  const folder = await mkdtemp(join(tmpdir(), 'tower-nginx-'))
  undo.defer(() => rm(folder, { recursive: true, force: true }))
  await chmod(folder, 0o755)
  const [httpPort, httpsPort, adminPort] = [await freePort(), await freePort(), await freePort()]
  const written = await writeNginx(
    {
      folder,
      names: ['127.0.0.1', 'tower.lan'],
      host: '127.0.0.1',
      httpPort,
      httpsPort,
      nodes: nodes.map(port => `127.0.0.1:${port}`),
      limits: { ...NGINX_LIMITS, ...limits },
      workers: 1,
      ...(adminUpstream === undefined
        ? {}
        : { admin: { port: adminPort, upstream: `127.0.0.1:${adminUpstream}` } }),
    },
    new Date(),
  )
  const child = spawn('nginx', ['-c', written.config, '-g', 'daemon off;'], { stdio: 'ignore' })
  undo.defer(() => stop(child))
  await listening(httpPort)
  const owned = undo.move()
  return {
    folder,
    httpPort,
    httpsPort,
    adminPort,
    written,
    [Symbol.asyncDispose]: () => owned.disposeAsync(),
  }
}

async function stop(child: ChildProcess): Promise<void> {
  if (child.exitCode !== null || child.signalCode !== null) return
  child.kill('SIGTERM')
  await once(child, 'exit')
}

export async function freePort(): Promise<number> {
  const server = createServer().listen(0, '127.0.0.1')
  await once(server, 'listening')
  const { port } = server.address() as { port: number }
  server.close()
  await once(server, 'close')
  return port
}

async function listening(port: number): Promise<void> {
  for (let tries = 0; tries < 200; tries++) {
    if (
      await fetch(`http://127.0.0.1:${port}/generate_204`, { redirect: 'manual' }).then(
        () => true,
        () => false,
      )
    )
      return
    await new Promise(resolve => setTimeout(resolve, 25))
  }
  throw new Error('NGINX did not start')
}
