/**
 * Places to heal from, as the store asks for them: pin targets, and other nodes nearby
 * (`TOWER_PEERS`) by their trustless gateway. Bytes are not trusted; the store proves them.
 *
 * A reader waits for a heal, and all sources share its deadline: so each has a share of its own, and
 * one that does not answer within it counts as down and is passed over for a while.
 */
import { request } from 'undici'
import { codecOf, type Cid } from '../manifests/cid.ts'
import { EdgeError } from '../manifests/errors.ts'
import type { Abortable } from '../manifests/extent.ts'
import { EXTENT_BYTES_MAX } from '../manifests/unixfs.ts'
import type { ContentStore, HealSource } from '../node/store/store.ts'
import type { GuardedTarget } from './guarded-target.ts'
import type { PinTarget } from './pin-target.ts'

const SHARE_MS = 700
const REST_MS = 5000
/** In a row. */
const FAILURES_MAX = 3

/** @param shareMs how long it may take over one block or extent. */
export function pinHealSource(
  guard: GuardedTarget,
  store: Pick<ContentStore, 'view'>,
  shareMs = SHARE_MS,
): HealSource {
  const ask = async (
    call: (target: PinTarget, options: Abortable) => Promise<Uint8Array | undefined>,
    options: Abortable,
  ) => {
    if (!guard.isUp) return undefined
    // the inner share tells the breaker, the outer one covers a target that is not open yet
    const once = (target: PinTarget) => withinShare(guard.name, shareMs, options, part => call(target, part))
    return await withinShare(guard.name, shareMs, options, part => guard.use(once, part))
  }
  return {
    name: guard.name,
    fetchChunk: (cid, options) => ask((target, part) => target.fetchBlock(cid, part), options),
    async fetchExtent(cid, options) {
      if (codecOf(cid) === 'raw') return undefined // it was asked for as a chunk
      const sizeBytes = store.view(cid)?.sizeBytes ?? EXTENT_BYTES_MAX
      return await ask((target, part) => target.fetchExtent({ cid, sizeBytes }, part), options)
    },
  }
}

/** @param url of the other node, `http://10.0.0.3:8080`. */
export function peerHealSource(url: string, shareMs = SHARE_MS): HealSource {
  const { host } = new URL(url)
  let restsUntil = 0
  let failures = 0
  const get = async (path: string, maxBytes: number, options: Abortable) => {
    if (performance.now() < restsUntil) return undefined
    try {
      const bytes = await withinShare(host, shareMs, options, ({ signal }) =>
        fetchBounded(new URL(path, url), maxBytes, signal),
      )
      failures = 0
      return bytes
    } catch (error) {
      options.signal.throwIfAborted()
      if (++failures >= FAILURES_MAX) restsUntil = performance.now() + REST_MS
      throw error
    }
  }
  return {
    name: `peer ${host}`,
    fetchChunk: (cid: Cid, options) => get(`/ipfs/${cid}?format=raw`, EXTENT_BYTES_MAX, options),
    fetchExtent: (cid: Cid, options) => get(`/ipfs/${cid}`, EXTENT_BYTES_MAX, options),
  }
}

async function fetchBounded(
  url: URL,
  maxBytes: number,
  signal: AbortSignal,
): Promise<Uint8Array | undefined> {
  const { statusCode, body } = await request(url, { signal })
  if (statusCode !== 200) {
    await body.dump()
    return undefined
  }
  const pieces: Buffer[] = []
  let sizeBytes = 0
  for await (const piece of body as AsyncIterable<Buffer>) {
    sizeBytes += piece.length
    if (sizeBytes > maxBytes) throw new EdgeError('UPSTREAM_LIED', `${url.host} sent more than an extent`)
    pieces.push(piece)
  }
  return Buffer.concat(pieces)
}

/** @throws EdgeError `PIN_TARGET_DOWN` when nothing came in time. */
async function withinShare<T>(
  name: string,
  shareMs: number,
  options: Abortable,
  call: (options: Abortable) => Promise<T>,
): Promise<T> {
  const late = AbortSignal.timeout(shareMs)
  const signal = AbortSignal.any([options.signal, late])
  const { promise, reject } = Promise.withResolvers<never>()
  const leave = () => {
    const down = new EdgeError('PIN_TARGET_DOWN', `${name} did not answer within ${shareMs} ms`)
    reject(options.signal.aborted ? options.signal.reason : down)
  }
  signal.addEventListener('abort', leave, { once: true })
  try {
    const called = call({ signal })
    called.catch(() => {}) // whoever left does not hear of it
    return await Promise.race([called, promise])
  } finally {
    signal.removeEventListener('abort', leave)
  }
}
