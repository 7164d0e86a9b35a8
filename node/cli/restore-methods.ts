/**
 * A tower from nothing: with its root and the address of a pin target or of another node, and no
 * upstream, it takes metadata, manifests and catalogs from there and whatever content they have.
 * Everything is verified as if it came over a link; nothing is believed because it is a backup.
 */
import pLimit from 'p-limit'
import { z } from 'zod'
import { codecOf, type Cid } from '../../manifests/cid.ts'
import { EdgeError, isEdgeError } from '../../manifests/errors.ts'
import type { Abortable } from '../../manifests/extent.ts'
import { openHttpUpstream } from '../../warmers/http-upstream.ts'
import { refresh, type Refreshed } from '../../warmers/refresh.ts'
import { collect, FREE, type Upstream, type WireRecord } from '../../warmers/upstream.ts'
import type { ViewReader } from '../../pinning/files-upstream.ts'
import type { ControlMethods } from '../control.ts'
import type { Owner } from '../owner.ts'
import type { Missing, MissingExtent } from '../releases.ts'
import type { HealSource } from '../store/store.ts'

export type RestoreEvent =
  | ({ readonly type: 'refreshed' } & Pick<Refreshed, 'upstream' | 'accepted' | 'problems'>)
  | {
      readonly type: 'progress'
      readonly dataset: string
      readonly extents: number
      readonly bytes: number
      /** Not to be had from any source. */
      readonly absent: number
    }
  | {
      readonly type: 'done'
      readonly bytes: number
      readonly datasets: readonly {
        readonly dataset: string
        readonly revision: number
        readonly presentBytes: number
        readonly expectedBytes: number
      }[]
    }

const AT_ONCE = 4
/** A source may take so long over one extent. */
const SHARE_MS = 30_000
const METADATA_BYTES_MAX = 16 * 1024 * 1024

const SnapshotRecords = z.strictObject({
  pins: z.array(z.string()),
  revisionFloors: z.record(z.string(), z.number().int().nonnegative()),
})
/** What a snapshot says that metadata does not. */
export type SnapshotRecords = z.infer<typeof SnapshotRecords>

export function restoreMethods(owner: Owner): ControlMethods {
  return {
    async *restore(params, options) {
      const records = SnapshotRecords.nullable().parse(params)
      if (records) await takeRecords(owner, records)
      yield* restore(owner, options)
    },
  }
}

/** Floors are raised, never lowered (I2). */
async function takeRecords({ trust }: Owner, { pins, revisionFloors }: SnapshotRecords): Promise<void> {
  await trust.update(record => {
    const floors = new Map(record.revisionFloors)
    for (const [dataset, revision] of Object.entries(revisionFloors))
      floors.set(dataset, Math.max(revision, floors.get(dataset) ?? 0))
    return { ...record, pins: [...new Set([...record.pins, ...pins])].toSorted(), revisionFloors: floors }
  })
}

/** @throws EdgeError `CONFIG_INVALID`, `TRUST_…`, `UPSTREAM_…` when no source has metadata; `STORE_FULL` */
async function* restore(owner: Owner, options: Abortable): AsyncGenerator<RestoreEvent> {
  const { library, store, pins, config } = owner
  const { peerHealSource, pinHealSource } = await import('../../pinning/heal-sources.ts')
  const sources = [
    ...(pins?.targets ?? []).map(target => pinHealSource(target, store, SHARE_MS)),
    ...config.peers.map(peer => peerHealSource(peer, SHARE_MS)),
  ]
  if (sources.length === 0) {
    const places = 'TOWER_S3_URL, TOWER_IPFS_API or TOWER_PEERS'
    throw new EdgeError('CONFIG_INVALID', `there is nothing to restore from: set ${places}`)
  }
  yield { type: 'refreshed', ...(await acceptMetadata(owner, options)) }

  let bytes = 0
  for (const { dataset } of library.releases()) {
    for await (const progress of restoreDataset(owner, dataset, sources, options)) {
      yield { ...progress, bytes: bytes + progress.bytes }
      if (progress.ended) bytes += progress.bytes
    }
  }
  await library.settled()
  const datasets = library.datasets().map(({ dataset, revision, present, expected }) => ({
    dataset,
    revision,
    presentBytes: present,
    expectedBytes: expected,
  }))
  yield { type: 'done', bytes, datasets }
}

/**
 * What a tower kept when it was last online may have expired since. It is authentic all the same, and
 * served as not fresh: so it is looked at with the eyes of the day on which it was still valid.
 */
async function acceptMetadata(
  { trust, library, pins, config, ledger }: Owner,
  options: Abortable,
): Promise<Refreshed> {
  await using stack = new AsyncDisposableStack()
  const { viewReader } = await import('../../pinning/files-upstream.ts')
  const views = (pins?.targets ?? []).map(viewReader)
  const peers = config.peers.map(peer => {
    const { host } = new URL(peer)
    const onWire = (record: WireRecord) => ledger.add({ ...record, link: 'peer', window: '', source: host })
    return stack.use(openHttpUpstream(new URL('repo/', peer.endsWith('/') ? peer : `${peer}/`), { onWire }))
  })
  const tools = {
    upstreams: [...views.map(upstreamOf), ...peers],
    trust,
    releases: library,
    wants: () => true,
  }
  try {
    return await refresh({ ...tools, now: Date.now }, options)
  } catch (error) {
    if (!isEdgeError(error, 'TRUST_EXPIRED') || views.length === 0) throw error
    const lastValidMs = await lastValid(views, options)
    return await refresh({ ...tools, now: () => Math.min(lastValidMs, Date.now()) }, options)
  }
}

