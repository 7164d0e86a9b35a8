/**
 * Real NGINX `proxy_cache` and real Varnish, given a trace's requests one by one, over unix sockets,
 * with an origin that is only up while a window is open. A hit is an answer that the origin did not
 * have to give.
 *
 * Sizes are divided so that the volume is bearable; each rival gets the capacity in its own units
 * (NGINX counts file system blocks, Varnish its headers), so that small sizes are not held against
 * it. NGINX evicts in wall time, every ten seconds: its cache manager is restarted, which makes it
 * evict at once, whenever 5 % of the capacity has come in.
 */
import { spawn, type ChildProcess } from 'node:child_process'
import { once } from 'node:events'
import { existsSync } from 'node:fs'
import { lstat, mkdtemp, mkdir, readdir, readFile, rm, statfs, writeFile } from 'node:fs/promises'
import { Agent, createServer, get, type Server } from 'node:http'
import { connect } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import type { Trace } from '../trace.ts'
import type { ContactWindow } from './link-model.ts'
import { Tally, type Ratios } from './tally.ts'

export type RivalName = 'nginx' | 'varnish'

interface Rival extends AsyncDisposable {
  readonly socketPath: string
  /** Bytes that an object of so many takes of the rival's capacity. */
  costOf(sizeBytes: number): number
  /** Called after each fetch; resolves when the cache is within its capacity again. */
  fetched(costBytes: number): Promise<void>
}

/** Total volume that a run may have. */
const VOLUME_MAX = 2e9
const START_MS_MAX = 10_000

/** @returns undefined when the rival is not installed. */
export async function runRival(
  name: RivalName,
  trace: Trace,
  capacityBytes: number,
  windows: readonly ContactWindow[] | undefined,
  onRequest?: (hit: boolean) => void,
): Promise<(Ratios & { readonly sizesDividedBy: number }) | undefined> {
  if (!existsSync(PROGRAMS[name])) return undefined
  const volume = trace.size.reduce((sum, size) => sum + size, 0)
  // traces whose sizes are all 1 get bodies that one block holds
  const unit = trace.footprintBytes === trace.objects
  const divisor = unit ? 1 / 3000 : Math.max(1, 2 ** Math.ceil(Math.log2(volume / VOLUME_MAX)))
  const bodyOf = (size: number) => Math.max(1, Math.round(size / divisor))

  await using stack = new AsyncDisposableStack()
  const folder = await mkdtemp(join(existsSync('/dev/shm') ? '/dev/shm' : tmpdir(), 'rival-'))
  stack.defer(() => rm(folder, { recursive: true, force: true }))
  const origin = stack.use(await openOrigin(join(folder, 'origin.sock')))
  const start = name === 'nginx' ? startNginx : startVarnish
  const probe = name === 'nginx' ? nginxCost((await statfs(folder)).bsize) : varnishCost
  const inItsUnits = costPerByte(trace, bodyOf, probe)
  const rival = stack.use(await start(folder, Math.ceil((capacityBytes / divisor) * inItsUnits)))
  const agent = new Agent({ keepAlive: true, maxSockets: 1 })
  stack.defer(() => agent.destroy())

  const tally = new Tally()
  const span = trace.seconds.at(-1)! - trace.seconds[0]!
  const countFrom = windows ? trace.seconds[0]! + span / 10 : -Infinity
  let next = 0
  for (const [n, key] of trace.key.entries()) {
    const seconds = trace.seconds[n]!
    if (windows) {
      while (windows[next] && windows[next]!.toSeconds <= seconds) next++
      origin.up = (windows[next]?.fromSeconds ?? Infinity) <= seconds
    }
    const body = bodyOf(trace.size[n]!)
    const before = origin.asked
    const status = await statusOf(rival.socketPath, `/${key}/${body}`, agent)
    const hit = status === 200 && origin.asked === before
    if (seconds >= countFrom) tally.count(hit, trace.size[n]!)
    onRequest?.(hit)
    if (status === 200 && !hit) await rival.fetched(rival.costOf(body))
  }
  return { ...tally.ratios, sizesDividedBy: divisor }
}

