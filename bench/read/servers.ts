/**
 * The servers that are compared, each a process of its own on one core, over the same folder of files:
 * our node, NGINX (sendfile, unverified), Varnish over it (memory, unverified), and the plain
 * `node:http` that people write (a file stream piped into the response, unverified).
 */
import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs'
import { createServer } from 'node:net'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import { EdgeError } from '../../manifests/errors.ts'
import { writeNginx } from '../../nginx/write.ts'

export interface BenchServer extends AsyncDisposable {
  readonly name:
    | 'towerlight'
    | 'towerlight-2'
    | 'towerlight-nginx'
    | 'nginx'
    | 'nginx-nginx'
    | 'varnish'
    | 'node'
  readonly port: number
  readonly pid: number
  /** With TLS and HTTP/2. */
  readonly httpsPort?: number
  /** What stands behind it, and costs CPU too. */
  readonly alsoPid?: number
}

export interface Place {
  /** Scratch space; the files to serve are in `<dir>/files`. */
  readonly dir: string
  readonly core: number
}

export async function startTowerlight({ dir, core }: Place): Promise<BenchServer> {
  const script = new URL('serve-node.ts', import.meta.url).pathname
  return startScript('towerlight', script, [join(dir, 'files')], core)
}

/** Two processes on one port, on the same core: what sharing costs. */
export async function startTwoTowerlights({ dir, core }: Place): Promise<BenchServer> {
  const script = new URL('serve-node.ts', import.meta.url).pathname
  return startScript('towerlight-2', script, [join(dir, 'files')], core, { BENCH_WORKERS: '1' })
}

export async function startPlainNode({ dir, core }: Place): Promise<BenchServer> {
  const script = new URL('serve-plain.ts', import.meta.url).pathname
  return startScript('node', script, [join(dir, 'files')], core)
}

export async function startNginx({ dir, core }: Place): Promise<BenchServer> {
  const [home, port] = [join(dir, 'nginx'), await freePort()]
  mkdirSync(home, { recursive: true })
  const server = `server { listen 127.0.0.1:${port}; location /data/bench/read/ { alias ${join(dir, 'files')}/; } }`
  writeFileSync(join(home, 'nginx.conf'), nginxConf(home, server))
  const child = pinned(core, ['nginx', '-c', join(home, 'nginx.conf')])
  await answers(port)
  return holding('nginx', port, Number(readFileSync(join(home, 'pid'), 'utf8')), child)
}

/**
 * A node that fills, evicts and scrubs while it serves. Its upstream is a link of some 16 MB/s, on the
 * clients' core.
 */
export async function startBusyTowerlight(
  { dir, core }: Place,
  originCore: number,
): Promise<BenchServer & { readonly reportPath: string }> {
  const [repository, home, port] = [join(dir, 'repository'), join(dir, 'origin'), await freePort()]
  for (const folder of [repository, home]) mkdirSync(folder)
  writeFileSync(
    join(home, 'nginx.conf'),
    nginxConf(home, `server { listen 127.0.0.1:${port}; root ${repository}; limit_rate 2m; }`),
  )
  await using stack = new AsyncDisposableStack()
  const origin = pinned(originCore, ['nginx', '-c', join(home, 'nginx.conf')])
  stack.use(holding('nginx', port, origin.pid as number, origin))
  const reportPath = join(dir, 'busy.json')
  const script = new URL('serve-node.ts', import.meta.url).pathname
  const env = {
    BENCH_BUSY: `http://127.0.0.1:${port}/`,
    BENCH_REPOSITORY: repository,
    BENCH_REPORT: reportPath,
  }
  const node = stack.use(await startScript('towerlight', script, [join(dir, 'files')], core, env))
  const kept = stack.move()
  return { ...node, reportPath, [Symbol.asyncDispose]: () => kept.disposeAsync() }
}

/**
 * Our generated configuration in front of a server. In front of `nginx` it is what proxying costs at least:
 * the trivial upstream that the node is compared with.
 */