async function lastValid(views: readonly ViewReader[], options: Abortable): Promise<number> {
  let earliest = Date.now()
  for (const view of views) {
    const paths = await view.list(options).catch(() => [])
    for (const path of paths.filter(path => path.startsWith('metadata/'))) {
      const bytes = await collect(view.readWhole(path, { ...options, maxBytes: METADATA_BYTES_MAX }))
      earliest = Math.min(earliest, expiryIn(bytes) - 1000)
    }
  }
  return earliest
}

function expiryIn(metadata: Buffer): number {
  try {
    const { signed } = JSON.parse(metadata.toString('utf8')) as { signed?: { expires?: string } }
    return Date.parse(signed?.expires ?? '') || Number.POSITIVE_INFINITY
  } catch {
    return Number.POSITIVE_INFINITY
  }
}

/** Whole files only: no pack is read from there. */
function upstreamOf({ name, readWhole }: ViewReader): Upstream {
  return {
    name,
    readWhole,
    readSpan() {
      throw new EdgeError('UPSTREAM_REFUSED', `${name} has no packs`)
    },
    wire: { bytesDown: 0, bytesUp: 0, requests: 0, connections: 0 },
    cost: FREE,
    ranges: true,
    pieceBytes: Number.POSITIVE_INFINITY,
    isLossy: false,
    async [Symbol.asyncDispose]() {},
  }
}

type DatasetProgress = Extract<RestoreEvent, { type: 'progress' }> & { readonly ended: boolean }

/** Again and again, as long as that brings anything: nodes name more nodes, the catalog names items. */
async function* restoreDataset(
  { library, store }: Owner,
  dataset: string,
  sources: readonly HealSource[],
  options: Abortable,
): AsyncGenerator<DatasetProgress> {
  const limit = pLimit(AT_ONCE)
  const absent = new Set<Cid>()
  const counts = { extents: 0, bytes: 0 }
  const report = (ended: boolean): DatasetProgress => {
    return { type: 'progress', dataset, ...counts, absent: absent.size, ended }
  }
  const bringNode = async (cid: Cid) => {
    const found = await fetchFrom(sources, 'fetchChunk', cid, options)
    if (!found) return void absent.add(cid)
    await store.admitNodes([{ cid, bytes: found.bytes }]).catch(absentIfCorrupt(cid))
  }
  const bringExtent = async ({ cid, rule }: MissingExtent) => {
    if (codecOf(cid) === 'dag-pb' && !store.view(cid)) await bringNode(cid)
    // a node over nodes after all: what is below is listed in the next round
    if (store.view(cid)?.over === 'nodes') return
    const found = await fetchFrom(
      sources,
      codecOf(cid) === 'raw' ? 'fetchChunk' : 'fetchExtent',
      cid,
      options,
    )
    if (!found) return void absent.add(cid)
    try {
      await store.admitExtent(cid, found.bytes, rule, `restore: ${found.source}`)
      absent.delete(cid)
      counts.extents++
      counts.bytes += found.bytes.length
    } catch (error) {
      absentIfCorrupt(cid)(error)
    }
  }
  const absentIfCorrupt = (cid: Cid) => (error: unknown) => {
    if (!isEdgeError(error, 'CHUNK_CORRUPT', 'CATALOG_INVALID')) throw error
    absent.add(cid)
  }

  for (let before = -1; before !== counts.extents; ) {
    before = counts.extents
    for await (const missing of library.streamMissing(dataset)) {
      options.signal.throwIfAborted()
      const { nodes, extents } = without(missing, absent)
      using _room = await store.reserve(
        extents.reduce((sum, { sizeBytes }) => sum + sizeBytes, 0),
        'restore',
      )
      await Promise.all(nodes.map(cid => limit(() => bringNode(cid))))
      await Promise.all(extents.map(extent => limit(() => bringExtent(extent))))
      if (nodes.length > 0 && before === counts.extents) before = -1 // more can be named now
      yield report(false)
    }
    await library.activateIfWhole(dataset)
  }
  yield report(true)
}

function without({ nodes, extents }: Missing, absent: ReadonlySet<Cid>): Missing {
  return {
    nodes: nodes.filter(cid => !absent.has(cid)),
    extents: extents.filter(({ cid }) => !absent.has(cid)),
  }
}

/** From the first source that has it; one that fails has nothing. */
async function fetchFrom(
  sources: readonly HealSource[],
  way: 'fetchExtent' | 'fetchChunk',
  cid: Cid,
  options: Abortable,
): Promise<{ bytes: Uint8Array; source: string } | undefined> {
  for (const source of sources) {
    const bytes = await source[way]?.(cid, options).catch(() => undefined)
    options.signal.throwIfAborted()
    if (bytes) return { bytes, source: source.name }
  }
  return undefined
}
