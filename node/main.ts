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
import { pino, type Logger } from 'pino'
import type { Cid } from '../manifests/cid.ts'
import { sha256Of } from '../manifests/digest.ts'
import { EdgeError, isEdgeError } from '../manifests/errors.ts'
import type { Abortable, ChunkRef } from '../manifests/extent.ts'
import { folderStorage } from '../manifests/publish/folder-storage.ts'
import type { FillEvent } from '../warmers/fill-once.ts'
import { readPower } from '../warmers/power.ts'
import { openShedding } from '../warmers/shedding.ts'
import { openWarmer, type Warmer, type WarmerEvent } from '../warmers/warmer.ts'
import { controlSocketOf, ownerMethods, statusOf } from './cli/owner-methods.ts'
import type { NodeConfig } from './config.ts'
import { serveControl } from './control.ts'
import { ipfsGateway } from './gateway/ipfs-gateway.ts'
import { ENCODING_MEMORY_BYTES_MAX, Encodings } from './http/encoding/encodings.ts'
import { inheritedSocketOf } from './http/inherited-socket.ts'
import { problemOf, sendProblem } from './http/problem.ts'
import { createNodeServer } from './http/server.ts'
import type { OpenItem } from './library.ts'
import { openOwner, type Owner, repositoryFolderOf } from './owner.ts'
import { packView } from './pack-view.ts'
import { publishReceiver } from './publish/receiver.ts'
import { Renderer } from './renditions/renderer.ts'
import { Renditions } from './renditions/renditions.ts'
import { registerPinMetrics } from './pin-metrics.ts'
import { joinedRepoView, trustRepoView } from './repo-view.ts'
import { Scrubbing } from './scrubbing.ts'
import type { ContentStore } from './store/store.ts'
import { startWorkers } from './workers.ts'

export interface RunningNode extends AsyncDisposable {
  /** `http://127.0.0.1:8080/` */
  readonly url: string
  readonly owner: Owner
  fill(options: Abortable): AsyncGenerator<FillEvent>
  /** What the control socket answers, for whoever runs a node inside its own process. */
  control(method: string, params: unknown, options: Abortable): AsyncIterable<unknown>
}

const UPLOAD_BYTES_MAX = 1024 ** 3
const RENDITION_BYTES_MAX = 512 * 1024 ** 2
const ENCODING_BYTES_MAX = 256 * 1024 ** 2
const HEAL_MS = 10_000
const DENIED_LOOK_MS = 1_000

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
  const repository = repositoryFolderOf(given.data)
  const receives = given.admin !== undefined && given.upstream.length === 0
  const config = receives ? { ...given, upstream: [pathToFileURL(`${repository}/`).href] } : given
  const owner = stack.use(await openOwner(config))
  const stop = new AbortController()
  const lookAtPower = () => readPower(config.powerSupply)
  const shedding = openShedding(lookAtPower)
  await shedding.look()
  const warmer = openWarmer({
    links: owner.links,
    settings: owner.linkSettings,
    fill: ({ signal, ...work }) => owner.fill(work, { signal }),
    readPower: lookAtPower,
    refreshMs: config.refreshSeconds * 1000,
  })
  if (config.redisUrl && owner.linkSettings.some(({ windows }) => windows)) {
    const { openBullWindows } = await import('../warmers/bull-windows.ts')
    const wake = () => warmer.wake()
    const { redisUrl } = config
    stack.use(openBullWindows({ redisUrl, prefix: owner.nodeId, links: owner.linkSettings, onBegin: wake }))
  }
  const isAllowedToMake = () => shedding.allows('renditions')
  const renditions = await openRenditions(config, stack, isAllowedToMake)
  const encodings = stack.use(
    await Encodings.open({
      folder: config.data,
      isAllowed: isAllowedToMake,
      diskBytesMax: ENCODING_BYTES_MAX,
      memoryBytesMax: ENCODING_MEMORY_BYTES_MAX,
      reserveBytes: config.reserveBytes,
    }),
  )
  stack.use(await forgettingDenied(owner, [renditions, encodings]))
  const scrubbing = new Scrubbing({
    store: owner.store,
    days: config.scrubDays,
    isAllowed: () => shedding.allows('scrub'),
  })

  const onAsked = (item: OpenItem) => owner.asked(item)
  const server = createNodeServer(
    {
      library: owner.library,
      onAsked,
      repo: joinedRepoView(trustRepoView(owner.trust), packView(repository)),
      routes: [
        ...(owner.shared ? [owner.shared] : []),
        ipfsGateway({
          blocks: owner.library,
          isDenied: root => owner.library.isDenied(root),
          mediaTypeOf: root => owner.library.mediaTypeOf(root),
        }),
      ],
      encodings,
      renditions,
      status: () => ({
        ...statusOf(owner, undefined, startedAtMs, scrubbing.report, server.metrics.reads.report()),
      }),
      log,
    },
    { memoryBytesMax: config.memoryBytesMax },
  )
  stack.defer(() => server.close(config.drainMs))
  registerPinMetrics(server.metrics.registry, owner, () => scrubbing.report)
  const fd = inheritedSocketOf(process.env, process.pid)
  const address = { host: config.host, reusePort: config.workers > 0 }
  const { port } = await server.listen(fd === undefined ? { port: config.port, ...address } : { fd })
  const url = `http://${config.host.includes(':') ? `[${config.host}]` : config.host}:${port}/`
  if (config.workers > 0) {
    const {
      workers: count,
      drainMs,
      logLevel,
      memoryBytesMax,
      hotBytesMax,
      warmBytesMax,
      reserveBytes,
    } = config
    const sizes = { memoryBytesMax, hotBytesMax, warmBytesMax, reserveBytes }
    const settings = {
      folder: config.data,
      warmFolder: config.warm,
      ...sizes,
      drainMs,
      logLevel,
      at: { port, ...address },
    }
    const onDeath = (pid: number | undefined, why: string) => log.error({ pid, why }, 'a worker died')
    const about = {
      count,
      settings,
      server: server.server,
      temporary: tmpdir(),
      fd,
      library: owner.library,
      onAsked,
      onDeath,
      heal: (extent: Cid, offset: number, chunk: ChunkRef) => healed(owner.store, extent, offset, chunk),
      counts: server.metrics.others,
    }
    stack.use(await startWorkers(about))
  }
  if (receives) stack.use(await listenForReleases(owner, repository, config, warmer))
  const reads = () => server.metrics.reads.report()
  const methods = ownerMethods(owner, url, startedAtMs, () => scrubbing.report, reads)
  stack.use(await serveControl(controlSocketOf(config, tmpdir()), methods))

  const keeping = config.upstream.length > 0 ? keepWarm(warmer, log, stop.signal) : Promise.resolve()
  const isAllowed = () => shedding.allows('pinning')
  const beside = [
    quietly(log, 'looking at the battery', stop.signal, signal => shedding.run({ signal })),
    quietly(log, 'pinning', stop.signal, async signal => owner.pins?.run({ signal, isAllowed })),
    quietly(log, 'scrubbing', stop.signal, signal => scrubbing.run({ signal })),
  ]
  stack.defer(async () => {
    stop.abort(new Error('the node stops'))
    await Promise.all([keeping, ...beside])
  })
  log.info({ url, data: config.data, upstreams: config.upstream.length }, 'serving')
  const kept = stack.move()
  return {
    url,
    owner,
    fill: options => owner.fill({}, options),
    control(method, params, options) {
      const own = methods[method]
      if (!own) throw new EdgeError('NOT_FOUND', `no method ${method}`)
      return own(params, options)
    },
    [Symbol.asyncDispose]: () => kept.disposeAsync(),
  }
}

