/**
 * The node's HTTP server: `node:http`, with the hot path taken before the framework.
 *
 * `/data/` and `/sha256/` items go straight to `ItemHandler`, `/repo/` to the repository view, what
 * the root hands in (`routes`: publishing, gateway, operators) to its handler, and everything else
 * to Hono, which is loaded when first needed. No handler can bring the process down: what it throws
 * becomes a problem, or an aborted connection once an answer has begun.
 */
import { once } from 'node:events'
import {
  type IncomingMessage,
  type RequestListener,
  type Server,
  type ServerResponse,
  createServer,
} from 'node:http'
import type { Logger } from 'pino'
import { EdgeError } from '../../manifests/errors.ts'
import type { ByteRange } from '../../manifests/extent.ts'
import type { Library, OpenItem } from '../library.ts'
import { AccessLog } from './access-log.ts'
import type { AppListener } from './app.ts'
import { BufferPool } from './buffer-pool.ts'
import { Connections } from './drain.ts'
import { EncodedAnswers } from './encoding/encoded-answers.ts'
import type { Encodings } from './encoding/encodings.ts'
import type { AnswerObserver } from './exchange.ts'
import { ItemHandler } from './item-handler.ts'
import { ItemSender } from './item-sender.ts'
import { MemoryTier } from './memory-tier.ts'
import { HttpMetrics } from './metrics.ts'
import { problem, problemOf, sendProblem } from './problem.ts'
import type { RenditionSource } from './rendition-handler.ts'
import { type RepoView, answerRepo } from './repo-handler.ts'
import { SendQueue } from './send-queue.ts'

/** A part of the URL space that somebody else answers, from `prefix` on. */
export interface Route {
  readonly prefix: string
  handle(req: IncomingMessage, res: ServerResponse): Promise<void> | void
}

export interface NodeServerParts {
  readonly library: Library
  /** `/repo/…`; 404 without. */
  readonly repo?: RepoView
  /** For `/api/v1/status` and `/status`: plain JSON about the rest of the node. */
  readonly status?: () => Readonly<Record<string, unknown>> | Promise<Readonly<Record<string, unknown>>>
  /** Whether verified bytes can be served; by default, whether any dataset has some here. */
  readonly ready?: () => boolean
  readonly routes?: readonly Route[]
  /** Compressed representations of text; everything goes out as it is without. */
  readonly encodings?: Encodings
  /** Smaller versions of pictures (`?w=`); the original without. */
  readonly renditions?: RenditionSource
  /**
   * In a worker: everything but items' bytes that are here goes to the process that owns the store.
   * Nothing of the answer has been sent.
   */
  readonly handOver?: (req: IncomingMessage, res: ServerResponse) => void
  readonly metrics?: HttpMetrics
  /** Somebody asked for bytes of an item, here or not: what planners learn from. */
  readonly onAsked?: (item: OpenItem) => void
  readonly log?: Logger
  readonly now?: () => number
}

export interface NodeServerLimits {
  readonly memoryBytesMax: number
  readonly transfersMax: number
  readonly connectionsMax: number
  readonly headerBytesMax: number
  readonly headersMax: number
  /** A request's head must be here by then, and all of it by `requestMs`. */
  readonly headersMs: number
  readonly requestMs: number
  readonly keepAliveMs: number
  /** A client that takes nothing for this long is dropped. */
  readonly stallMs: number
  readonly retryAfterSeconds: number
}

export const LIMITS: NodeServerLimits = {
  memoryBytesMax: 64 * 1024 * 1024,
  transfersMax: 4_096,
  connectionsMax: 8_192,
  headerBytesMax: 16 * 1024,
  headersMax: 100,
  headersMs: 10_000,
  requestMs: 30_000,
  keepAliveMs: 75_000, // longer than NGINX keeps its upstream connections (60 s), so it never writes into a closing one
  stallMs: 60_000,
  retryAfterSeconds: 300,
}

/** An address; or a socket that listens already, which systemd kept open while the node restarted. */
export type ListenAt =
  | { readonly port: number; readonly host?: string; readonly reusePort?: boolean }
  | { readonly fd: number }

export interface NodeServer extends AsyncDisposable {
  readonly server: Server
  readonly metrics: HttpMetrics
  /** @throws EdgeError `PORT_IN_USE` */
  listen(at: ListenAt): Promise<{ port: number }>
  /** Accepts nothing more, lets open answers finish for at most `drainMs`. */
  close(drainMs: number): Promise<void>
}

