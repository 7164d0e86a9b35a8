/**
 * What the library's tests and benches share: releases made in memory, and trust that believes what
 * it is told.
 */
import { encodeCatalog, cutCatalogPages, type CatalogEntry } from '../manifests/catalog.ts'
import { rawCidOf } from '../manifests/cid.ts'
import { sha256Of } from '../manifests/digest.ts'
import type { ChunkRule, DagNode } from '../manifests/extent.ts'
import { CHUNKING } from '../manifests/fastcdc.ts'
import { encodeManifest, MANIFEST_FORMAT, type Manifest, type PinPolicy } from '../manifests/manifest.ts'
import { memoryItem, type MemoryItem } from '../manifests/testing/memory-item.ts'
import { ExtentCutter, itemDag, type CutExtent } from '../manifests/unixfs.ts'
import type { PriorityClass } from './library.ts'
import type { ContentStore } from './store/store.ts'
import type { ManifestBytes, TrustView } from './trust-view.ts'

export interface TestRelease {
  readonly manifest: Manifest
  readonly bytes: Buffer
  readonly items: ReadonlyMap<string, MemoryItem>
  readonly catalog: { readonly extents: readonly TestContent[]; readonly nodes: readonly DagNode[] }
}

export interface TestContent {
  readonly cid: CatalogEntry['root']
  readonly bytes: Uint8Array
}

export interface ReleaseWish {
  readonly dataset: string
  readonly revision: number
  readonly files: Readonly<Record<string, Uint8Array>>
  readonly priority?: PriorityClass
  readonly classes?: Readonly<Record<string, PriorityClass>>
  readonly pin?: PinPolicy
}

export async function testRelease(wish: ReleaseWish): Promise<TestRelease> {
  const items = new Map<string, MemoryItem>()
  const entries: CatalogEntry[] = []
  for (const [path, bytes] of Object.entries(wish.files)) {
    const item = await memoryItem(bytes)
    const priority = wish.classes?.[path]
    items.set(path, item)
    entries.push({
      path,
      sizeBytes: bytes.length,
      sha256: sha256Of(bytes),
      root: item.root,
      mediaType: 'text/plain',
      ...(priority !== undefined && { priority }),
    })
  }
  return releaseOf(wish, entries, items)
}

/** @param entries may name items whose bytes nobody has. */
export function releaseOf(
  wish: Omit<ReleaseWish, 'files'>,
  entries: readonly CatalogEntry[],
  items: ReadonlyMap<string, MemoryItem>,
): TestRelease {
  const text = encodeCatalog(entries)
  const catalog = cutCatalog(text)
  const manifest: Manifest = {
    format: MANIFEST_FORMAT,
    dataset: wish.dataset,
    revision: wish.revision,
    published: '2026-01-01T00:00:00Z',
    priority: wish.priority ?? 2,
    pin: wish.pin,
    chunking: CHUNKING,
    catalog: {
      root: catalog.root,
      sha256: sha256Of(text),
      size: text.length,
      items: entries.length,
      itemBytes: entries.reduce((sum, { sizeBytes }) => sum + sizeBytes, 0),
    },
    packs: [],
    deltas: [],
  }
  return { manifest, bytes: encodeManifest(manifest), items, catalog }
}

function cutCatalog(text: Uint8Array) {
  const cutter = new ExtentCutter()
  const cuts: CutExtent[] = []
  let from = 0
  for (const to of cutCatalogPages(text)) {
    const cut = cutter.add({ digest: sha256Of(text.subarray(from, to)), sizeBytes: to - from })
    if (cut) cuts.push(cut)
    from = to
  }
  const last = cutter.end()
  if (last) cuts.push(last)
  const dag = itemDag(cuts.map(({ extent }) => extent))
  let at = 0
  const extents = cuts.map(({ extent }) => {
    at += extent.sizeBytes
    return { cid: extent.cid, bytes: text.subarray(at - extent.sizeBytes, at) }
  })
  return { root: dag.root, extents, nodes: dag.nodes }
}

export async function storeCatalog(store: ContentStore, { catalog }: TestRelease): Promise<void> {
  await store.admitNodes(catalog.nodes)
  for (const { cid, bytes } of catalog.extents) await store.admitExtent(cid, bytes, 'catalog-v1', 'test')
}

/** Upper nodes first, as a fill does. */
export async function storeItem(
  store: ContentStore,
  item: MemoryItem,
  rule: ChunkRule = 'fastcdc-v1',
): Promise<void> {
  const extents = new Set(item.extents.map(({ cid }) => cid))
  for await (const node of item.nodes()) if (!extents.has(node.cid)) await store.admitNodes([node])
  for (const { cid } of item.extents) await store.admitExtent(cid, await item.readExtent(cid), rule, 'test')
}

export async function storeItems(
  store: ContentStore,
  release: TestRelease,
  ...paths: string[]
): Promise<void> {
  const chosen = paths.length > 0 ? paths : [...release.items.keys()]
  await Promise.all(chosen.map(path => storeItem(store, release.items.get(path)!)))
}

/** Believes everything; remembers as long as it is not thrown away, and so across stores. */
export class TestTrust implements TrustView {
  sequence = 1
  pins: readonly string[] = []
  readonly #manifests = new Map<string, ManifestBytes>()
  readonly #floors = new Map<string, number>()
  readonly #denied = new Set<string>()

  get wishes(): string {
    return [...this.#denied, '', ...this.pins].join('\n')
  }

  datasets(): string[] {
    return [...this.#manifests.keys()]
  }

  manifests(dataset: string): ManifestBytes {
    return this.#manifests.get(dataset) ?? {}
  }

  isDenied({ sha256 }: { readonly sha256: string }): boolean {
    return this.#denied.has(sha256)
  }

  freshness() {
    return { fresh: true, confirmedAt: '2026-01-01T00:00:00.000Z', expiresAt: '2027-01-01T00:00:00.000Z' }
  }

  revisionFloor(dataset: string): number {
    return this.#floors.get(dataset) ?? 0
  }

  async keep(dataset: string, manifests: ManifestBytes, revision: number): Promise<void> {
    this.#manifests.set(dataset, manifests)
    this.#floors.set(dataset, Math.max(revision, this.revisionFloor(dataset)))
    this.sequence++
  }

  deny(sha256: string): void {
    this.#denied.add(sha256)
    this.sequence++
  }
}

/** An entry for bytes that exist nowhere. */
export function phantomEntry(path: string, sizeBytes: number): CatalogEntry {
  const sha256 = sha256Of(path)
  return { path, sizeBytes, sha256, root: rawCidOf(sha256), mediaType: 'text/plain' }
}
