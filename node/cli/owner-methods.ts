/**
 * What commands can ask of the process that owns a store, whether that is a running node (over its
 * control socket) or the command itself.
 */
import { hostname } from 'node:os'
import { join } from 'node:path'
import { z } from 'zod'
import { parseCid } from '../../manifests/cid.ts'
import { isSha256, sha256Of } from '../../manifests/digest.ts'
import type { Abortable } from '../../manifests/extent.ts'
import { expiresAtMs, trustedRoot } from '../../manifests/tuf/accepted-state.ts'
import type { NodeConfig } from '../config.ts'
import type { ControlMethods } from '../control.ts'
import type { DatasetView, ItemView, OpenItem } from '../library.ts'
import { extentsUnder } from '../dag-walk.ts'
import type { ReadReport } from '../http/reads.ts'
import type { Owner } from '../owner.ts'
import type { ScrubReport } from '../scrubbing.ts'
import { pinMethods, pinReportOf, type PinReport } from './pin-methods.ts'
import type { StoreEvent, StoreUsage } from '../store/store.ts'
import type { LinkState } from '../../warmers/links.ts'
import { carrierMethods } from './carrier-methods.ts'
import { restoreMethods } from './restore-methods.ts'

const FillParams = z.strictObject({ datasets: z.array(z.string()).optional() }).nullable()
const ExplainParams = z.strictObject({ item: z.string() })
const VerifyParams = z.strictObject({ heal: z.boolean() })

export interface StatusReport {
  readonly host: string
  readonly node: string
  readonly pid: number
  /** Absent when the command itself opened the store: nothing is served then. */
  readonly url?: string
  readonly upSeconds: number
  readonly store: StoreUsage
  readonly datasets: readonly DatasetView[]
  readonly trust: TrustReport
  readonly queue: { readonly name: string; readonly connected: boolean }
  readonly wire: readonly {
    readonly reason: string
    readonly bytesDown: number
    readonly bytesUp: number
    readonly requests: number
  }[]
  readonly upstreams: readonly string[]
  readonly links: readonly LinkState[]
  readonly pins: PinReport
  /** Absent where nothing is scrubbed: a command opened the store. */
  readonly scrub?: ScrubReport
  /** Absent where nothing is served. */
  readonly reads?: ReadReport
  readonly events: readonly StoreEvent[]
}

export interface TrustReport {
  readonly rootVersion: number | null
  readonly confirmedAt: string | null
  readonly expiresAt: string | null
  /** *Fresh* is one verdict, *authentic* the other: content is served either way. */
  readonly fresh: boolean
  readonly problems: readonly { readonly role: string; readonly code: string; readonly message: string }[]
  readonly damaged: string | null
}

export interface ExplainReport {
  readonly item: ItemView | null
  /** Every extent of the item, in order. */
  readonly extents: readonly {
    readonly cid: string
    readonly sizeBytes: number
    readonly tier: 'hot' | 'warm' | null
    readonly verifiedAt: string | null
  }[]
  readonly events: readonly StoreEvent[]
  readonly fetched: readonly { readonly key: string; readonly bytesDown: number }[]
}

/** The socket of the node that owns this data folder. Socket paths are short: a long one moves to /tmp. */
export function controlSocketOf({ data }: Pick<NodeConfig, 'data'>, temporaryFolder: string): string {
  const path = join(data, 'control.sock')
  return Buffer.byteLength(path) <= 100
    ? path
    : join(temporaryFolder, `tower-${sha256Of(data).slice(0, 24)}.sock`)
}

/**
 * @param url where the node serves; undefined when nothing is served.
 * @param scrub how far the node's scrubber is.
 */
