/**
 * For tests only: an origin with real releases in a folder, served by a real server, and a node's
 * store, trust and releases to fill.
 */
import { mkdir, rm, writeFile } from 'node:fs/promises'
import { dirname, join } from 'node:path'
import { sha256Of } from '../manifests/digest.ts'
import { EdgeError } from '../manifests/errors.ts'
import { folderStorage } from '../manifests/publish/folder-storage.ts'
import {
  publishRelease,
  type PublishOptions,
  type PublishReport,
} from '../manifests/publish/publish-release.ts'
import { initialState } from '../manifests/tuf/accepted-state.ts'
import { createRepository, setPublisher } from '../manifests/tuf/ceremony.ts'
import { releaseSigner } from '../manifests/tuf/release-signer.ts'
import { loadRepository } from '../manifests/tuf/repository.ts'
import { generateKeyPem, parseSigningKey } from '../manifests/tuf/signing-key.ts'
import { openLibrary, type NodeLibrary } from '../node/open-library.ts'
import { packView } from '../node/pack-view.ts'
import { joinedRepoView, trustRepoView } from '../node/repo-view.ts'
import { openStore } from '../node/store/open-store.ts'
import type { ContentStore, StoreOptions } from '../node/store/store.ts'
import { openTrustStore, type TrustStore } from '../node/trust-store.ts'
import { fillOnce, type FillEvent, type FillRequest } from './fill-once.ts'
import { openHttpUpstream, type HttpUpstreamOptions } from './http-upstream.ts'
import { extentsOf, readCatalog } from './item-extents.ts'
import { openLocalQueue } from './local-queue.ts'
import type { OnDemand } from './on-demand.ts'
import { REQUEST_BYTES } from './plan-fill.ts'
import { openDigestCache } from './sources.ts'
import { openSharedStaging } from './shared-staging.ts'
import type { StagedRanges } from './staged-ranges.ts'
import { folderFiles, serve, staticFiles, temporaryFolder, type Handler, type TestServer } from './testing.ts'
import type { Upstream, WireRecord } from './upstream.ts'

export const signal = new AbortController().signal
const MIB = 1024 * 1024

export type Files = Readonly<Record<string, Uint8Array | string>>

export interface TestOrigin extends AsyncDisposable {
  readonly folder: string
  readonly root: Uint8Array
  publish(dataset: string, files: Files, options?: PublishOptions): Promise<PublishReport>
  serve(around?: (honest: Handler) => Handler): Promise<TestServer>
}

export async function openOrigin(): Promise<TestOrigin> {
  const folder = await temporaryFolder()
  const repository = folderStorage(join(folder.path, 'repository'))
  const keys = [parseSigningKey(generateKeyPem())]
  const role = { keys, threshold: 1 }
  const now = new Date()
  await createRepository(
    { storage: repository, keys, now },
    { root: role, targets: role, snapshot: role, timestamp: role },
  )
  await setPublisher({ storage: repository, keys, now }, await loadRepository(repository), {
    name: 'all',
    paths: ['*/*/manifest.json'],
    ...role,
  })
  const root = (await repository.read('metadata/1.root.json'))!
  return {
    folder: join(folder.path, 'repository'),
    root,
    async publish(dataset, files, options) {
      const from = join(folder.path, 'files')
      await rm(from, { recursive: true, force: true })
      for (const [path, bytes] of Object.entries(files)) {
        await mkdir(dirname(join(from, path)), { recursive: true })
        await writeFile(join(from, path), bytes)
      }
      const signer = releaseSigner({ keys })
      return await publishRelease({
        folder: from,
        dataset,
        repository,
        signer,
        options: { level: 3, ...options },
        now: new Date(),
      })
    },
    serve: (around = honest => honest) =>
      serve(around(staticFiles(folderFiles(join(folder.path, 'repository'))))),
    [Symbol.asyncDispose]: () => folder[Symbol.asyncDispose](),
  }
}