const PROGRAMS: Readonly<Record<RivalName, string>> = {
  nginx: '/usr/sbin/nginx',
  varnish: '/usr/sbin/varnishd',
}

/** How much larger the trace's objects are in the rival's units. */
function costPerByte(
  trace: Trace,
  bodyOf: (size: number) => number,
  costOf: (body: number) => number,
): number {
  const sizes = new Map<number, number>()
  for (const [n, key] of trace.key.entries()) sizes.set(key, bodyOf(trace.size[n]!))
  let bytes = 0
  let cost = 0
  for (const body of sizes.values()) {
    bytes += body
    cost += costOf(body)
  }
  return cost / bytes
}

// ── the origin ────────────────────────────────────────────────────────────────────────────────────

interface Origin extends AsyncDisposable {
  up: boolean
  asked: number
}

async function openOrigin(socketPath: string): Promise<Origin> {
  const zeros = Buffer.alloc(1 << 20)
  const origin = { up: true, asked: 0, [Symbol.asyncDispose]: async () => closed(server) }
  const server = createServer((request, response) => {
    origin.asked++
    if (!origin.up) {
      response.writeHead(503, { 'content-length': 0 }).end()
      return
    }
    const length = Number(request.url!.split('/')[2])
    response.writeHead(200, { 'content-length': length, 'cache-control': 'max-age=315360000' })
    for (let left = length; left > 0; left -= zeros.length) {
      response.write(left >= zeros.length ? zeros : zeros.subarray(0, left))
    }
    response.end()
  })
  server.listen(socketPath)
  await once(server, 'listening')
  return origin
}

async function closed(server: Server): Promise<void> {
  server.closeAllConnections()
  server.close()
  await once(server, 'close')
}

/** 0 when the answer broke off. */
function statusOf(socketPath: string, path: string, agent: Agent): Promise<number> {
  return new Promise(resolve => {
    get({ socketPath, path, agent, headers: { host: 'tower' } }, response => {
      response.resume()
      response.on('end', () => resolve(response.statusCode!))
      response.on('error', () => resolve(0))
    }).on('error', () => resolve(0))
  })
}

// ── the rivals ────────────────────────────────────────────────────────────────────────────────────

/** A cached answer's header in NGINX's file. */
const NGINX_HEAD_BYTES = 400

function nginxCost(blockBytes: number): (body: number) => number {
  return body => Math.ceil((body + NGINX_HEAD_BYTES) / blockBytes) * blockBytes
}

async function startNginx(folder: string, capacityBytes: number): Promise<Rival> {
  const cache = join(folder, 'cache')
  const socketPath = join(folder, 'nginx.sock')
  await mkdir(cache)
  const config = join(folder, 'nginx.conf')
  await writeFile(
    config,
    `daemon off; worker_processes 1; pid ${folder}/pid; error_log ${folder}/error.log warn;
    ${process.getuid?.() === 0 ? 'user root;' : ''}
    events { worker_connections 64; }
    http {
      access_log off;
      client_body_temp_path ${folder}/b; proxy_temp_path ${folder}/p; fastcgi_temp_path ${folder}/f;
      uwsgi_temp_path ${folder}/u; scgi_temp_path ${folder}/s;
      proxy_cache_path ${cache} levels=1:2 keys_zone=z:64m max_size=${capacityBytes} inactive=3650d
        use_temp_path=off manager_files=100000 manager_threshold=10s;
      server {
        listen unix:${socketPath};
        location / {
          proxy_pass http://unix:${folder}/origin.sock:$request_uri;
          proxy_http_version 1.1; proxy_set_header Connection "";
          proxy_cache z; proxy_cache_key $uri; proxy_cache_valid 200 3650d;
        }
      }
    }`,
  )
  const child = spawn(PROGRAMS.nginx, ['-p', folder, '-c', config], { stdio: 'ignore' })
  await ready(child, socketPath)

  const costOf = nginxCost((await statfs(folder)).bsize)
  let sinceSwept = 0
  return {
    socketPath,
    costOf,
    async fetched(costBytes) {
      sinceSwept += costBytes
      if (sinceSwept < capacityBytes / 20) return
      sinceSwept = 0
      for (let polls = 0; (await bytesIn(cache)) > capacityBytes; polls++) {
        // a new manager evicts first of all; it needs a moment to do so
        if (polls % 50 === 0) await killChild(child.pid!, 'cache manager')
        await sleep(20)
      }
    },
    [Symbol.asyncDispose]: () => stopped(child),
  }
}

