/**
 * How near to the hardware's limit is a verified read, and what do the unverified ones cost?
 *
 * Workload: items of 1 KiB, 64 KiB, 1 MiB and 16 MiB; ranges of 64 KiB in one big item, at the chunks' own
 * borders (`range-aligned`) and anywhere (`range`); a Zipf mix over many small items. Each server on
 * one core, wrk on the other, over loopback, all in one run on the same bytes. What counts is CPU
 * per request, from the kernel's scheduler, all threads: other work on the machine disturbs it
 * least. Several short rounds, interleaved; the least of each is taken, as noise only adds.
 *
 * `ofBound` is the share of what a verified read must cost at least: (CPU of SHA-256 over the chunks
 * that cover the request + CPU of NGINX for the same request) / ours; 1 is the limit.
 *
 * `towerlight-2` (only when named) is the node with a worker, both on one core. `towerlight-nginx` is the node behind our NGINX on the same core, `nginx-nginx` that NGINX in front of a plain
 * one (CPU of both together); `…-h2` over TLS and HTTP/2, by h2load. `fairness`: 48 small clients beside 16 bulk ones; what the small ones wait, what the bulk ones lose.
 *
 * Run as `node bench/read.ts [--seconds 3] [--rounds 3] [--servers nginx,towerlight,towerlight-nginx,varnish,node] [--only 1k,64k]
 * [--big-mib 256] [--items 5000]`; one JSON line per server and workload.
 */
import { chmodSync, mkdirSync, mkdtempSync, rmSync } from 'node:fs'
import { availableParallelism, cpus, tmpdir } from 'node:os'
import { join } from 'node:path'
import { parseArgs } from 'node:util'
import { rssMbOf } from './read/cpu.ts'
import { type Load, type Measured, drive, driveHttp2 } from './read/load.ts'
import {
  type BenchServer,
  startFront,
  startNginx,
  startPlainNode,
  startTowerlight,
  startTwoTowerlights,
  startVarnish,
} from './read/servers.ts'
import { sha256Us } from './read/sha256.ts'
import { type Workload, workloads, writeFiles } from './read/workloads.ts'

const { values } = parseArgs({
  options: {
    seconds: { type: 'string', default: '3' },
    rounds: { type: 'string', default: '3' },
    servers: { type: 'string', default: 'nginx,towerlight,towerlight-nginx,varnish,node' },
    only: { type: 'string' },
    'big-mib': { type: 'string', default: '256' },
    items: { type: 'string', default: '5000' },
    seed: { type: 'string', default: '1' },
  },
})
for (const name of ['seconds', 'rounds', 'big-mib', 'items', 'seed'] as const) {
  if (!/^[1-9]\d*$/.test(values[name])) {
    console.error(`bench:read: --${name} takes a whole number of at least 1, not ${values[name]}`)
    process.exit(2)
  }
}
const [SERVER_CORE, CLIENT_CORE] = availableParallelism() > 1 ? [0, 1] : [0, 0]

await using stack = new AsyncDisposableStack()
const dir = mkdtempSync(join(tmpdir(), 'bench-read-'))
stack.defer(() => rmSync(dir, { recursive: true, force: true }))
chmodSync(dir, 0o755) // NGINX's workers are another user
mkdirSync(join(dir, 'files'))
const sizes = { bigMib: Number(values['big-mib']), items: Number(values.items), seed: Number(values.seed) }
writeFiles(join(dir, 'files'), sizes)

const place = { dir, core: SERVER_CORE }
const names = values.servers.split(',')
const nginx = stack.use(await startNginx(place))
const servers: BenchServer[] = []
if (names.includes('nginx')) servers.push(nginx)
const towerlight = names.some(name => name === 'towerlight' || name === 'towerlight-nginx')
  ? stack.use(await startTowerlight(place))
  : undefined
if (towerlight && names.includes('towerlight')) servers.push(towerlight)
if (towerlight && names.includes('towerlight-nginx')) {
  servers.push(stack.use(await startFront(place, towerlight)), stack.use(await startFront(place, nginx)))
}
if (names.includes('towerlight-2')) servers.push(stack.use(await startTwoTowerlights(place)))
if (names.includes('varnish')) servers.push(stack.use(await startVarnish(place, nginx, sizes.bigMib + 512)))
if (names.includes('node')) servers.push(stack.use(await startPlainNode(place)))

const chosen = values.only?.split(',')
for (const workload of workloads(join(dir, 'files'), sizes)) {
  if (!chosen || chosen.includes(workload.name)) await compare(workload)
}
if (!chosen || chosen.includes('fairness')) for (const server of servers) await fairness(server)

