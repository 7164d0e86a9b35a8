/**
 * Load by wrk, pinned to the clients' core: which requests, how many connections, and what came of it.
 */
import { execFile } from 'node:child_process'
import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { promisify } from 'node:util'
import { EdgeError } from '../../manifests/errors.ts'
import { cpuSecondsOf, waitSecondsOf } from './cpu.ts'

const run = promisify(execFile)

export interface Load {
  readonly name: string
  /** Drawn from in order of the random numbers of `seed`; `range` as in a Range field. */
  readonly requests: readonly { readonly path: string; readonly range?: string }[]
  readonly connections: number
  /** Each client waits this long between its requests, at random. */
  readonly thinkMs?: readonly [least: number, most: number]
  /** Before other loads on the same core, where this user may ask for that. */
  readonly urgent?: boolean
}

export interface Measured {
  readonly requests: number
  readonly seconds: number
  readonly bodyBytes: number
  readonly cpuUsPerRequest: number
  /** Share of the time that the server was on a CPU: the load saturates it from about 0.9 on. */
  readonly busy: number
  /** Share of the time that it waited for its core, its threads added up: from about 0.1 on, others disturbed what was measured. */
  readonly waited: number
  readonly p50ms: number
  readonly p99ms: number
}

/** @throws EdgeError `DEPENDENCY_ABSENT`, or an Error when any answer was not a success. */
export async function drive(
  load: Load,
  server: { readonly port: number; readonly pid: number; readonly alsoPid?: number },
  options: { readonly seconds: number; readonly core: number; readonly dir: string },
): Promise<Measured> {
  const script = join(options.dir, `load-${load.name}.lua`)
  writeFileSync(script, luaOf(load))
  const args = [
    '-c',
    String(options.core),
    ...(load.urgent ? ['nice', '-n', '-20'] : []),
    'wrk',
    '-t1',
    `-c${load.connections}`,
    `-d${options.seconds}s`,
    '--timeout=10s',
    '-s',
    script,
    `http://127.0.0.1:${server.port}/`,
  ]
  const cpuOf = () => cpuSecondsOf(server.pid) + (server.alsoPid ? cpuSecondsOf(server.alsoPid) : 0)
  const cpuBefore = cpuOf()
  const waitedBefore = waitSecondsOf(server.pid)
  const startedMs = performance.now()
  const { stdout } = await run('taskset', args).catch(cause => {
    throw new EdgeError('DEPENDENCY_ABSENT', 'wrk and taskset are needed: apt-get install wrk util-linux', {
      cause,
    })
  })
  const wall = (performance.now() - startedMs) / 1000
  const cpu = cpuOf() - cpuBefore
  const line = stdout.split('\n').find(each => each.startsWith('RESULT '))
  if (!line) throw new Error(`wrk said: ${stdout.slice(0, 500)}`)
  const [requests, durationUs, bytes, failed, p50us, p99us] = line.slice(7).split(' ').map(Number) as [
    number,
    number,
    number,
    number,
    number,
    number,
  ]
  if (failed > 0 || requests === 0) throw new Error(`${load.name}: ${failed} of ${requests} answers failed`)
  return {
    requests,
    seconds: durationUs / 1e6,
    bodyBytes: bytes,
    cpuUsPerRequest: (cpu * 1e6) / requests,
    busy: cpu / wall,
    waited: (waitSecondsOf(server.pid) - waitedBefore) / wall,
    p50ms: p50us / 1000,
    p99ms: p99us / 1000,
  }
}

function luaOf({ requests, thinkMs }: Load): string {
  const table = requests
    .map(
      ({ path, range }) =>
        `{${JSON.stringify(path)},${range === undefined ? 'nil' : JSON.stringify(`bytes=${range}`)}}`,
    )
    .join(',\n')
  return `
local list = {${table}}
local made = {}
local next = 0
init = function(args)
  for i, each in ipairs(list) do
    local headers = {}
    if each[2] then headers["Range"] = each[2] end
    made[i] = wrk.format("GET", each[1], headers)
  end
end
request = function()
  next = next + 1
  if next > #made then next = 1 end
  return made[next]
end
${thinkMs ? `delay = function() return math.random(${thinkMs[0]}, ${thinkMs[1]}) end` : ''}
done = function(summary, latency, requests)
  local e = summary.errors
  io.write(string.format("RESULT %d %d %d %d %d %d\\n", summary.requests, summary.duration, summary.bytes,
    e.connect + e.read + e.write + e.status + e.timeout, latency:percentile(50), latency:percentile(99)))
end
`
}

/** Over TLS and HTTP/2, by h2load: what a request costs the server there. */
export async function driveHttp2(
  load: Load,
  server: { readonly httpsPort: number; readonly pid: number; readonly alsoPid?: number },
  options: { readonly seconds: number; readonly core: number; readonly dir: string },
): Promise<Pick<Measured, 'requests' | 'seconds' | 'bodyBytes' | 'cpuUsPerRequest' | 'busy'>> {
  const uris = join(options.dir, `uris-${load.name}`)
  writeFileSync(
    uris,
    load.requests.map(({ path }) => `https://127.0.0.1:${server.httpsPort}${path}`).join('\n'),
  )
  const cpuOf = () => cpuSecondsOf(server.pid) + (server.alsoPid ? cpuSecondsOf(server.alsoPid) : 0)
  const cpuBefore = cpuOf()
  const startedMs = performance.now()
  const streams = Math.max(1, load.connections / 4)
  const args = [
    '-c',
    String(options.core),
    'h2load',
    '-c4',
    `-m${streams}`,
    `-D${options.seconds}`,
    '-i',
    uris,
  ]
  const { stdout } = await run('taskset', args).catch(cause => {
    throw new EdgeError('DEPENDENCY_ABSENT', 'h2load is needed: apt-get install nghttp2-client', { cause })
  })
  const wall = (performance.now() - startedMs) / 1000
  const cpu = cpuOf() - cpuBefore
  const [, requests = '0', failed = '0'] = /requests: .* (\d+) succeeded, (\d+) failed/.exec(stdout) ?? []
  const [, bytes = '0'] = /traffic: .*?\((\d+)\) total/.exec(stdout) ?? []
  if (Number(failed) > 0 || Number(requests) === 0) throw new Error(`h2load said: ${stdout.slice(-800)}`)
  return {
    requests: Number(requests),
    seconds: options.seconds,
    bodyBytes: Number(bytes),
    cpuUsPerRequest: (cpu * 1e6) / Number(requests),
    busy: cpu / wall,
  }
}
