/**
 * A fill worker: a process beside the owner that takes batches as BullMQ jobs and receives their
 * bytes, with connections and TLS of its own. Started by `fill-workers.ts`, which sends its settings first.
 *
 * Which batch is whose, what is stored and whether it is right is the owner's to say; this process
 * asks for each job and reads what it is told to. It may be killed at any time, and ends with the owner.
 */
import { once } from 'node:events'
import { isEdgeError } from '../manifests/errors.ts'
import { connectRedis, openBullWorker, type JobEnd } from './bull-job.ts'
import type { FillWorkerSettings } from './fill-workers.ts'
import { openHttpUpstream } from './http-upstream.ts'
import type { RemoteSettings, Upstream, WireRecord } from './upstream.ts'
import { AHEAD_BYTES, type FromWorker, type ToWorker } from './worker-upstream.ts'

const [settings] = (await once(process, 'message')) as [FillWorkerSettings]
const { redisUrl, prefix, concurrency, processes } = settings

interface Read {
  readonly stop: AbortController
  /** Sent and not used yet. */
  ahead: number
  more: () => void
}

const reads = new Map<number, Read>()
const taken = new Map<number, (end: JobEnd) => void>()
const upstreams = new Map<string, Upstream>()
let lastId = 0

process.on('message', (message: ToWorker) => {
  if (message.type === 'ran') taken.get(message.id)?.(message.end)
  else if (message.type === 'read') void answer(message)
  else if (message.type === 'took') tookOf(message.id, message.bytes)
  else reads.get(message.id)?.stop.abort(new Error('nobody wants it any more'))
})
process.once('disconnect', () => process.exit(0))
process.on('SIGINT', () => {}) // Ctrl-C reaches the whole group: the owner decides

const redis = connectRedis(redisUrl, { maxRetriesPerRequest: null })
openBullWorker({ prefix, redis }, Math.ceil(concurrency / processes), async job => {
  const id = ++lastId
  const { promise, resolve } = Promise.withResolvers<JobEnd>()
  taken.set(id, resolve)
  tell({ type: 'take', id, job })
  try {
    return await promise
  } finally {
    taken.delete(id)
  }
})
tell({ type: 'ready' })

async function answer({ id, from, path, span, ...options }: ToWorker & { type: 'read' }): Promise<void> {
  const stop = new AbortController()
  const read: Read = { stop, ahead: 0, more: () => {} }
  reads.set(id, read)
  const upstream = upstreamOf(from)
  const { purpose, urgent = false, skipBytesMax = Infinity } = options
  let error: { code: 'UPSTREAM_UNREACHABLE'; message: string } | undefined
  try {
    const until = { signal: stop.signal, purpose: { ...purpose, read: id }, urgent, skipBytesMax }
    for await (const bytes of upstream.readSpan(path, span, until)) {
      read.ahead += bytes.length
      tell({ type: 'part', id, bytes })
      while (read.ahead > AHEAD_BYTES && !stop.signal.aborted) {
        const { promise, resolve } = Promise.withResolvers<void>()
        read.more = resolve
        stop.signal.addEventListener('abort', () => resolve(), { once: true })
        await promise
      }
    }
  } catch (cause) {
    const message = cause instanceof Error ? cause.message : String(cause)
    error = { code: (isEdgeError(cause) ? cause.code : 'UPSTREAM_UNREACHABLE') as never, message }
  }
  reads.delete(id)
  tell({ type: 'end', id, pieceBytes: upstream.pieceBytes, error })
}

function tookOf(id: number, bytes: number): void {
  const read = reads.get(id)
  if (!read) return
  read.ahead -= bytes
  read.more()
}

/** The link's connections are shared out among the workers. */
function upstreamOf(from: RemoteSettings): Upstream {
  const key = JSON.stringify(from)
  let upstream = upstreams.get(key)
  if (!upstream) {
    const { url, ...settings } = from
    let connections = 0
    upstream = openHttpUpstream(new URL(url), {
      ...settings,
      connectionsMax: Math.ceil((settings.connectionsMax ?? 8) / processes),
      stall: settings.stall as never,
      onWire: record => {
        const { read, ...plain } = record as WireRecord & { read: number }
        const opened = (upstream?.wire.connections ?? 0) - connections
        connections += opened
        tell({ type: 'wire', id: read, record: plain, connections: opened })
      },
    })
    upstreams.set(key, upstream)
  }
  return upstream
}

function tell(message: FromWorker): void {
  if (process.connected) process.send?.(message, undefined, undefined, () => {}) // the owner has gone
}
