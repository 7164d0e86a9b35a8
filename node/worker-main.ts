/**
 * A worker: one more process on the node's port, so that all cores serve. It only reads.
 *
 * Started by `workers.ts` with its settings as JSON. It verifies every byte by itself, from trust that it
 * reads again each second (the trust lease); what is not here, and all that is no
 * item, it hands over to the owner; a chunk that fails here the owner heals. It tells the owner which
 * items were read, which the tiers need to know, and what it counted, and ends with it.
 */
import { join } from 'node:path'
import { pino } from 'pino'
import { ENCODING_MEMORY_BYTES_MAX, Encodings } from './http/encoding/encodings.ts'
import { handOver } from './http/hand-over.ts'
import { createNodeServer } from './http/server.ts'
import type { Library, OpenItem } from './library.ts'
import { openLibrary } from './open-library.ts'
import { OwnerLine } from './owner-line.ts'
import { openStore } from './store/open-store.ts'
import { TrustStore } from './trust-store.ts'
import type { WorkerStart } from './workers.ts'

const RELOAD_MS = 500
const REPORT_MS = 1_000
/** Items named in one report; the most read ones are read again. */
const REPORT_ITEMS_MAX = 2_000

const settings = JSON.parse(process.argv[2] ?? '{}') as WorkerStart
const log = pino(
  { level: settings.logLevel, base: { worker: process.pid } },
  pino.destination({ dest: 2, sync: true }),
)
const { folder, warmFolder, hotBytesMax, warmBytesMax, reserveBytes } = settings
const owner = new OwnerLine()
const sizes = { hotBytesMax, warmBytesMax, reserveBytes }
const store = await openStore({ folder, warmFolder, ...sizes, mode: 'reader', healElsewhere: owner.heal })
const trust = new TrustStore(join(folder, 'trust-v1'))
await trust.reload()
const library = await openLibrary({ store, trust, mode: 'reader' })
/** Objects: their names are made when they are told, not at each read. */
const read = new Set<OpenItem>()
const server = createNodeServer(
  {
    library: noting(library),
    encodings: Encodings.reader({ folder, memoryBytesMax: ENCODING_MEMORY_BYTES_MAX }),
    handOver: (req, res) => handOver(req, res, settings.ownerSocket),
    log,
  },
  { memoryBytesMax: settings.memoryBytesMax },
)
const reload = setInterval(
  () => void trust.reload().catch(error => log.error({ err: error }, 'trust')),
  RELOAD_MS,
)
const report = setInterval(() => void tellOwner(), REPORT_MS)
await server.listen(settings.at)
owner.tell({ type: 'ready' })

process.once('disconnect', () => void stop())
process.on('SIGTERM', () => void stop())
process.on('SIGINT', () => {}) // Ctrl-C reaches the whole group: the owner decides

async function stop(): Promise<void> {
  clearInterval(reload)
  clearInterval(report)
  await server.close(settings.drainMs)
  await library[Symbol.asyncDispose]()
  await store[Symbol.asyncDispose]()
  process.exit(0)
}

function noting(inner: Library): Library {
  const note = (item: OpenItem): OpenItem => {
    if (read.size < REPORT_ITEMS_MAX) read.add(item)
    return item
  }
  return {
    datasets: () => inner.datasets(),
    open: (dataset, path) => note(inner.open(dataset, path)),
    openDigest: sha256 => note(inner.openDigest(sha256)),
    list: request => inner.list(request),
    retryAfterSeconds: item => inner.retryAfterSeconds(item),
  }
}

async function tellOwner(): Promise<void> {
  owner.tell({ type: 'counted', metrics: await server.metrics.registry.getMetricsAsJSON() })
  if (read.size === 0) return
  owner.tell({ type: 'read', items: Array.from(read, ({ dataset, path }) => `${dataset}/${path}`) })
  read.clear()
}
