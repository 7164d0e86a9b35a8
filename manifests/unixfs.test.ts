import { MemoryBlockstore } from 'blockstore-core'
import fc from 'fast-check'
import { importer } from 'ipfs-unixfs-importer'
import { balanced } from 'ipfs-unixfs-importer/layout'
import { describe, expect, it } from 'vitest'
import { cutExtent, extentOf } from './chunk-rule.ts'
import { codecOf, digestOf, rawCidOf } from './cid.ts'
import { sha256Of, type Sha256 } from './digest.ts'
import type { ChunkRef, ExtentRef } from './extent.ts'
import { chunksOf } from './fastcdc.ts'
import {
  EXTENT_BYTES_MAX,
  extentNode,
  ExtentCutter,
  itemDag,
  NODE_LINKS_MAX,
  parseNode,
  type CutExtent,
} from './unixfs.ts'
import { stream, vectors } from './vectors/vectors.ts'

interface Vectors {
  items: {
    sizeBytes: number
    chunks: number
    extents: { cid: string; sizeBytes: number }[]
    root: string
    dagBytes: number
  }[]
}

async function cutItem(bytes: Uint8Array): Promise<CutExtent[]> {
  const chunks: ChunkRef[] = []
  for await (const { digest, sizeBytes } of chunksOf([bytes])) chunks.push({ digest, sizeBytes })
  return cutChunks(chunks)
}

function cutChunks(chunks: Iterable<ChunkRef>): CutExtent[] {
  const cutter = new ExtentCutter()
  const extents: CutExtent[] = []
  for (const chunk of chunks) {
    const ended = cutter.add(chunk)
    if (ended) extents.push(ended)
  }
  const last = cutter.end()
  return last ? [...extents, last] : extents
}

const refsOf = (cut: CutExtent[]) => cut.map(({ extent }) => extent)
const anyDigest = fc
  .uint8Array({ minLength: 32, maxLength: 32 })
  .map(bytes => Buffer.from(bytes).toString('hex') as Sha256)
const anyChunk = fc.record({ digest: anyDigest, sizeBytes: fc.integer({ min: 1, max: 262_144 }) })
/** Many chunks cheaply: sizes and digests from a seed. */
const manyChunks = fc.tuple(fc.nat(2000), fc.nat()).map(([count, seed]) =>
  Array.from({ length: count }, (_, at) => {
    const digest = sha256Of(`${seed} ${at}`)
    return { digest, sizeBytes: 16_384 + (Number.parseInt(digest.slice(0, 8), 16) % 245_760) }
  }),
)

describe('items as UnixFS', () => {
  it('has the extents and roots of the vectors', async () => {
    for (const { sizeBytes, chunks, extents, root, dagBytes } of (vectors('unixfs.json') as Vectors).items) {
      const cut = refsOf(await cutItem(stream(sizeBytes)))
      expect(cut.flatMap(extent => extent.chunks)).toHaveLength(chunks)
      expect(cut.map(extent => ({ cid: extent.cid, sizeBytes: extent.sizeBytes }))).toEqual(extents)
      expect(itemDag(cut)).toMatchObject({ root, dagBytes, sizeBytes })
    }
  })

  it.each([0, 1, 16_384, 40_000, 300_000, 3_000_000, 30_000_000])(
    'has the root that the importer gives to %i bytes',
    async size => {
      const bytes = stream(size)
      const cut = refsOf(await cutItem(bytes))
      const imported = await importedRoot(bytes, cut)
      const { root, dagBytes } = itemDag(cut)
      expect(root).toBe(imported.cid)
      // the importer counts an upper node's links, but not always the node itself
      if (cut.length === 1) expect(dagBytes).toBe(imported.dagBytes)
    },
  )

  it('puts levels of at most 174 links above, as the balanced layout does', async () => {
    const leaf = (at: number): ExtentRef => {
      const { cid, sizeBytes, dagBytes } = extentNode([{ digest: sha256Of(`${at}`), sizeBytes: 1 + at }])
      return { cid, sizeBytes, dagBytes }
    }
    for (const count of [174, 175, 349, 174 * 174 + 1]) {
      const extents = Array.from({ length: count }, (_, at) => leaf(at))
      const { root, nodes, sizeBytes, dagBytes } = itemDag(extents)
      const byCid = new Map(nodes.map(node => [node.cid, parseNode(node.bytes)]))
      const leaves = (cid: typeof root): ExtentRef[] => {
        const node = byCid.get(cid)
        return node ? node.links.flatMap(link => (byCid.has(link.cid) ? leaves(link.cid) : [link])) : []
      }
      expect(nodes.at(-1)?.cid).toBe(root)
      expect(leaves(root)).toEqual(extents)
      expect(byCid.get(root)).toMatchObject({ sizeBytes, dagBytes })
      expect(Math.max(...[...byCid.values()].map(node => node.links.length))).toBeLessThanOrEqual(
        NODE_LINKS_MAX,
      )
      expect(nodes.length).toBe(count <= 174 ? 1 : count <= 349 ? Math.ceil(count / 174) + 1 : 175 + 2 + 1)
    }
  })
})

