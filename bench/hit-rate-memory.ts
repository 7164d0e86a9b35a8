/**
 * What does the tier policy cost in memory and time with very many extents?
 *
 * Workload: that many residents of 4 MiB, then as many requests again for others, so that ghosts are
 * at their bound, then skewed requests that are timed; a checkpoint and a restore of all of it. Run
 * as `node --expose-gc bench/hit-rate-memory.ts [--extents 10000000]`; prints one JSON line. Bytes
 * are per resident, ghosts included, and per known extent: `table` is what the policy says of itself,
 * `rss` what the process grew by.
 */
import { availableParallelism, cpus } from 'node:os'
import { parseArgs } from 'node:util'
import { LearnedPolicy } from '../node/store/policy/learned-policy.ts'
import { randomOf } from './hit-rate/link-model.ts'

const { values } = parseArgs({ options: { extents: { type: 'string', default: '10000000' } } })
const extents = Number(values.extents)
const extentBytes = 4 * 1024 * 1024
const options = {
  capacityBytes: extents * extentBytes,
  hotBytesMax: (extents * extentBytes) / 5,
  journal: true,
}

globalThis.gc?.()
const rssBefore = process.memoryUsage.rss()
const policy = new LearnedPolicy(options)
const random = randomOf(1)
let second = 0
for (let key = 0; key < extents; key++) policy.request(key, extentBytes, second++)
for (let key = extents; key < 3 * extents; key++) policy.request(key, extentBytes, second++)
drain()

const timed = 2_000_000
const before = process.cpuUsage()
for (let n = 0; n < timed; n++) policy.request(Math.floor(3 * extents * random() ** 3), extentBytes, second++)
const { user, system } = process.cpuUsage(before)
const changesBytes = drain()

globalThis.gc?.()
const rss = process.memoryUsage.rss() - rssBefore
const usage = policy.usage()

const pieces: Uint8Array[] = []
const checkpointedMs = performance.now()
for (const piece of policy.checkpoint(50_000)) pieces.push(piece)
const checkpointMs = performance.now() - checkpointedMs
const restoredMs = performance.now()
const restored = new LearnedPolicy(options)
let restoreStepMsMax = 0
for (let began = performance.now(), restoring = restored.restore(pieces); !restoring.next().done; ) {
  restoreStepMsMax = Math.max(restoreStepMsMax, performance.now() - began)
  began = performance.now()
}
const restoreMs = performance.now() - restoredMs

console.log(
  JSON.stringify({
    bench: 'hit-memory',
    extents,
    residents: usage.residents,
    known: usage.known,
    tableBytesPerResident: round(usage.memoryBytes / usage.residents),
    rssBytesPerResident: round(rss / usage.residents),
    rssBytesPerKnown: round(rss / usage.known),
    cpuUsPerRequest: round((user + system) / timed),
    changesBytesPerRequest: round(changesBytes / timed),
    checkpointMb: round(pieces.reduce((sum, { length }) => sum + length, 0) / 1e6),
    checkpointMs: Math.round(checkpointMs),
    restoreMs: Math.round(restoreMs),
    restoreStepMsMax: Math.round(restoreStepMsMax),
    restoredResidents: restored.usage().residents,
    cpu: cpus()[0]?.model,
    cores: availableParallelism(),
    node: process.version,
  }),
)

/** As the store does once a second. */
function drain(): number {
  let bytes = 0
  for (let piece; (piece = policy.drainChanges(50_000)); ) bytes += piece.length
  return bytes
}

function round(n: number): number {
  return Math.round(n * 100) / 100
}