export async function startFront({ dir, core }: Place, behind: BenchServer): Promise<BenchServer> {
  const [httpPort, httpsPort] = [await freePort(), await freePort()]
  const folder = join(dir, `front-of-${behind.name}`)
  mkdirSync(folder)
  const { config } = await writeNginx(
    {
      folder,
      names: ['127.0.0.1'],
      host: '127.0.0.1',
      httpPort,
      httpsPort,
      nodes: [`127.0.0.1:${behind.port}`],
      limits: { requestsPerSecond: 1_000_000, burst: 1_000_000, connections: 65_000 },
      workers: 1,
    },
    new Date(),
  )
  const child = pinned(core, ['nginx', '-c', config, '-g', 'daemon off;'])
  await answers(httpPort)
  const pid = Number(readFileSync(join(folder, 'nginx.pid'), 'utf8'))
  const name = behind.name === 'towerlight' ? 'towerlight-nginx' : 'nginx-nginx'
  return { ...holding(name, httpPort, pid, child), httpsPort, alsoPid: behind.pid }
}

/** In front of `nginx`, which it asks once for each object. */
export async function startVarnish(
  { dir, core }: Place,
  backend: BenchServer,
  memoryMb: number,
): Promise<BenchServer> {
  const port = await freePort()
  const args = [
    '-F',
    '-n',
    join(dir, 'varnish'),
    '-a',
    `127.0.0.1:${port}`,
    '-b',
    `127.0.0.1:${backend.port}`,
    '-s',
    `malloc,${memoryMb}m`,
    '-p',
    'default_ttl=86400',
  ]
  const child = pinned(core, ['varnishd', ...args])
  await answers(port)
  return holding('varnish', port, child.pid as number, child)
}

function nginxConf(home: string, server: string): string {
  const temps = ['client_body', 'proxy', 'fastcgi', 'uwsgi', 'scgi'].map(
    kind => `${kind}_temp_path ${home}/${kind};`,
  )
  return `worker_processes 1; daemon off; pid ${home}/pid; error_log ${home}/error.log;
events { worker_connections 8192; }
http {
  ${temps.join(' ')}
  access_log off; sendfile on; tcp_nopush off; keepalive_requests 1000000000; open_file_cache max=200000;
  ${server}
}
`
}

async function startScript(
  name: BenchServer['name'],
  script: string,
  args: readonly string[],
  core: number,
  env: NodeJS.ProcessEnv = {},
): Promise<BenchServer> {
  const child = pinned(core, [process.execPath, script, ...args], env)
  for await (const line of createInterface({ input: child.stdout! })) {
    if (line.startsWith('PORT ')) return holding(name, Number(line.slice(5)), child.pid as number, child)
  }
  throw new Error(`${name} did not start`)
}

function pinned(core: number, command: readonly string[], env: NodeJS.ProcessEnv = {}): ChildProcess {
  return spawn('taskset', ['-c', String(core), ...command], {
    env: { ...process.env, ...env },
    stdio: ['ignore', 'pipe', process.env.BENCH_VERBOSE ? 'inherit' : 'ignore'],
  })
}

function holding(name: BenchServer['name'], port: number, pid: number, child: ChildProcess): BenchServer {
  return {
    name,
    port,
    pid,
    async [Symbol.asyncDispose]() {
      if (child.exitCode !== null || child.signalCode !== null) return
      child.kill('SIGTERM')
      await once(child, 'exit')
    },
  }
}

export async function freePort(): Promise<number> {
  const server = createServer().listen(0, '127.0.0.1')
  await once(server, 'listening')
  const { port } = server.address() as { port: number }
  server.close()
  await once(server, 'close')
  return port
}

async function answers(port: number): Promise<void> {
  for (let tries = 0; tries < 100; tries++) {
    const up = await fetch(`http://127.0.0.1:${port}/`).then(
      response => response.arrayBuffer(),
      () => undefined,
    )
    if (up) return
    await new Promise(resolve => setTimeout(resolve, 50))
  }
  throw new EdgeError(
    'DEPENDENCY_ABSENT',
    `no server came up on port ${port}: are nginx and varnish installed?`,
  )
}
