/**
 * Request traces: CSV lines `time_seconds,key,size`, optionally gzipped (`../shared/data/traces`).
 * Held as columns; keys are renumbered densely in order of appearance.
 */
import { readFileSync } from 'node:fs'
import { basename } from 'node:path'
import { gunzipSync } from 'node:zlib'

export interface Trace {
  readonly name: string
  readonly seconds: Float64Array
  readonly key: Uint32Array
  readonly size: Float64Array
  readonly objects: number
  /** Sum of the objects' (last) sizes. */
  readonly footprintBytes: number
}

export function loadTrace(path: string): Trace {
  const stored = readFileSync(path)
  const lines = (path.endsWith('.gz') ? gunzipSync(stored) : stored).toString('latin1').split('\n')
  if (lines.at(-1) === '') lines.pop()
  const seconds = new Float64Array(lines.length)
  const key = new Uint32Array(lines.length)
  const size = new Float64Array(lines.length)
  const known = new Map<string, number>()
  const lastSize: number[] = []
  for (const [n, line] of lines.entries()) {
    const [time, name, bytes] = line.split(',')
    if (name === undefined || bytes === undefined) throw new Error(`${path}, line ${n + 1}: ${line}`)
    let id = known.get(name)
    if (id === undefined) known.set(name, (id = known.size))
    seconds[n] = Number(time)
    key[n] = id
    size[n] = Math.max(1, Number(bytes))
    lastSize[id] = size[n]
  }
  return {
    name: basename(path).replace(/\.csv(\.gz)?$/, ''),
    seconds,
    key,
    size,
    objects: known.size,
    footprintBytes: lastSize.reduce((sum, bytes) => sum + bytes, 0),
  }
}

/** The beginning of a trace, as a trace of its own. */
export function beginningOf(trace: Trace, requests: number): Trace {
  if (requests >= trace.key.length) return trace
  const key = trace.key.slice(0, requests)
  const size = trace.size.slice(0, requests)
  const objects = key.reduce((highest, each) => Math.max(highest, each), -1) + 1
  const lastSize = new Float64Array(objects)
  for (const [n, each] of key.entries()) lastSize[each] = size[n]!
  const footprintBytes = lastSize.reduce((sum, bytes) => sum + bytes, 0)
  return { ...trace, seconds: trace.seconds.slice(0, requests), key, size, objects, footprintBytes }
}

/** Gaps longer than this are days without a log, by trace; they are cut out of virtual time. */
const UNLOGGED_SECONDS: Record<string, number> = { 'cran-mirror-dec': 12 * 3600 }

/** The trace without the days that nobody logged. */
export function withoutUnlogged(trace: Trace): Trace {
  const gapMax = UNLOGGED_SECONDS[trace.name] ?? Infinity
  let cut = 0
  const seconds = trace.seconds.map((at, n) => {
    const gap = n === 0 ? 0 : at - trace.seconds[n - 1]!
    if (gap > gapMax) cut += gap
    return at - cut
  })
  return { ...trace, seconds }
}