/** Varnish allocates these per object beside the body (object core, headers). */
const VARNISH_OBJECT_BYTES = 1024

function varnishCost(body: number): number {
  return body + VARNISH_OBJECT_BYTES
}

async function startVarnish(folder: string, capacityBytes: number): Promise<Rival> {
  const socketPath = join(folder, 'varnish.sock')
  const vcl = join(folder, 'tower.vcl')
  await writeFile(
    vcl,
    `vcl 4.1;
    import std;
    backend origin { .path = "${folder}/origin.sock"; }
    sub vcl_backend_response {
      set beresp.grace = 0s; set beresp.keep = 0s;
      if (beresp.status == 200 && std.integer(beresp.http.content-length, 0) < ${Math.floor(capacityBytes * 0.9)}) { set beresp.ttl = 3650d; } else { set beresp.uncacheable = true; set beresp.ttl = 0s; }
    }`,
  )
  const child = spawn(
    PROGRAMS.varnish,
    [
      ...['-F', '-j', 'none', '-n', join(folder, 'varnish'), '-a', socketPath, '-f', vcl],
      ...['-s', `malloc,${capacityBytes}`, '-p', 'nuke_limit=1000000', '-p', 'shortlived=0'],
    ],
    { stdio: 'ignore' },
  )
  await ready(child, socketPath)
  return {
    socketPath,
    costOf: varnishCost,
    fetched: async () => undefined,
    [Symbol.asyncDispose]: () => stopped(child),
  }
}

async function ready(child: ChildProcess, socketPath: string): Promise<void> {
  for (const deadline = Date.now() + START_MS_MAX; !(await accepts(socketPath)); await sleep(20)) {
    if (child.exitCode !== null || Date.now() > deadline) throw new Error(`${child.spawnfile} does not start`)
  }
}

function accepts(socketPath: string): Promise<boolean> {
  return new Promise(resolve => {
    const socket = connect(socketPath)
    socket.on('connect', () => resolve(true)).on('error', () => resolve(false))
    socket.on('connect', () => socket.destroy())
  })
}

async function stopped(child: ChildProcess): Promise<void> {
  if (child.exitCode !== null) return
  child.kill('SIGTERM')
  await once(child, 'exit')
}

async function killChild(parent: number, name: string): Promise<void> {
  const children = await readFile(`/proc/${parent}/task/${parent}/children`, 'utf8')
  for (const pid of children.trim().split(' ')) {
    const command = await readFile(`/proc/${pid}/cmdline`, 'utf8').catch(() => '')
    if (command.includes(name)) process.kill(Number(pid), 'SIGTERM')
  }
}

/** As NGINX counts: blocks in use. */
async function bytesIn(folder: string): Promise<number> {
  let bytes = 0
  for (const entry of await readdir(folder, { recursive: true, withFileTypes: true })) {
    if (!entry.isFile()) continue
    const file = await lstat(join(entry.parentPath, entry.name)).catch(() => undefined)
    bytes += (file?.blocks ?? 0) * 512
  }
  return bytes
}
