import { createCipheriv } from 'node:crypto'
import { expect, it } from 'vitest'
import type { Cid } from '../cid.ts'
import { sha256Of } from '../digest.ts'
import type { ChunkRef, ExtentRef } from '../extent.ts'
import { chunksOf } from '../fastcdc.ts'
import { ExtentCutter, itemDag } from '../unixfs.ts'
import { buildDelta } from './build.ts'
import { StaticDelta } from './delta.ts'
import { keyOf } from './head.ts'
import type { ItemDag, ReleaseView } from './release-view.ts'
import { releaseOf } from './testing.ts'

const GIB = 1024 ** 3
const MIB = 1024 ** 2
const ITEM_BYTES = Number(process.env['DELTA_ITEM_GIB'] ?? 3) * GIB
const RSS_GROWTH_MAX = 300 * MIB

/** Part of a stream of noise that can be made again at any place. */
interface Piece {
  readonly seed: number
  readonly from: number
  readonly length: number
}

function noise(seed: number, from: number, length: number): Buffer {
  const iv = Buffer.alloc(16)
  iv.writeUInt32BE(seed, 0)
  iv.writeBigUInt64BE(BigInt(Math.floor(from / 16)), 8)
  const skip = from % 16
  return createCipheriv('aes-128-ctr', Buffer.alloc(16), iv)
    .update(Buffer.alloc(skip + length))
    .subarray(skip)
}

function read(pieces: readonly Piece[], from: number, to: number): Buffer {
  const parts: Buffer[] = []
  let start = 0
  for (const piece of pieces) {
    const first = Math.max(from - start, 0)
    const last = Math.min(to - start, piece.length)
    if (first < last) parts.push(noise(piece.seed, piece.from + first, last - first))
    start += piece.length
  }
  return Buffer.concat(parts)
}

/** One item as long as its pieces; nothing of it is kept in memory but its chunk list. */
async function viewOf(pieces: readonly Piece[]): Promise<ReleaseView & { readonly item: ItemDag }> {
  const cutter = new ExtentCutter()
  const placeOf = new Map<Cid, { from: number; chunks: readonly ChunkRef[] }>()
  const extents: ExtentRef[] = []
  let at = 0
  const keep = (cut: ReturnType<ExtentCutter['add']>) => {
    if (!cut) return
    const { cid, sizeBytes, dagBytes, chunks } = cut.extent
    placeOf.set(cid, { from: at, chunks })
    extents.push({ cid, sizeBytes, dagBytes })
    at += sizeBytes
  }
  async function* stream() {
    for (const { seed, from, length } of pieces) {
      for (let done = 0; done < length; done += MIB)
        yield noise(seed, from + done, Math.min(MIB, length - done))
    }
  }
  for await (const { digest, sizeBytes } of chunksOf(stream())) keep(cutter.add({ digest, sizeBytes }))
  keep(cutter.end())
  const { root } = itemDag(extents)
  const item = { path: 'film', sha256: sha256Of(root), root, sizeBytes: at, extents }
  const { catalog, readExtent } = releaseOf(new Map([['film', Buffer.from(root)]]))
  return {
    item,
    catalog,
    items: () => [item],
    chunksOf: async ({ cid, sizeBytes }) =>
      placeOf.get(cid)?.chunks ?? [{ digest: sha256Of(await readExtent(cid)), sizeBytes }],
    async readExtent(cid) {
      const place = placeOf.get(cid)
      return place
        ? read(pieces, place.from, place.from + extents.find(extent => extent.cid === cid)!.sizeBytes)
        : readExtent(cid)
    },
  }
}

it('of a huge item with scattered edits is as small as the edits, and takes little memory', {
  timeout: 600_000,
}, async () => {
  const edits = Array.from({ length: 100 }, (_, n) => Math.floor(((n + 0.37) * ITEM_BYTES) / 101))
  const pieces: Piece[] = []
  let from = 0
  for (const [n, at] of edits.entries()) {
    pieces.push({ seed: 1, from, length: at - from }, { seed: 100 + n, from: 0, length: 1024 })
    from = at + 1024
    if (n === 50) pieces.push({ seed: 2, from: 0, length: 5 * MIB })
  }
  pieces.push({ seed: 1, from, length: ITEM_BYTES - from })

  const old = await viewOf([{ seed: 1, from: 0, length: ITEM_BYTES }])
  const next = await viewOf(pieces)
  globalThis.gc?.()
  const before = process.memoryUsage().rss
  let rssMax = before
  const parts: Uint8Array[] = []
  const since = process.cpuUsage()
  const built = await buildDelta(old, next, {
    async write(part) {
      parts.push(part)
      rssMax = Math.max(rssMax, process.memoryUsage().rss)
    },
  })
  const { user } = process.cpuUsage(since)
  console.log(
    `${built.sizeBytes} bytes, head ${built.directory.size}, ${built.omittedExtents} omitted, ${(user / 1e6).toFixed(1)} s, RSS +${Math.round((rssMax - before) / MIB)} MiB`,
  )
  expect(built.sizeBytes).toBeLessThan(5 * MIB + 100 * 1024 + 64 * 1024)
  expect(rssMax - before).toBeLessThan(RSS_GROWTH_MAX)

  const bytes = Buffer.concat([built.beginning, ...parts])
  const head = bytes.subarray(8, 8 + built.directory.size)
  const delta = await StaticDelta.open(head, { ...built.directory, sha256: sha256Of(head) })
  const byKey = new Map(
    [...old.item.extents, ...old.catalog.extents].map(extent => [keyOf(extent.cid), extent.cid]),
  )
  delta.nameCatalog(next.catalog, () => old.catalog.extents)
  const nodes = delta.nameItems([next.item], () => old.item.extents)
  expect(nodes.at(-1)!.cid).toBe(next.item.root)
  for (const cid of delta.extents.keys()) {
    const rebuilt = await delta.rebuild(
      cid,
      async (at, length) => bytes.subarray(at, at + length),
      async (base, at, length) => (await old.readExtent(byKey.get(base.key)!)).subarray(at, at + length),
    )
    expect(Buffer.compare(rebuilt, await next.readExtent(cid))).toBe(0)
  }
})
