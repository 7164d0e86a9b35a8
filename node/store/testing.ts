/**
 * What the store's tests share: content with its extents, and stores in folders that go away.
 */
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { hash } from 'node:crypto'
import type { Cid } from '../../manifests/cid.ts'
import { extentOf } from '../../manifests/chunk-rule.ts'
import { CHUNKING, nextCut } from '../../manifests/fastcdc.ts'
import type { Extent, DagNode } from '../../manifests/extent.ts'
import { LruTiers } from './lru-tiers.ts'
import { openStore } from './open-store.ts'
import type { ContentStore, StoreOptions } from './store.ts'

export const MIB = 1024 * 1024
export const UNHURRIED = { signal: new AbortController().signal }

export interface TestExtent {
  readonly cid: Cid
  readonly bytes: Buffer
  readonly extent: Extent
  readonly node: DagNode | undefined
}

/** The same bytes for the same seed; not compressible. */
export function bytesOf(seed: number | string, sizeBytes: number): Buffer {
  const blocks: Buffer[] = []
  for (let at = 0; at * 64 < sizeBytes; at++) blocks.push(hash('sha512', `${seed} ${at}`, 'buffer'))
  return Buffer.concat(blocks).subarray(0, sizeBytes)
}

/** An extent of one raw block (up to about 60 KB), or one of several chunks. */
export function extentFor(seed: number | string, sizeBytes: number): TestExtent {
  const bytes = bytesOf(seed, sizeBytes)
  const single = sizeBytes === 0 || nextCut(bytes, 0, bytes.length, CHUNKING) === bytes.length
  const { extent, node } = extentOf(bytes, 'fastcdc-v1', single)
  return { cid: extent.cid, bytes, extent, node }
}

export class TestFolder implements AsyncDisposable {
  readonly path: string
  constructor(path: string) {
    this.path = path
  }
  async [Symbol.asyncDispose](): Promise<void> {
    await rm(this.path, { recursive: true, force: true })
  }
}

export async function temporaryFolder(): Promise<TestFolder> {
  return new TestFolder(await mkdtemp(join(tmpdir(), 'towerlight-store-')))
}

/** With least recently used tiers, so that a test can foresee what goes where. */
export function openTestStore(folder: string, options: Partial<StoreOptions> = {}): Promise<ContentStore> {
  return openStore({
    folder,
    hotBytesMax: 256 * MIB,
    warmBytesMax: 256 * MIB,
    reserveBytes: 16 * MIB,
    policy: (capacityBytes, hotBytesMax) => new LruTiers(capacityBytes, hotBytesMax),
    ...options,
  })
}

export async function admit(store: ContentStore, ...extents: readonly TestExtent[]): Promise<void> {
  await Promise.all(extents.map(({ cid, bytes }) => store.admitExtent(cid, bytes, 'fastcdc-v1', 'test')))
}