export function createNodeServer(parts: NodeServerParts, given: Partial<NodeServerLimits> = {}): NodeServer {
  const limits = { ...LIMITS, ...given }
  const metrics = parts.metrics ?? new HttpMetrics(undefined, parts.now)
  const accessLog = parts.log && new AccessLog(parts.log)
  const observer: AnswerObserver = {
    answered(req, status, source, bytes, seconds) {
      metrics.answered(status, source, bytes, seconds)
      accessLog?.answered(req, status, source, bytes, seconds)
    },
    fault(error) {
      metrics.fault(error)
      if (error instanceof EdgeError && error.code === 'CHUNK_ABSENT') return
      parts.log?.warn({ err: error }, 'a read failed')
    },
    read(item, outcome, ranges) {
      metrics.reads.count(item, outcome, bytesOf(item, ranges))
      if (outcome === 'memory') return
      item.used(ranges.length > 0 ? ranges : undefined)
      // a player that seeks asks for the same item many times
      if (ranges.length === 0 || ranges.some(({ first }) => first === 0)) parts.onAsked?.(item)
    },
    asked(item) {
      item.used()
      parts.onAsked?.(item)
    },
  }
  const memory = new MemoryTier(limits.memoryBytesMax)
  const pool = new BufferPool(16 * 1024 * 1024)
  const queue = new SendQueue(pool, { stallMs: limits.stallMs, onFault: error => observer.fault(error) })
  const { library, renditions, encodings, handOver, now = Date.now } = parts
  const { transfersMax, retryAfterSeconds } = limits
  const sender = new ItemSender({ library, memory, pool, queue, observer, transfersMax, handOver })
  const onSent = (coding: string, savedBytes: number): void => metrics.encoded(coding, savedBytes)
  const encoded = encodings && new EncodedAnswers({ encodings, sender, observer, onSent, handOver })
  const items = new ItemHandler({
    library,
    sender,
    observer,
    encoded,
    renditions,
    handOver,
    now,
    retryAfterSeconds,
  })

  const elsewhere = new Set<ServerResponse>()
  const server = createServer(
    {
      maxHeaderSize: limits.headerBytesMax,
      headersTimeout: limits.headersMs,
      requestTimeout: limits.requestMs,
      connectionsCheckingInterval: 1_000,
      keepAliveTimeout: limits.keepAliveMs,
    },
    (req, res) => {
      if (connections.draining) res.shouldKeepAlive = false
      listener(req, res)
    },
  )
  const connections = new Connections(server)
  const listener = listenerOf(parts, items, elsewhere, observer, metrics, limits)
  const close = async (drainMs: number): Promise<void> => {
    await connections.drain(drainMs, () => [
      ...queue.answers(),
      ...sender.waiting,
      ...items.rendering,
      ...(encoded?.waiting ?? []),
      ...elsewhere,
    ])
    queue[Symbol.dispose]()
    metrics[Symbol.dispose]()
  }
  server.maxConnections = limits.connectionsMax
  metrics.watch(server, { transfers: () => queue.active, memoryBytes: () => memory.bytes })
  return {
    server,
    metrics,
    listen: at => listen(server, at),
    close,
    [Symbol.asyncDispose]: () => close(0),
  }
}

/** @param ranges none: all of it. */
function bytesOf({ sizeBytes }: OpenItem, ranges: readonly ByteRange[]): number {
  if (ranges.length === 0) return sizeBytes
  return ranges.reduce((sum, { first, last }) => sum + last + 1 - first, 0)
}

function listenerOf(
  parts: NodeServerParts,
  items: ItemHandler,
  answers: Set<ServerResponse>,
  observer: AnswerObserver,
  metrics: HttpMetrics,
  limits: NodeServerLimits,
): RequestListener {
  const { repo, routes = [], handOver } = parts
  let rest: Promise<AppListener> | undefined
  const elsewhere = async (req: IncomingMessage, res: ServerResponse, url: string): Promise<void> => {
    if (handOver) return handOver(req, res)
    const route = routes.find(({ prefix }) => url.startsWith(prefix))
    if (route) return route.handle(req, res)
    if (repo && url.startsWith('/repo/')) return answerRepo(repo, req, res, url.split('?', 1)[0] as string)
    rest ??= import('./app.ts').then(({ createApp }) => createApp({ ...parts, metrics }))
    return (await rest)(req, res)
  }

  return (req, res) => {
    if (req.rawHeaders.length > 2 * limits.headersMax) {
      return sendProblem(
        res,
        problem(431, 'REQUEST_INVALID', `more than ${limits.headersMax} header fields`),
        ['Connection', 'close'],
      )
    }
    if (req.headers['transfer-encoding'] !== undefined && req.headers['transfer-encoding'] !== 'chunked') {
      // Read by us as no body, by somebody in front of us perhaps not (RFC 9112 §6.1).
      return sendProblem(res, problem(501, 'REQUEST_INVALID', 'this transfer coding is not known here'), [
        'Connection',
        'close',
      ])
    }
    try {
      const url = originForm(req.url ?? '/')
      if (url.startsWith('/data/') || url.startsWith('/sha256/')) {
        if (items.handle(req, res, url)) return
      }
      req.url = url
      const startedAt = performance.now()
      answers.add(res)
      res.once('close', () => answers.delete(res))
      res.once('close', () =>
        observer.answered(req, res.statusCode, 'none', 0, (performance.now() - startedAt) / 1000),
      )
      elsewhere(req, res, url).catch(error => failed(error, req, res, observer))
    } catch (error) {
      failed(error, req, res, observer)
    }
  }
}

/** Proxies may send `GET http://host/path` (RFC 9112 §3.2.2). */
function originForm(url: string): string {
  if (url.charCodeAt(0) === 0x2f) return url
  const absolute = /^https?:\/\/[^/?#]*([/?].*)?$/i.exec(url)
  if (!absolute) return url
  const rest = absolute[1] ?? '/'
  return rest.startsWith('/') ? rest : `/${rest}`
}

function failed(error: unknown, req: IncomingMessage, res: ServerResponse, observer: AnswerObserver): void {
  if (!(error instanceof EdgeError)) observer.fault(error)
  sendProblem(res, problemOf(error, req.url))
}

async function listen(server: Server, at: ListenAt): Promise<{ port: number }> {
  try {
    if ('fd' in at) server.listen({ fd: at.fd })
    else server.listen({ host: '127.0.0.1', reusePort: false, backlog: 1_024, ...at })
    await once(server, 'listening')
  } catch (cause) {
    if ('fd' in at || (cause as NodeJS.ErrnoException).code !== 'EADDRINUSE') throw cause
    const where = `port ${at.port} on ${at.host ?? '127.0.0.1'}`
    const what = `${where} is used by another program: choose another with TOWER_PORT, or 0 for any free one`
    throw new EdgeError('PORT_IN_USE', what, { cause })
  }
  const address = server.address()
  return { port: typeof address === 'object' && address ? address.port : 0 }
}