export function ownerMethods(
  owner: Owner,
  url: string | undefined,
  startedAtMs: number,
  scrub?: () => ScrubReport,
  reads?: () => ReadReport,
): ControlMethods {
  return {
    async *status() {
      yield statusOf(owner, url, startedAtMs, scrub?.(), reads?.())
    },
    async *plan(params, options) {
      yield await owner.plan(FillParams.parse(params) ?? {}, options)
    },
    fill: (params, options) => owner.fill(FillParams.parse(params) ?? {}, options),
    async *explain(params) {
      yield explain(owner, ExplainParams.parse(params).item)
    },
    async *verify(params, { signal }: Abortable) {
      const { heal } = VerifyParams.parse(params)
      await owner.store.settled()
      yield* owner.store.verify({ heal, signal })
    },
    ...pinMethods(owner, url !== undefined),
    ...restoreMethods(owner),
    ...carrierMethods(owner),
  }
}

export function statusOf(
  owner: Owner,
  url: string | undefined,
  startedAtMs: number,
  scrub?: ScrubReport,
  reads?: ReadReport,
): StatusReport {
  const { store, library, queue, ledger, links, nodeId } = owner
  return {
    host: hostname(),
    node: nodeId,
    pid: process.pid,
    ...(url && { url }),
    upSeconds: Math.round((Date.now() - startedAtMs) / 1000),
    store: store.usage(),
    datasets: library.datasets(),
    trust: trustReportOf(owner),
    queue: { name: queue.name, connected: !('connected' in queue) || queue.connected === true },
    wire: ledger
      .totalsBy('reason')
      .map(({ key, bytesDown, bytesUp, requests }) => ({ reason: key, bytesDown, bytesUp, requests })),
    upstreams: links.upstreams.map(({ name }) => name),
    links: links.states(),
    pins: pinReportOf(owner),
    ...(scrub && { scrub }),
    ...(reads && { reads }),
    events: store.events(20),
  }
}

function trustReportOf({ trust }: Owner): TrustReport {
  const { accepted } = trust.record
  const expiresMs = accepted ? expiresAtMs(accepted) : 0
  const served = accepted?.served
  return {
    rootVersion: accepted ? trustedRoot(accepted).version : null,
    confirmedAt: served ? new Date(served.confirmedAtMs).toISOString() : null,
    expiresAt: served ? new Date(expiresMs).toISOString() : null,
    fresh: served !== undefined && expiresMs > Date.now(),
    problems: accepted?.problems ?? [],
    damaged: trust.damaged?.message ?? null,
  }
}

/** @param name `<dataset>/<path>`, a SHA-256, or the CID of an extent. */
function explain(owner: Owner, name: string): ExplainReport {
  const { store, library, ledger } = owner
  const item = findItem(owner, name)
  const extents = item
    ? extentsUnder(store, item.root, item.sizeBytes).extents
    : [{ cid: parseCid(name), sizeBytes: store.view(parseCid(name))?.sizeBytes ?? 0 }]
  const subjects = new Set<string>(extents.map(({ cid }) => cid))
  return {
    item: item ? itemViewOf(library, item) : null,
    extents: extents.map(({ cid, sizeBytes }) => ({
      cid,
      sizeBytes,
      tier: store.tierOf(cid),
      verifiedAt: isoOf(store.verifiedAtOf(cid)),
    })),
    events: store.events(10_000).filter(({ subject }) => subjects.has(subject)),
    fetched: item
      ? ledger.totalsBy('reason', { dataset: item.dataset }).map(({ key, bytesDown }) => ({ key, bytesDown }))
      : [],
  }
}

function itemViewOf(library: Owner['library'], { dataset, path }: OpenItem): ItemView | null {
  const { items } = library.list({ dataset, prefix: path, limit: 1 })
  return items.find(view => view.path === path) ?? null
}

function findItem({ library }: Owner, name: string): OpenItem | undefined {
  if (isSha256(name)) return library.openDigest(name)
  const [, dataset, path] = /^\/?(?:data\/)?([^/]+\/[^/]+)\/(.+)$/.exec(name) ?? []
  return dataset && path ? library.open(dataset, path) : undefined
}

function isoOf(ms: number | undefined): string | null {
  return ms === undefined ? null : new Date(ms).toISOString()
}