export interface TestNode extends AsyncDisposable {
  readonly folder: string
  readonly store: ContentStore
  readonly trust: TrustStore
  readonly staged: StagedRanges
  readonly releases: NodeLibrary
  readonly records: WireRecord[]
  /** Fetches what readers of the library miss. */
  onDemand: OnDemand | undefined
  upstream(url: URL, options?: Partial<HttpUpstreamOptions>): Upstream
  request(upstreams: readonly Upstream[], more?: Partial<FillRequest>): FillRequest
  fill(upstreams: readonly Upstream[], more?: Partial<FillRequest>): Promise<FillEvent[]>
  /** Every item of the current release, read back and verified. */
  items(dataset: string): Promise<Record<string, Buffer>>
}

/** @param folder kept when given, so that it can be opened again. */
export async function openNode(
  root: Uint8Array,
  folder?: string,
  options: Partial<StoreOptions> = {},
): Promise<TestNode> {
  const stack = new AsyncDisposableStack()
  const path = folder ?? stack.use(await temporaryFolder()).path
  const store = stack.use(
    await openStore({
      folder: path,
      hotBytesMax: 512 * MIB,
      warmBytesMax: 512 * MIB,
      reserveBytes: MIB,
      ...options,
    }),
  )
  const trust = await openTrustStore(join(path, 'trust-v1'))
  if (!trust.record.accepted) await trust.update(record => ({ ...record, accepted: initialState(root) }))
  const staged = stack.use(await openSharedStaging(join(path, 'fetched-v1')))
  const cache = await openDigestCache(join(path, 'directories-v1'))
  const bring: OnDemand['bring'] = (wish, until) => {
    if (!node.onDemand) throw new EdgeError('ITEM_ABSENT', wish.path)
    return node.onDemand.bring(wish, until)
  }
  const releases = stack.use(await openLibrary({ store, trust, bring, retryAfterSeconds: () => 77 }))
  const records: WireRecord[] = []
  const node: TestNode = {
    folder: path,
    store,
    trust,
    staged,
    releases,
    records,
    onDemand: undefined,
    upstream: (url, more) =>
      stack.use(
        openHttpUpstream(url, {
          onWire: record => records.push(record),
          stall: { bytesMin: 1000, ms: 5000 },
          ...more,
        }),
      ),
    request: (upstreams, more) => ({
      upstreams,
      store,
      trust,
      staged,
      cache,
      releases,
      queue: openLocalQueue(),
      requestBytes: REQUEST_BYTES,
      wants: () => true,
      now: Date.now,
      signal,
      board: { attemptsMax: 4, pauseMs: 20, pauseMsMax: 100 },
      ...more,
    }),
    fill: async (upstreams, more) => await Array.fromAsync(fillOnce(node.request(upstreams, more))),
    async items(dataset) {
      const manifest = releases.releases().find(known => known.dataset === dataset)!.current!
      const items: Record<string, Buffer> = {}
      for (const { path: item, root: cid, sizeBytes, sha256 } of await readCatalog(store, manifest, {
        signal,
      })) {
        const parts = extentsOf(store, cid, sizeBytes)!
        items[item] = Buffer.concat(
          await Promise.all(parts.map(extent => store.readExtent(extent.cid, { signal }))),
        )
        if (sha256Of(items[item]) !== sha256) throw new Error(`${item} is wrong`)
      }
      return items
    },
    [Symbol.asyncDispose]: () => stack.disposeAsync(),
  }
  return node
}

/** A hub's `/repo/`: what it serves by, and the copy in `folder`. */
export async function serveCopy({ trust }: TestNode, folder: string): Promise<TestServer> {
  const view = joinedRepoView(trustRepoView(trust), packView(folder))
  const read = async (path: string) => {
    const length = await view.size(path)
    const bytes = length === undefined ? undefined : await view.read(path, { offset: 0, length }, { signal })
    return bytes && Buffer.from(bytes)
  }
  return await serve(staticFiles(read))
}
