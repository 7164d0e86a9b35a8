/**
 * The node: one process that owns the store, serves it over HTTP, answers commands on its control
 * socket, and keeps itself filled. What needs a network runs beside serving and never before it (I6).
 */
import { createServer, type Server } from 'node:http'
import { once } from 'node:events'
import { readFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { pathToFileURL } from 'node:url'
import { setTimeout as sleep } from 'node:timers/promises'
import { pino, type Logger } from 'pino'
import { type Cid, codecOf, digestOf } from '../manifests/cid.ts'
import { EdgeError, isEdgeError } from '../manifests/errors.ts'
import type { Abortable } from '../manifests/extent.ts'
import { folderStorage } from '../manifests/publish/folder-storage.ts'
import type { FillEvent } from '../warmers/fill-once.ts'
import { controlSocketOf, ownerMethods, statusOf } from './cli/owner-methods.ts'
import type { NodeConfig } from './config.ts'
import { serveControl } from './control.ts'
import { type GatewayParts, ipfsGateway } from './gateway/ipfs-gateway.ts'
import { inheritedSocketOf } from './http/inherited-socket.ts'
import { problemOf, sendProblem } from './http/problem.ts'
import { createNodeServer } from './http/server.ts'
import { openOwner, type Owner } from './owner.ts'
import { packView } from './pack-view.ts'
import { publishReceiver } from './publish/receiver.ts'
import { joinedRepoView, trustRepoView } from './repo-view.ts'

export interface RunningNode extends AsyncDisposable {
  /** `http://127.0.0.1:8080/` */
  readonly url: string
  readonly owner: Owner
  fill(options: Abortable): AsyncGenerator<FillEvent>
}

const UPLOAD_BYTES_MAX = 1024 ** 3
/** After a failed look for news; doubles up to the usual time between looks. */
const RETRY_MS_MIN = 5000

/**
 * Serves as soon as it returns; what the store needs in the background goes on.
 * @throws EdgeError `STORE_…`, `PORT_IN_USE`, `CONFIG_INVALID`
 */
export async function startNode(
  given: NodeConfig,
  log: Logger = pino({ level: given.logLevel }),
): Promise<RunningNode> {
  const startedAtMs = Date.now()
  await using stack = new AsyncDisposableStack()
  const repository = join(given.data, 'repository')
  const receives = given.admin !== undefined && given.upstream.length === 0
  const config = receives ? { ...given, upstream: [pathToFileURL(`${repository}/`).href] } : given
  const owner = stack.use(await openOwner(config))
  const stop = new AbortController()
  const news = new News()

  const server = createNodeServer(
    {
      library: owner.library,
      repo: joinedRepoView(trustRepoView(owner.trust), packView(repository)),
      routes: [ipfsGateway(gatewayParts(owner))],
      status: () => ({ ...statusOf(owner, undefined, startedAtMs) }),
      log,
    },
    { memoryBytesMax: config.memoryBytesMax },
  )
  stack.defer(() => server.close(config.drainMs))
  const fd = inheritedSocketOf(process.env, process.pid)
  const { port } = await server.listen(fd === undefined ? { port: config.port, host: config.host } : { fd })
  const url = `http://${config.host.includes(':') ? `[${config.host}]` : config.host}:${port}/`
  if (receives) stack.use(await listenForReleases(owner, repository, config, news))
  stack.use(await serveControl(controlSocketOf(config, tmpdir()), ownerMethods(owner, url, startedAtMs)))

  const keeping =
    config.upstream.length > 0 ? keepFilled(owner, config, news, log, stop.signal) : Promise.resolve()
  stack.defer(async () => {
    stop.abort(new Error('the node stops'))
    await keeping
  })
  log.info({ url, data: config.data, upstreams: config.upstream.length }, 'serving')
  const kept = stack.move()
  return {
    url,
    owner,
    fill: options => owner.fill({}, options),
    [Symbol.asyncDispose]: () => kept.disposeAsync(),
  }
}

/** Blocks that the store has; a raw block is an item, whose denial and media type its catalog knows. */
function gatewayParts({ store, library }: Owner): GatewayParts {
  const itemOf = (cid: Cid) => (codecOf(cid) === 'raw' ? library.openDigest(digestOf(cid)) : undefined)
  return {
    blocks: {
      async block(cid, options) {
        if (codecOf(cid) !== 'raw') return store.node(cid)
        return store.has(cid) ? await store.readExtent(cid, options) : undefined
      },
    },
    isDenied: cid => {
      try {
        itemOf(cid)
        return false
      } catch (error) {
        return isEdgeError(error, 'ITEM_DENIED')
      }
    },
    mediaTypeOf(cid) {
      try {
        return itemOf(cid)?.mediaType
      } catch {
        return undefined // a block that is no item by itself
      }
    },
  }
}

/** Looks for news now and then, and when told that there are some. A failure is logged and passes. */
async function keepFilled(
  owner: Owner,
  config: NodeConfig,
  news: News,
  log: Logger,
  signal: AbortSignal,
): Promise<void> {
  const usualMs = config.refreshSeconds * 1000
  let waitMs = usualMs
  while (!signal.aborted) {
    await news.wait(waitMs, signal)
    if (signal.aborted) return
    try {
      for await (const event of owner.fill({}, { signal })) logEvent(log, event)
      waitMs = usualMs
    } catch (error) {
      if (signal.aborted) return
      waitMs = waitMs === usualMs ? Math.min(RETRY_MS_MIN, usualMs) : Math.min(usualMs, waitMs * 2)
      if (isEdgeError(error)) log.warn({ code: error.code, againInSeconds: waitMs / 1000 }, error.message)
      else log.error({ err: error }, 'a fill failed')
    }
  }
}

function logEvent(log: Logger, event: FillEvent): void {
  const { type } = event
  if (type === 'activated')
    log.info({ dataset: event.dataset, revision: event.revision }, 'a new release is served')
  else if (type === 'failed' || type === 'fallback') log.warn(event, `fill: ${event.message}`)
  else if (type === 'done' && event.contentBytes > 0) log.info(event, 'filled')
}

/** Something to wait for, with a bound. */
class News {
  #arrived = Promise.withResolvers<void>()

  tell(): void {
    this.#arrived.resolve()
  }

  async wait(ms: number, signal: AbortSignal): Promise<void> {
    const ended = new AbortController()
    const either = AbortSignal.any([signal, ended.signal])
    await Promise.race([
      this.#arrived.promise,
      sleep(ms, undefined, { signal: either }).catch(() => undefined),
    ])
    ended.abort()
    this.#arrived = Promise.withResolvers()
  }
}

/** The listener for publishers, apart from the one for readers. */
async function listenForReleases(
  owner: Owner,
  repository: string,
  config: NodeConfig,
  news: News,
): Promise<AsyncDisposable> {
  const pinnedRoot = config.root ? await readFile(config.root) : owner.trust.record.accepted?.roots[0]
  const route = publishReceiver({
    storage: folderStorage(repository),
    uploadsFolder: join(config.data, 'uploads'),
    ...(pinnedRoot && { pinnedRoot }),
    limits: { fileBytesMax: UPLOAD_BYTES_MAX, reserveBytes: config.reserveBytes },
    now: Date.now,
    onRelease: () => news.tell(),
  })
  const server = createServer((req, res) => {
    Promise.resolve()
      .then(() => (req.url?.startsWith(route.prefix) ? route.handle(req, res) : notHere(req.url)))
      .catch((error: unknown) => {
        if (res.headersSent) res.destroy()
        else sendProblem(res, problemOf(error, req.url))
      })
  })
  await listenAt(server, config.admin ?? '')
  return {
    async [Symbol.asyncDispose]() {
      const closed = once(server, 'close')
      server.close()
      server.closeAllConnections()
      await closed
    },
  }
}

function notHere(url: string | undefined): never {
  throw new EdgeError('NOT_FOUND', `${url} is not answered on this port`)
}

/** @param at `8081`, `0.0.0.0:8081` or the path of a socket. */
async function listenAt(server: Server, at: string): Promise<void> {
  const [, host = '127.0.0.1', port] = /^(?:(.+):)?(\d{1,5})$/.exec(at) ?? []
  try {
    if (port === undefined) server.listen(at)
    else server.listen({ port: Number(port), host })
    await once(server, 'listening')
  } catch (cause) {
    if ((cause as NodeJS.ErrnoException).code !== 'EADDRINUSE') throw cause
    throw new EdgeError('PORT_IN_USE', `${at} is used by another program: choose another with TOWER_ADMIN`, {
      cause,
    })
  }
}