if (!chosen || chosen.includes('h2')) {
  for (const server of servers) {
    if (server.httpsPort === undefined) continue
    for (const workload of workloads(join(dir, 'files'), sizes)) {
      if (workload.name === '1k' || workload.name === '64k' || workload.name === '1m')
        await http2(server, server.httpsPort, workload)
    }
  }
}

/** The same small and middle items over TLS and HTTP/2. */
async function http2(server: BenchServer, httpsPort: number, workload: Workload): Promise<void> {
  const options = { seconds: Number(values.seconds), core: CLIENT_CORE, dir }
  const { requests, seconds, bodyBytes, cpuUsPerRequest, busy } = await driveHttp2(
    workload,
    { ...server, httpsPort },
    options,
  )
  console.log(
    JSON.stringify({
      bench: 'read',
      server: server.name,
      size: `${workload.name}-h2`,
      rps: Math.round(requests / seconds),
      mbps: rounded(bodyBytes / seconds / 1e6),
      cpuUs: rounded(cpuUsPerRequest),
      busy: rounded(busy, 2),
    }),
  )
}

/**
 * 48 clients of 1 KiB that think 10 to 40 ms, beside 16 that load 16 MiB after 16 MiB. The small ones go
 * first on the clients' core: what they wait for is the server, not the bulk ones' wrk.
 */
async function fairness(server: BenchServer): Promise<void> {
  const options = { seconds: Number(values.seconds), core: CLIENT_CORE, dir }
  const at = (name: string) => [{ path: `/data/bench/read/${name}` }]
  const bulk: Load = { name: 'bulk', requests: at('16m'), connections: 16 }
  const small: Load = { name: 'small', requests: at('1k'), connections: 48, thinkMs: [10, 40], urgent: true }
  const alone = await drive(bulk, server, options)
  const [beside, few] = await Promise.all([drive(bulk, server, options), drive(small, server, options)])
  const mbps = ({ bodyBytes, seconds }: Measured): number => rounded(bodyBytes / seconds / 1e6)
  console.log(
    JSON.stringify({
      bench: 'read',
      server: server.name,
      size: 'fairness',
      rps: Math.round(few.requests / few.seconds),
      p50ms: few.p50ms,
      p99ms: few.p99ms,
      mbps: mbps(beside),
      mbpsAlone: mbps(alone),
      bulkShare: rounded(mbps(beside) / mbps(alone), 2),
      rssMb: rounded(rssMbOf(server.pid)),
    }),
  )
}

async function compare(workload: Workload): Promise<void> {
  const best = new Map<BenchServer, Awaited<ReturnType<typeof drive>>>()
  for (let round = 0; round < Number(values.rounds); round++) {
    for (const server of servers) {
      const options = { seconds: Number(values.seconds), core: CLIENT_CORE, dir }
      const measured = await drive(workload, server, options)
      const before = best.get(server)
      if (!before || measured.cpuUsPerRequest < before.cpuUsPerRequest) best.set(server, measured)
    }
  }
  const hashUs = sha256Us(workload.hashedBytes)
  const nginxUs = best.get(nginx)?.cpuUsPerRequest
  for (const [server, measured] of best) {
    const { requests, seconds, bodyBytes, cpuUsPerRequest, busy, p50ms, p99ms } = measured
    const mib = bodyBytes / requests / 1024 / 1024
    console.log(
      JSON.stringify({
        bench: 'read',
        server: server.name,
        size: workload.name,
        rps: Math.round(requests / seconds),
        mbps: rounded(bodyBytes / seconds / 1e6),
        cpuUs: rounded(cpuUsPerRequest),
        cpuUsPerMiB: rounded(cpuUsPerRequest / mib),
        p50ms,
        p99ms,
        rssMb: rounded(rssMbOf(server.pid)),
        ...(nginxUs === undefined
          ? {}
          : {
              ofBound: server.name === 'nginx' ? undefined : rounded((hashUs + nginxUs) / cpuUsPerRequest, 3),
              timesNginx: rounded(cpuUsPerRequest / nginxUs, 2),
            }),
        sha256Us: rounded(hashUs),
        verified: server.name.startsWith('towerlight'),
        busy: rounded(busy, 2),
        connections: workload.connections,
        cpu: cpus()[0]?.model,
        node: process.version,
      }),
    )
  }
}

function rounded(value: number, digits = 1): number {
  return Number(value.toFixed(digits))
}
