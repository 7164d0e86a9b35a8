/**
 * Real Kubo and S3 servers for tests and benches: on loopback, free ports, a temporary folder, gone when
 * disposed. Found on PATH or where `.ci/install-servers.ts` puts them.
 */
import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { existsSync } from 'node:fs'
import { mkdir, mkdtemp, readdir, readFile, rm, writeFile } from 'node:fs/promises'
import { createServer } from 'node:net'
import { homedir, tmpdir } from 'node:os'
import { delimiter, join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { fileURLToPath } from 'node:url'

export interface TestServer extends AsyncDisposable {
  readonly url: string
  readonly folder: string
  readonly process: ChildProcess
  /** SIGKILL, then the same server on the same folder and port again. */
  restart(): Promise<TestServer>
}

export interface KuboServer extends TestServer {
  /** Its HTTP gateway. */
  readonly gatewayUrl: string
  restart(): Promise<KuboServer>
  /** Runs `ipfs …` against it; its standard output. */
  run(...args: string[]): Promise<Buffer>
}

export const SERVER_CACHE = join(
  process.env['XDG_CACHE_HOME'] ?? join(homedir(), '.cache'),
  'towerlight',
  'bin',
)

export type ServerName = 'ipfs' | 'minio' | 'versitygw'

/** The program's path; undefined when it is neither on PATH nor in our cache. */
export function findServer(name: ServerName): string | undefined {
  const folders = [...(process.env['PATH'] ?? '').split(delimiter), SERVER_CACHE]
  return folders.map(folder => join(folder, name)).find(path => existsSync(path))
}

/**
 * For `describe.runIf(…)`: true when the program is there. Absent, it is an error in CI and is said
 * aloud elsewhere.
 */
export function haveServer(name: ServerName): boolean {
  if (findServer(name)) return true
  if (process.env['CI']) throw new Error(`${name} is missing: node .ci/install-servers.ts`)
  console.warn(`NOT RUN: tests that need ${name}, which is not installed (node .ci/install-servers.ts)`)
  return false
}

const KUBO_INIT = fileURLToPath(new URL('../../deploy/kubo-init.sh', import.meta.url))

/** A private Kubo, set up as docs/pinning.md says. @param plain Kubo's own settings for how it stores. */
export async function startKubo({ plain = false } = {}): Promise<KuboServer> {
  const folder = await mkdtemp(join(tmpdir(), 'tower-kubo-'))
  const [api = 0, gateway = 0] = await freePorts(2)
  const env = {
    ...process.env,
    PATH: `${process.env['PATH'] ?? ''}${delimiter}${SERVER_CACHE}`,
    IPFS_PATH: folder,
    IPFS_TELEMETRY: 'off',
    KUBO_API: `/ip4/127.0.0.1/tcp/${api}`,
    KUBO_GATEWAY: `/ip4/127.0.0.1/tcp/${gateway}`,
  }
  await runProgram('sh', [KUBO_INIT], env)
  if (plain) await storeAsKuboDoes(folder, env)
  return await launchKubo(folder, api, gateway)
}

/** For comparison: blocks, pins and all else as `ipfs init --profile pebbleds` has them. */
async function storeAsKuboDoes(folder: string, env: NodeJS.ProcessEnv): Promise<void> {
  const spec = { type: 'pebbleds', path: 'pebbleds' }
  await runProgram('ipfs', ['config', '--json', 'Datastore.Spec', JSON.stringify(spec)], env)
  await writeFile(join(folder, 'datastore_spec'), JSON.stringify({ path: 'pebbleds', type: 'pebbleds' }))
}

async function launchKubo(folder: string, api: number, gateway: number): Promise<KuboServer> {
  const env = { ...process.env, IPFS_PATH: folder, IPFS_TELEMETRY: 'off' }
  const child = spawn(programOf('ipfs'), ['daemon', '--offline'], { env, stdio: ['ignore', 'pipe', 'pipe'] })
  await printed(child, 'Daemon is ready')
  return {
    url: `http://127.0.0.1:${api}`,
    gatewayUrl: `http://127.0.0.1:${gateway}`,
    folder,
    process: child,
    run: (...args) => runProgram('ipfs', args, env),
    async restart() {
      await killed(child)
      await rm(join(folder, 'api'), { force: true })
      await rm(join(folder, 'repo.lock'), { force: true })
      return await launchKubo(folder, api, gateway)
    },
    [Symbol.asyncDispose]: () => discard(child, folder),
  }
}

/** MinIO over `drives` folders; six give erasure coding EC:2 (four data, two parity). */
export async function startMinio(drives = 1): Promise<TestServer> {
  const folder = await mkdtemp(join(tmpdir(), 'tower-minio-'))
  const [port = 0] = await freePorts(1)
  const paths = Array.from({ length: drives }, (_, n) => join(folder, `drive${n + 1}`))
  for (const path of paths) await mkdir(path)
  return await launchMinio(folder, paths, port)
}

async function launchMinio(folder: string, drives: readonly string[], port: number): Promise<TestServer> {
  const env = {
    ...process.env,
    MINIO_ROOT_USER: 'towertest',
    MINIO_ROOT_PASSWORD: 'towertest-secret',
    MINIO_CI_CD: 'on', // drives may share the root file system
    MINIO_UPDATE: 'off',
    ...(drives.length >= 6 ? { MINIO_STORAGE_CLASS_STANDARD: 'EC:2' } : {}),
  }
  const args = ['server', '--quiet', '--address', `127.0.0.1:${port}`, ...drives]
  const child = spawn(programOf('minio'), args, { env, stdio: ['ignore', 'pipe', 'pipe'] })
  child.stdout.resume()
  child.stderr.resume()
  await answers(`http://127.0.0.1:${port}/minio/health/cluster`, child)
  return {
    url: `http://towertest:towertest-secret@127.0.0.1:${port}/towerlight`,
    folder,
    process: child,
    async restart() {
      await killed(child)
      return await launchMinio(folder, drives, port)
    },
    [Symbol.asyncDispose]: () => discard(child, folder),
  }
}

/** Another S3 server than MinIO, Versity's, over one folder: so that we lean on nobody's own ways. */
export async function startVersity(): Promise<TestServer> {
  const folder = await mkdtemp(join(tmpdir(), 'tower-versity-'))
  const [port = 0] = await freePorts(1)
  return await launchVersity(folder, port)
}

async function launchVersity(folder: string, port: number): Promise<TestServer> {
  const address = `127.0.0.1:${port}`
  const env = { ...process.env, ROOT_ACCESS_KEY_ID: 'towertest', ROOT_SECRET_ACCESS_KEY: 'towertest-secret' }
  const args = ['--quiet', '--port', address, '--health', '/health', 'posix', folder]
  const child = spawn(programOf('versitygw'), args, { env, stdio: 'ignore' })
  await answers(`http://${address}/health`, child)
  return {
    url: `http://towertest:towertest-secret@${address}/towerlight`,
    folder,
    process: child,
    async restart() {
      await killed(child)
      return await launchVersity(folder, port)
    },
    [Symbol.asyncDispose]: () => discard(child, folder),
  }
}

function programOf(name: ServerName): string {
  const path = findServer(name)
  if (!path) throw new Error(`${name} is not installed: node .ci/install-servers.ts`)
  return path
}

async function runProgram(
  name: 'ipfs' | 'sh',
  args: readonly string[],
  env: NodeJS.ProcessEnv,
): Promise<Buffer> {
  const child = spawn(name === 'sh' ? name : programOf(name), args, {
    env,
    stdio: ['ignore', 'pipe', 'pipe'],
  })
  const failure: Buffer[] = []
  child.stderr.on('data', (piece: Buffer) => failure.push(piece))
  const closed = once(child, 'close')
  const output = Buffer.concat(await Array.fromAsync(child.stdout as AsyncIterable<Buffer>))
  const [code] = await closed
  if (code !== 0) throw new Error(`${name} ${args.join(' ')}: ${Buffer.concat(failure).toString('utf8')}`)
  return output
}

/** Waits until the program prints `text`; its end before that is an error. */
async function printed(child: ChildProcess, text: string): Promise<void> {
  let output = ''
  const { promise, resolve, reject } = Promise.withResolvers<void>()
  const look = (piece: Buffer) => {
    output += piece.toString('utf8')
    if (output.includes(text)) resolve()
  }
  child.stdout?.on('data', look)
  child.stderr?.on('data', look)
  child.once('exit', () => reject(new Error(`the server ended: ${output.slice(-2000)}`)))
  await promise
}

async function answers(url: string, child: ChildProcess): Promise<void> {
  while (child.exitCode === null) {
    const response = await fetch(url).catch(() => undefined)
    await response?.body?.cancel()
    if (response?.ok) return
    await new Promise(resolve => setTimeout(resolve, 20)) // polling: the server has no better signal
  }
  throw new Error(`the server ended with ${child.exitCode}`)
}

async function killed(child: ChildProcess): Promise<void> {
  if (child.exitCode !== null || child.signalCode !== null) return
  const exited = once(child, 'exit')
  child.kill('SIGKILL')
  await exited
}

async function discard(child: ChildProcess, folder: string): Promise<void> {
  await killed(child)
  await rm(folder, { recursive: true, force: true })
}

async function freePorts(count: number): Promise<number[]> {
  const servers = await Promise.all(
    Array.from({ length: count }, async () => {
      const server = createServer().listen(0, '127.0.0.1')
      await once(server, 'listening')
      return server
    }),
  )
  const ports = servers.map(server => {
    const address = server.address()
    return typeof address === 'object' && address ? address.port : 0
  })
  await Promise.all(servers.map(server => once(server.close(), 'close')))
  return ports
}

/** Hangs it. Resolves when each of its threads stands still: a signal takes a moment to get to all. */
export async function suspend({ process: child }: { readonly process: ChildProcess }): Promise<void> {
  child.kill('SIGSTOP')
  const threads = `/proc/${child.pid}/task`
  for (const thread of await readdir(threads)) {
    const isStill = async () =>
      / T /.test(await readFile(join(threads, thread, 'stat'), 'utf8').catch(() => ' T '))
    while (!(await isStill())) await sleep(1)
  }
}
