/**
 * Opens everything that the one process which owns a store has: trust, store, library, upstreams,
 * queue, ledger. Used by the running node and by commands that find no node running.
 */
import { randomUUID } from 'node:crypto'
import { mkdir, readFile, rename, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { pathToFileURL } from 'node:url'
import { EdgeError, isEdgeError } from '../manifests/errors.ts'
import { type AcceptedState, initialState } from '../manifests/tuf/accepted-state.ts'
import type { Abortable } from '../manifests/extent.ts'
import { openCourtesy } from '../warmers/courtesy.ts'
import { type Demand, openDemand } from '../warmers/demand.ts'
import type { FillLimits } from '../warmers/fill-limits.ts'
import {
  type FillEvent,
  type FillRequest,
  type FillTools,
  fillOnce,
  planOnce,
  type PlanNews,
} from '../warmers/fill-once.ts'
import { type Ledger, openLedger } from '../warmers/ledger.ts'
import { openFileUpstream } from '../warmers/file-upstream.ts'
import { openHttpUpstream, type Pace } from '../warmers/http-upstream.ts'
import { type LinkSettings, parseLinks } from '../warmers/link-settings.ts'
import { openLocalQueue } from '../warmers/local-queue.ts'
import { fillMirror } from '../warmers/mirror.ts'
import { planMirror } from '../warmers/mirror-plan.ts'
import { NearbyDemand, SharedDemand } from '../warmers/nearby-demand.ts'
import { openOnDemand } from '../warmers/on-demand.ts'
import { type OpenLinks, openLinks, type OpenWindow } from '../warmers/open-links.ts'
import type { PlanReport } from '../warmers/plan-report.ts'
import { REQUEST_BYTES } from '../warmers/plan-fill.ts'
import { extentFromPacks } from '../warmers/heal-upstream.ts'
import type { Schedule } from '../warmers/schedule.ts'
import { openDigestCache } from '../warmers/sources.ts'
import { openRangeMemory, remembered } from '../warmers/range-memory.ts'
import { openSharedStaging } from '../warmers/shared-staging.ts'
import type { PinService } from '../pinning/pin-service.ts'
import type { PinFiles } from '../pinning/pin-target.ts'
import type { Upstream } from '../warmers/upstream.ts'
import type { NodeConfig } from './config.ts'
import type { OpenItem } from './library.ts'
import { openLibrary, type NodeLibrary } from './open-library.ts'
import { repoFilesOf } from './repo-view.ts'
import { openStore } from './store/open-store.ts'
import type { ContentStore } from './store/store.ts'
import { openTrustStore, type TrustStore } from './trust-store.ts'

export interface FillWish {
  /** All when absent. */
  readonly datasets?: readonly string[] | undefined
  /** Inside a contact window: its link's upstreams, its name, its budget. */
  readonly upstreams?: readonly Upstream[]
  readonly window?: string
  readonly limits?: FillLimits
}

export interface Owner extends AsyncDisposable {
  readonly config: NodeConfig
  /** Random, made at first start: separates nodes that share a Redis. */
  readonly nodeId: string
  readonly trust: TrustStore
  readonly store: ContentStore
  readonly library: NodeLibrary
  readonly ledger: Ledger
  readonly demand: Demand
  readonly linkSettings: readonly LinkSettings[]
  readonly links: OpenLinks
  readonly queue: FillTools['queue']
  /** Undefined when there is nowhere to pin to. */
  readonly pins: PinService | undefined
  /** Somebody asked for the item, here or not. */
  asked(item: Pick<OpenItem, 'dataset' | 'path' | 'publishedAtMs'>): void
  /** What neighbours may ask of our demand, where it is shared. */
  readonly shared: SharedDemand | undefined
  plan(wish: FillWish, options: Abortable): Promise<PlanReport>
  /** One after the other: a second call begins when the first has ended, and finds little to do. */
  fill(wish: FillWish, options: Abortable): AsyncGenerator<FillEvent>
}

/** Whatever is not as usual, for benches: time that passes faster, a link that is there now and then. */
export interface OwnerWorld {
  readonly now?: () => number
  readonly isLinkUp?: () => boolean
  readonly passingBytesMax?: number
}

const DEMAND_FLUSH_MS = 60_000
/** How far ahead windows are planned. */
const HORIZON_MS = 14 * 24 * 3600 * 1000
/** When no window that is in sight brings it. */
const RETRY_AFTER_SECONDS_MAX = 24 * 3600
const RETRY_AFTER_SECONDS = 300

/**
 * @throws EdgeError `STORE_LOCKED` when a node runs on this folder, `STORE_READ_ONLY`,
 * `STORE_FORMAT`, `TRUST_INVALID` for a root that is none.
 */
export async function openOwner(config: NodeConfig, world: OwnerWorld = {}): Promise<Owner> {
  const { now = Date.now } = world
  await using stack = new AsyncDisposableStack()
  const store = stack.use(
    await openStore({
      now,
      ...(world.passingBytesMax !== undefined && { passingBytesMax: world.passingBytesMax }),
      folder: config.data,
      warmFolder: config.warm,
      hotBytesMax: config.hotBytesMax,
      warmBytesMax: config.warmBytesMax,
      reserveBytes: config.reserveBytes,
    }),
  )
  const trust = await openTrustStore(join(config.data, 'trust-v1'))
  await beginTrust(trust, config.root)
  const ledger = stack.use(await openKeptLedger(join(config.data, 'ledger.db')))
  const demand = stack.use(openDemand(join(config.data, 'demand.db'), now))
  /** Of the last plan. */
  let schedule: Schedule | undefined
  const library = stack.use(
    await openLibrary({
      store,
      trust,
      now,
      bring: (wish, options) => onDemand.bring(wish, options),
      retryAfterSeconds: ({ dataset, path }) => retryAfter(schedule?.etaMs(dataset, path)),
    }),
  )
  const flushing = setInterval(() => demand.flush(), DEMAND_FLUSH_MS)
  stack.defer(() => clearInterval(flushing))
  const linkSettings = parseLinks(config.links)
  const courtesy = stack.use(
    openCourtesy({ nowMs: () => performance.now(), wait: (ms, signal) => sleep(ms, undefined, { signal }) }),
  )
  const links = stack.use(
    openLinks({
      links: linkSettings,
      urls: config.upstream.map(url => new URL(url)),
      ledger,
      connectionsMax: config.fetchConnections,
      courtesy,
    }),
  )
  const nodeId = await nodeIdOf(config.data)
  const queue = stack.use(
    config.redisUrl ? await openRedisQueue(config.redisUrl, nodeId, config) : openLocalQueue(),
  )
  const tools: FillTools = {
    upstreams: links.upstreams,
    demand,
    trust,
    store,
    queue,
    releases: library,
    cache: await openDigestCache(join(config.data, 'directories-v1')),
    staged: stack.use(await openSharedStaging(join(config.data, 'fetched-v1'))),
    rangeMemory: openRangeMemory(join(config.data, 'upstreams.json')),
    requestBytes: REQUEST_BYTES,
    wants: () => true,
    now,
  }
  const outlook: Pick<FillRequest, 'outlook' | 'onSchedule'> = {
    outlook: {
      links: linkSettings,
      rateOf: link => links.rateOf(link),
      bytesLeftIn: window => links.bytesLeftIn(window),
      horizonMs: HORIZON_MS,
    },
    onSchedule: made => (schedule = made),
  }
  const stopping = new AbortController()
  stack.defer(() => stopping.abort(new Error('the node stops')))
  // a hub has whole packs: what is in these need not cross the link again
  const ownPacks = pathToFileURL(`${repositoryFolderOf(config.data)}/`)
  const local = config.mirror ? [openFileUpstream(ownPacks, () => {})] : []
  const openFor = () => {
    const open = world.isLinkUp?.() === false ? undefined : links.open()
    return open && withUpstreams(open, [...local, ...remembered(open.upstreams, tools.rangeMemory)])
  }
  const onDemand = openOnDemand({ ...tools, open: openFor, signal: stopping.signal })
  const peers = config.peers.map(url => stack.use(openPeer(url, ledger, courtesy)))
  const pins = await openPins(config, { store, library, trust, nodeId })
  if (pins) stack.use(pins)
  await addHealSources({ config, store, tools, local, pins, links })
  const shared = config.shareDemand ? new SharedDemand(now) : undefined
  const nearby = new NearbyDemand(config.peers, demand, now)
  const turns = new Turns()
  const kept = stack.move()
  return {
    config,
    nodeId,
    trust,
    store,
    library,
    ledger,
    demand,
    linkSettings,
    links,
    queue,
    pins,
    shared,
    asked({ dataset, path, publishedAtMs }) {
      courtesy.asked()
      demand.asked(dataset, path, publishedAtMs)
      shared?.asked(dataset, path)
    },
    plan: (wish, options) =>
      turns.take(
        () => planOf(config, { ...requestOf(tools, wish, config), ...outlook, ...options }),
        options,
      ),
    async *fill(wish, options) {
      const request = { ...requestOf(tools, wish, config), ...outlook, ...options, peers }
      await nearby.learn(options)
      try {
        yield* turns.stream(() => fillOf(config, request), options)
      } finally {
        pins?.wake() // there may be more that can be pinned
      }
    },
    [Symbol.asyncDispose]: () => kept.disposeAsync(),
  }
}

/** A hub keeps what it fills from, too. */
function fillOf({ mirror, data, reserveBytes }: NodeConfig, request: FillRequest): AsyncGenerator<FillEvent> {
  if (!mirror) return fillOnce(request)
  return fillMirror(request, { folder: repositoryFolderOf(data), reserveBytes })
}

function planOf({ mirror, data }: NodeConfig, request: FillRequest): Promise<PlanReport & PlanNews> {
  return mirror ? planMirror(request, { folder: repositoryFolderOf(data) }) : planOnce(request)
}

/** What `/repo/` shows packs and deltas of: a hub's copy, or what publishers push here. */
export function repositoryFolderOf(data: string): string {
  return join(data, 'repository')
}

/** Loaded only by a node that pins: the clients cost memory. */
async function openPins(
  { ipfsApi, ipfsReplicas, s3Url, data }: NodeConfig,
  world: Pick<Owner, 'store' | 'library' | 'trust' | 'nodeId'>,
): Promise<PinService | undefined> {
  if (ipfsApi.length === 0 && s3Url === undefined) return undefined
  const [{ openPinService }, { takeSnapshot }] = await Promise.all([
    import('../pinning/pin-service.ts'),
    import('../pinning/snapshot.ts'),
  ])
  const view = () => [...repoFilesOf(world.trust.record)].map(([path, bytes]) => ({ path, bytes }))
  const snapshot = (files: PinFiles, options: Abortable) => {
    const { nodeId, trust } = world
    return takeSnapshot({ files, folder: data, nodeId, trust: trust.record, now: new Date() }, options)
  }
  return openPinService({ ...world, folder: data, ipfsApi, ipfsReplicas, s3Url, view, snapshot })
}

/** In the order of what they cost: a server of ours, a neighbour, the link. */
async function addHealSources({
  config: { peers },
  store,
  tools: { releases, cache, staged, rangeMemory },
  local,
  pins,
  links,
}: Pick<Owner, 'config' | 'store' | 'pins' | 'links'> & {
  readonly tools: FillTools
  readonly local: readonly Upstream[]
}): Promise<void> {
  if (pins || peers.length > 0) {
    const { peerHealSource, pinHealSource } = await import('../pinning/heal-sources.ts')
    const nearFirst = (pins?.targets ?? []).toSorted((a, b) => (a.kind < b.kind ? 1 : -1))
    for (const target of nearFirst) store.onHeal(pinHealSource(target, store))
    for (const peer of peers) store.onHeal(peerHealSource(peer))
  }
  store.onHeal({
    name: 'upstream',
    async fetchExtent(cid, { signal }) {
      using open = links.open()
      if (!open) return undefined
      const until = { signal: AbortSignal.any([signal, open.signal]) }
      const upstreams = [...local, ...remembered(open.upstreams, rangeMemory)]
      return await extentFromPacks(cid, { upstreams, releases, cache, staged, store }, until)
    },
  })
}

/** The same window, with more places to fill from. */
function withUpstreams(open: OpenWindow, upstreams: readonly Upstream[]) {
  return { upstreams, signal: open.signal, [Symbol.dispose]: () => open[Symbol.dispose]() }
}

/** A neighbour's bytes cross no link: they are in the ledger all the same. */
function openPeer(url: string, ledger: Ledger, pace: Pace): Upstream {
  const peer: Upstream = openHttpUpstream(new URL(url), {
    pace,
    onWire: record => ledger.add({ ...record, link: 'lan', window: '', source: peer.name }),
  })
  return peer
}

/** @param etaMs undefined for what is in no plan. */
function retryAfter(etaMs: number | undefined): number {
  if (etaMs === undefined) return RETRY_AFTER_SECONDS
  return Math.round(Math.min(Math.max((etaMs - Date.now()) / 1000, 1), RETRY_AFTER_SECONDS_MAX))
}

function requestOf(
  tools: FillTools,
  { datasets, upstreams, window, limits }: FillWish,
  config: NodeConfig,
): Omit<FillRequest, 'signal'> {
  return {
    ...tools,
    concurrency: config.fetchConnections,
    ...(datasets && { datasets }),
    ...(upstreams && { upstreams }),
    ...(window !== undefined && { window }),
    ...(limits && { limits }),
  }
}

/**
 * A root is taken once; from then on only its own successors count (I2). Until metadata was accepted
 * under it there is nothing to protect: a wrong one is corrected by naming the right one.
 */
async function beginTrust(trust: TrustStore, rootPath: string | undefined): Promise<void> {
  const { accepted: known } = trust.record
  if (known?.timestamp || known?.served || trust.damaged || rootPath === undefined) return
  const bytes = await readFile(rootPath).catch((cause: unknown) => {
    throw new EdgeError(
      'TRUST_ROOT_ABSENT',
      `cannot read the trusted root ${rootPath}: TOWER_ROOT names it`,
      { cause },
    )
  })
  if (known?.roots[0] && bytes.equals(known.roots[0])) return
  const accepted = trustedFrom(bytes, rootPath)
  await trust.update(record => ({ ...record, accepted }))
}

function trustedFrom(bytes: Uint8Array, rootPath: string): AcceptedState {
  try {
    return initialState(bytes)
  } catch (cause) {
    if (!isEdgeError(cause)) throw cause
    throw new EdgeError(
      cause.code,
      `${rootPath} is no root (TOWER_ROOT takes the repository's root.json): ${cause.message}`,
      { cause },
    )
  }
}

/** Accounts are worth keeping and not worth stopping for: a damaged ledger is set aside. */
async function openKeptLedger(path: string): Promise<Ledger> {
  try {
    return openLedger(path)
  } catch {
    await rename(path, `${path}.damaged-${Date.now()}`).catch(() => undefined)
    return openLedger(path)
  }
}

/** Loaded only where there is a Redis: it takes 25 MB of memory. */
async function openRedisQueue(
  redisUrl: string,
  prefix: string,
  { fillWorkers: processes, fetchConnections: concurrency }: NodeConfig,
) {
  const { openBullQueue } = await import('../warmers/bull-queue.ts')
  return openBullQueue({ redisUrl, prefix, ...(processes > 0 && { workers: { processes, concurrency } }) })
}

async function nodeIdOf(folder: string): Promise<string> {
  const path = join(folder, 'node-id')
  const known = await readFile(path, 'utf8').catch(() => '')
  if (/^tower-[0-9a-f-]{36}$/.test(known)) return known
  await mkdir(folder, { recursive: true })
  const made = `tower-${randomUUID()}`
  await writeFile(path, made)
  return made
}

/** Fills and plans of one node never run side by side: they would fetch the same twice. */
class Turns {
  #last: Promise<void> = Promise.resolve()

  async take<T>(work: () => Promise<T>, options: Abortable): Promise<T> {
    using _turn = await this.#next(options)
    return await work()
  }

  async *stream<T>(work: () => AsyncGenerator<T>, options: Abortable): AsyncGenerator<T> {
    using _turn = await this.#next(options)
    yield* work()
  }

  async #next({ signal }: Abortable): Promise<Disposable> {
    const before = this.#last
    const { promise, resolve } = Promise.withResolvers<void>()
    this.#last = before.then(() => promise)
    await before
    if (signal.aborted) resolve()
    signal.throwIfAborted()
    return { [Symbol.dispose]: resolve }
  }
}
