/**
 * Neighbours on the LAN (`TOWER_PEERS`) as a source of fills: before anything is planned for the dear
 * link, the extents that are missing are asked of them, by CID. What they send is proven by the
 * store like everything else; a peer that has little of a dataset, does not answer or sends wrong
 * bytes is not asked again in this fill.
 */
import type { Cid } from '../manifests/cid.ts'
import { EdgeError, isEdgeError } from '../manifests/errors.ts'
import type { Abortable } from '../manifests/extent.ts'
import type { ContentStore } from '../node/store/store.ts'
import type { Want } from './plan-fill.ts'
import { collect, type Upstream } from './upstream.ts'

export interface PeerTools {
  /** By their gateways: `ipfs/<cid>` below their root. */
  readonly peers: readonly Upstream[]
  readonly store: Pick<ContentStore, 'has' | 'admitExtent' | 'reserve'>
}

const CONCURRENCY = 6
/** After so many answers, one that had less than a quarter of them is left. */
const TRIALS = 16
const SHARE_MIN = 0.25

/**
 * Brings what peers have of `wants`, in their order.
 * @returns what is still missing; all of it when there is no room in the store.
 * @throws EdgeError `STORE_…`; the signal's reason
 */
export async function bringFromPeers(
  dataset: string,
  wants: readonly Want[],
  { peers, store }: PeerTools,
  options: Abortable,
): Promise<readonly Want[]> {
  const missing = wants.filter(({ cid }) => !store.has(cid))
  const asked = peers.map(upstream => new Peer(upstream, dataset))
  if (asked.length === 0 || missing.length === 0) return wants
  const bytes = missing.reduce((sum, { sizeBytes }) => sum + sizeBytes, 0)
  const room = await store.reserve(bytes, 'fill').catch((error: unknown) => {
    if (isEdgeError(error, 'STORE_FULL')) return undefined // the fill itself leaves the last classes out
    throw error
  })
  if (!room) return wants
  using _room = room
  const queue = missing.values()
  const bring = async () => {
    for (const want of queue) {
      options.signal.throwIfAborted()
      for (const peer of asked) if (await peer.brought(want, store, options)) break
      if (asked.every(({ isLeft }) => isLeft)) return
    }
  }
  await Promise.all(Array.from({ length: CONCURRENCY }, bring))
  return wants.filter(({ cid }) => !store.has(cid))
}

class Peer {
  readonly #upstream: Upstream
  readonly #dataset: string
  #asked = 0
  #had = 0
  isLeft = false

  constructor(upstream: Upstream, dataset: string) {
    this.#upstream = upstream
    this.#dataset = dataset
  }

  async brought(want: Want, store: PeerTools['store'], options: Abortable): Promise<boolean> {
    if (this.isLeft) return false
    this.#asked++
    try {
      await store.admitExtent(
        want.cid,
        await this.#read(want.cid, want.sizeBytes, options),
        want.rule,
        'fill',
      )
      this.#had++
      return true
    } catch (error) {
      options.signal.throwIfAborted()
      if (!isEdgeError(error) || error.code.startsWith('STORE_')) throw error
      if (error.code !== 'NOT_FOUND') this.isLeft = true
      return false
    } finally {
      if (this.#asked >= TRIALS && this.#had < this.#asked * SHARE_MIN) this.isLeft = true
    }
  }

  async #read(cid: Cid, sizeBytes: number, options: Abortable): Promise<Uint8Array> {
    const purpose = { dataset: this.#dataset, reason: 'peer' }
    const whole = this.#upstream.readWhole(`ipfs/${cid}`, { ...options, purpose, maxBytes: sizeBytes })
    const bytes = await collect(whole)
    if (bytes.length === sizeBytes) return bytes
    throw new EdgeError('UPSTREAM_LIED', `${this.#upstream.name}: ${bytes.length} bytes for ${cid}`)
  }
}