async function openRenditions(
  config: NodeConfig,
  stack: AsyncDisposableStack,
  isAllowed: () => boolean,
): Promise<Renditions> {
  const renderer = stack.use(new Renderer())
  const { data: folder, reserveBytes } = config
  return await Renditions.open({ folder, bytesMax: RENDITION_BYTES_MAX, reserveBytes, renderer, isAllowed })
}

/** What was made from items goes when the denylist changes, also one that changed while the node was down. */
async function forgettingDenied(
  { trust }: Pick<Owner, 'trust'>,
  made: readonly { begin(epoch: string): Promise<void> }[],
): Promise<Disposable> {
  let seen: string | undefined
  const look = async () => {
    const epoch = sha256Of(trust.record.denylist ?? '')
    if (epoch === seen) return
    await Promise.all(made.map(each => each.begin(epoch)))
    seen = epoch
  }
  await look().catch(() => undefined) // on a full disk: tried again
  const timer = setInterval(() => void look().catch(() => undefined), DENIED_LOOK_MS).unref()
  return { [Symbol.dispose]: () => clearInterval(timer) }
}

/** For a worker in which it failed. Read here first, so that damage is noted where it can be mended. */
async function healed(store: ContentStore, extent: Cid, offset: number, chunk: ChunkRef): Promise<Buffer> {
  const options = { signal: AbortSignal.timeout(HEAL_MS) }
  const buffer = Buffer.alloc(chunk.sizeBytes)
  try {
    await store.readChunk(extent, offset, chunk, buffer, options)
    return buffer
  } catch (error) {
    if (!isEdgeError(error, 'CHUNK_CORRUPT', 'CHUNK_ABSENT')) throw error
    return store.healChunk(extent, offset, chunk, options)
  }
}

/** What runs beside serving never ends it. */
async function quietly(
  log: Logger,
  what: string,
  signal: AbortSignal,
  work: (signal: AbortSignal) => Promise<void>,
): Promise<void> {
  try {
    await work(signal)
  } catch (error) {
    if (!signal.aborted) log.error({ err: error }, `${what} ended`)
  }
}

/** Nobody waits for it: it ends when its signal aborts, whatever happens meanwhile. */
async function keepWarm(warmer: Warmer, log: Logger, signal: AbortSignal): Promise<void> {
  try {
    for await (const event of warmer.run({ signal })) logEvent(log, event)
  } catch (error) {
    if (!signal.aborted) log.error({ err: error }, 'warming ended')
  }
}

function logEvent(log: Logger, event: WarmerEvent): void {
  const { type } = event
  if (type === 'activated') log.info(event, 'a new release is served')
  else if (type === 'failed' || type === 'fallback') log.warn(event, `fill: ${event.message}`)
  else if (type === 'waiting' || type === 'window-closed') log.info(event, event.message)
  else if (type === 'window-opened' || type === 'shedding') log.debug(event, type)
  else if (type === 'done' && event.contentBytes > 0) log.info(event, 'filled')
}

/** The listener for publishers, apart from the one for readers. */
async function listenForReleases(
  owner: Owner,
  repository: string,
  config: NodeConfig,
  warmer: Warmer,
): Promise<AsyncDisposable> {
  const pinnedRoot = config.root ? await readFile(config.root) : owner.trust.record.accepted?.roots[0]
  const route = publishReceiver({
    storage: folderStorage(repository),
    packs: packView(repository),
    uploadsFolder: join(config.data, 'uploads'),
    ...(pinnedRoot && { pinnedRoot }),
    limits: { fileBytesMax: UPLOAD_BYTES_MAX, reserveBytes: config.reserveBytes },
    now: Date.now,
    onRelease: () => warmer.wake(),
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