describe('ExtentCutter', () => {
  it('loses and reorders nothing, and keeps the bounds', () => {
    fc.assert(
      fc.property(manyChunks, chunks => {
        const extents = refsOf(cutChunks(chunks))
        if (chunks.length === 0) {
          expect(extents).toEqual([
            {
              cid: rawCidOf(sha256Of('')),
              sizeBytes: 0,
              dagBytes: 0,
              chunks: [{ digest: sha256Of(''), sizeBytes: 0 }],
            },
          ])
          return
        }
        expect(extents.flatMap(extent => extent.chunks)).toEqual(chunks)
        for (const extent of extents) {
          expect(extent.sizeBytes).toBeLessThanOrEqual(EXTENT_BYTES_MAX)
          expect(extent.chunks.length).toBeLessThanOrEqual(NODE_LINKS_MAX)
          expect(codecOf(extent.cid)).toBe(chunks.length === 1 ? 'raw' : 'dag-pb')
        }
      }),
      { numRuns: 50 },
    )
  })

  it('equals the rule as worded', () => {
    fc.assert(
      fc.property(manyChunks, chunks => {
        const ends: number[] = []
        let count = 0
        let size = 0
        for (const [at, { digest, sizeBytes }] of chunks.entries()) {
          if (size + sizeBytes > EXTENT_BYTES_MAX) {
            ends.push(at)
            count = 0
            size = 0
          }
          count += 1
          size += sizeBytes
          const zeroBits = BigInt(`0x${digest}`) % 32n === 0n
          if ((count >= 16 && zeroBits) || count === 174) {
            ends.push(at + 1)
            count = 0
            size = 0
          }
        }
        if (count > 0) ends.push(chunks.length)
        let at = 0
        expect(
          chunks.length === 0 ? [] : refsOf(cutChunks(chunks)).map(extent => (at += extent.chunks.length)),
        ).toEqual(ends)
      }),
      { numRuns: 50 },
    )
  })

  it('cuts extents that can be chunked again without their neighbours', async () => {
    const bytes = stream(30_000_000)
    let from = 0
    for (const { extent, node } of await cutItem(bytes)) {
      const part = bytes.subarray(from, from + extent.sizeBytes)
      expect(cutExtent(part, 'fastcdc-v1')).toEqual(extent.chunks)
      expect(extentOf(part, 'fastcdc-v1', false)).toEqual({ extent, node })
      from += extent.sizeBytes
    }
    expect(from).toBe(bytes.length)
  })
})

describe('parseNode', () => {
  it('reads what extentNode wrote', () => {
    fc.assert(
      fc.property(fc.array(anyChunk, { minLength: 1, maxLength: 174 }), chunks => {
        const { bytes, sizeBytes, dagBytes } = extentNode(chunks)
        expect(parseNode(bytes)).toEqual({
          sizeBytes,
          dagBytes,
          links: chunks.map(chunk => ({
            cid: rawCidOf(chunk.digest),
            sizeBytes: chunk.sizeBytes,
            dagBytes: chunk.sizeBytes,
          })),
        })
      }),
    )
  })

  it('reads nothing else: a changed byte is refused or changes a name or a size', () => {
    const chunks = [sha256Of('a'), sha256Of('b')].map((digest, at) => ({ digest, sizeBytes: 70_000 + at }))
    const { bytes } = extentNode(chunks)
    const right = parseNode(bytes)
    for (let at = 0; at < bytes.length; at++) {
      const damaged = Buffer.from(bytes)
      damaged[at]! ^= 1 << (at % 8)
      let read: unknown
      try {
        read = parseNode(damaged)
      } catch (error) {
        expect(error).toMatchObject({ code: 'CATALOG_INVALID' })
        continue
      }
      expect(read).not.toEqual(right)
    }
    expect(() => parseNode(bytes.subarray(0, -1))).toThrow()
    expect(() => parseNode(Buffer.concat([bytes, Buffer.of(0)]))).toThrow()
    expect(() => parseNode(new Uint8Array())).toThrow()
  })

  it('survives any bytes', () => {
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 200 }), bytes => {
        expect(() => parseNode(bytes)).toThrow(expect.objectContaining({ code: 'CATALOG_INVALID' }))
      }),
    )
  })
})

/** The importer, told where chunks end and which chunks are under one node. */
async function importedRoot(bytes: Uint8Array, extents: readonly { chunks: readonly ChunkRef[] }[]) {
  const chunks = extents.flatMap(extent => extent.chunks)
  const store = new MemoryBlockstore()
  for await (const entry of importer([{ content: bytes }], store, {
    cidVersion: 1,
    rawLeaves: true,
    reduceSingleLeafToSelf: chunks.length <= 1,
    chunker: async function* () {
      let from = 0
      for (const { sizeBytes } of chunks) {
        yield bytes.subarray(from, from + sizeBytes)
        from += sizeBytes
      }
    },
    layout: async (source, reduce) => {
      const leaves = []
      for await (const leaf of source) leaves.push(leaf)
      if (chunks.length <= 1) return await reduce(leaves)
      const nodes = []
      for (const extent of extents) nodes.push(await reduce(leaves.splice(0, extent.chunks.length)))
      if (nodes.length === 1) return nodes[0]!
      return await balanced({ maxChildrenPerNode: NODE_LINKS_MAX })(
        (async function* () {
          yield* nodes
        })(),
        reduce,
      )
    },
  })) {
    const cid = entry.cid.toString()
    expect(digestOf(cid as never)).toHaveLength(64)
    return { cid, dagBytes: Number(entry.size) }
  }
  throw new Error('the importer gave nothing')
}
