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
 * `waited` is the share of the time that the server was ready and had no core: where it is not near 0, p99 says
 * what else ran on the machine.
 *
 * `busy` (only when named with --only): a node that fills, evicts and scrubs at the same time, 64 KiB ranges of a big item,
 * first as fast as it can, then at 70 % of that; `rangeP99Ms` is what one more client waits by tier, `firstByteMs`
 * (median) and `firstByteMsMax` how long the first byte of the big item takes then.
 *
 * `towerlight-2` (only when named) is the node with a worker, both on one core. `towerlight-nginx` is the node behind our NGINX on the same core, `nginx-nginx` that NGINX in front of a plain
 * one (CPU of both together); `…-h2` over TLS and HTTP/2, by h2load. `fairness`: 48 small clients beside 16 bulk ones; what the small ones wait, what the bulk ones lose.
 *
 * Run as `node bench/read.ts [--seconds 3] [--rounds 3] [--servers nginx,towerlight,towerlight-nginx,varnish,node] [--only 1k,64k]
 * [--big-mib 256] [--items 5000]`; one JSON line per server and workload.
 */
import { chmodSync, existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { availableParallelism, cpus, tmpdir } from 'node:os'
import { join } from 'node:path'
import { parseArgs } from 'node:util'
import { rssMbOf } from './read/cpu.ts'
import { type Load, type Measured, drive, driveHttp2 } from './read/load.ts'
import {
  type BenchServer,
  startBusyTowerlight,
  startFront,
  startNginx,
  startPlainNode,
  startTowerlight,
  startTwoTowerlights,
  startVarnish,
} from './read/servers.ts'
import { probeFor } from './read/probes.ts'
import { sha256Us } from './read/sha256.ts'
import { OLD_BYTES } from './read/busy.ts'
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

if (chosen?.includes('busy')) await busy()
if (!chosen || chosen.includes('h2')) {
  for (const server of servers) {
    if (server.httpsPort === undefined) continue
    for (const workload of workloads(join(dir, 'files'), sizes)) {
      if (workload.name === '1k' || workload.name === '64k' || workload.name === '1m')
        await http2(server, server.httpsPort, workload)
    }
  }
}

/** What readers wait while the node has other work. Ranges never come from memory. */
async function busy(): Promise<void> {
  await using server = await startBusyTowerlight(place, CLIENT_CORE)
  const ranges = [...workloads(join(dir, 'files'), sizes)].find(({ name }) => name === 'range')!
  const options = { seconds: Number(values.seconds), core: CLIENT_CORE, dir }
  const reported = (): Record<string, number> =>
    existsSync(server.reportPath) ? JSON.parse(readFileSync(server.reportPath, 'utf8')) : {}
  while ((reported()['bench/old'] ?? 0) >= OLD_BYTES || !reported()['bench/churn'])
    await drive(ranges, server, { ...options, seconds: 1 }) // until it has to evict; slowly, with readers about
  const most = await drive(ranges, server, options)
  const connections = 64
  const rate = (0.7 * most.requests) / most.seconds
  const thinkMs = (1000 * connections) / rate
  const between = [Math.floor(thinkMs / 2), Math.ceil(thinkMs * 1.5)] as const
  const before = reported()
  const tiersBefore = await tiersOf(server.port)
  const big = `http://127.0.0.1:${server.port}/data/bench/read/big`
  const [measured, probes] = await Promise.all([
    drive({ ...ranges, name: 'busy', connections, thinkMs: between }, server, options),
    probeFor(big, sizes.bigMib * 1024 * 1024, options.seconds),
  ])
  const [after, tiers] = [reported(), await tiersOf(server.port)]
  if (after['bench/churn'] === before['bench/churn'])
    throw new Error('the fill had ended before the measurement began: fewer --seconds')
  const mib = (dataset: string): number => rounded(((after[dataset] ?? 0) - (before[dataset] ?? 0)) / 1048576)
  console.log(
    JSON.stringify({
      bench: 'read',
      server: server.name,
      size: 'busy',
      rpsMost: Math.round(most.requests / most.seconds),
      rps: Math.round(measured.requests / measured.seconds),
      p50ms: measured.p50ms,
      p99ms: measured.p99ms,
      firstByteMs: rounded(quantile(probes.firstByteMs, 0.5)),
      firstByteMsMax: rounded(Math.max(...probes.firstByteMs)),
      rangeP99Ms: Object.fromEntries(
        Object.entries(probes.rangeMs).map(([tier, tookMs]) => [tier, rounded(quantile(tookMs, 0.99))]),
      ),
      filledMiB: mib('bench/churn'),
      evictedMiB: -mib('bench/old'),
      hot: tiers.hot - tiersBefore.hot,
      warm: tiers.warm - tiersBefore.warm,
      busy: rounded(measured.busy, 2),
      waited: rounded(measured.waited, 2),
      rssMb: rounded(rssMbOf(server.pid)),
    }),
  )
}

/** Answers so far. */
async function tiersOf(port: number): Promise<{ hot: number; warm: number }> {
  const text = await (await fetch(`http://127.0.0.1:${port}/metrics`)).text()
  const of = (tier: string): number =>
    Number(new RegExp(`request_seconds_count\\{tier="${tier}",status="206"\\} (\\d+)`).exec(text)?.[1] ?? 0)
  return { hot: of('hot'), warm: of('warm') }
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
      waited: rounded(beside.waited, 2),
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
  const usOf = (name: string): number | undefined =>
    [...best].find(([server]) => server.name === name)?.[1].cpuUsPerRequest
  for (const [server, measured] of best) {
    const { requests, seconds, bodyBytes, cpuUsPerRequest, busy, waited, p50ms, p99ms } = measured
    const mib = bodyBytes / requests / 1024 / 1024
    // Behind a proxy the bound is the proxy in front of the plain one.
    const isBehind = server.name.endsWith('-nginx')
    const nginxUs = usOf(isBehind ? 'nginx-nginx' : 'nginx')
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
              ofBound: server.name.startsWith('nginx')
                ? undefined
                : rounded((hashUs + nginxUs) / cpuUsPerRequest, 3),
              timesNginx: rounded(cpuUsPerRequest / nginxUs, 2),
            }),
        sha256Us: rounded(hashUs),
        verified: server.name.startsWith('towerlight'),
        busy: rounded(busy, 2),
        waited: rounded(waited, 2),
        connections: workload.connections,
        cpu: cpus()[0]?.model,
        node: process.version,
      }),
    )
  }
}

function quantile(values: readonly number[], share: number): number {
  return values.toSorted((a, b) => a - b)[Math.floor(values.length * share)] ?? Number.NaN
}

function rounded(value: number, digits = 1): number {
  return Number(value.toFixed(digits))
}
