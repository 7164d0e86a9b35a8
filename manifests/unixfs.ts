/**
 * Items as UnixFS trees: which chunks make an extent, the dag-pb node of an extent, and the nodes
 * above extents. Roots equal those of ipfs-unixfs-importer for the same boundaries.
 *
 * Encoded and parsed by hand, because the form is fixed (docs/formats.md) and the store parses
 * thousands of nodes: whatever is not in exactly that form is refused as `CATALOG_INVALID`.
 */
import { cidBytes, cidFromBytes, cidOf, codecOf, rawCidOf, CID_BYTES, type Cid } from './cid.ts'
import { sha256Of, type Sha256 } from './digest.ts'
import { isEdgeError, EdgeError } from './errors.ts'
import type { ChunkRef, DagNode, Extent, ExtentRef } from './extent.ts'
import { ByteReader, ByteWriter } from './varint.ts'

/** Links of one node: what kubo and the importer use, too. */
export const NODE_LINKS_MAX = 174
export const EXTENT_CHUNKS_MIN = 16
export const EXTENT_BYTES_MAX = 8 * 1024 * 1024
/** A full node has about 9.5 KB. */
export const NODE_BYTES_MAX = 16 * 1024

export interface SizedNode extends DagNode, ExtentRef {}

export interface ParsedNode {
  /** Bytes of content below. */
  readonly sizeBytes: number
  /** Bytes of all blocks below and including this one. */
  readonly dagBytes: number
  /** In order, at least one; either all raw (an extent's chunks) or all dag-pb (extents, or more of these). */
  readonly links: readonly ExtentRef[]
}

/** The node of an extent that is not a single raw block. */
export function extentNode(chunks: readonly ChunkRef[]): SizedNode {
  return nodeOver(
    chunks.map(({ digest, sizeBytes }) => ({ cid: rawCidOf(digest), sizeBytes, dagBytes: sizeBytes })),
  )
}

/**
 * An item's root over its extents (at least one), and the nodes between.
 *
 * @returns `nodes` has the nodes above the extents only, lower levels first and the root last;
 * it is empty when the only extent is the root.
 */
export function itemDag(extents: readonly ExtentRef[]): {
  root: Cid
  sizeBytes: number
  dagBytes: number
  nodes: DagNode[]
} {
  const nodes: DagNode[] = []
  let level = extents
  while (level.length > 1) {
    const above: ExtentRef[] = []
    for (let first = 0; first < level.length; first += NODE_LINKS_MAX) {
      const { cid, bytes, sizeBytes, dagBytes } = nodeOver(level.slice(first, first + NODE_LINKS_MAX))
      nodes.push({ cid, bytes })
      above.push({ cid, sizeBytes, dagBytes })
    }
    level = above
  }
  const [{ cid, sizeBytes, dagBytes }] = level as [ExtentRef]
  return { root: cid, sizeBytes, dagBytes, nodes }
}

/** @throws EdgeError `CATALOG_INVALID` for anything but a node as we write it. */
export function parseNode(bytes: Uint8Array): ParsedNode {
  const reader = new ByteReader(bytes, 'CATALOG_INVALID')
  if (bytes.length > NODE_BYTES_MAX) throw reader.invalid('too long for a node')
  const expect = (value: number) => {
    if (reader.varint(255) !== value) throw reader.invalid('not a node of our form')
  }

  const linked: { cid: Cid; dagBytes: number }[] = []
  let field = reader.varint(255)
  while (field === 0x12) {
    const linkEnd = reader.varint(64)
    const before = reader.left
    expect(0x0a)
    expect(CID_BYTES)
    const cid = readCid(reader)
    expect(0x12)
    expect(0)
    expect(0x18)
    linked.push({ cid, dagBytes: reader.varint() })
    if (before - reader.left !== linkEnd) throw reader.invalid('a link has another length')
    field = reader.varint(255)
  }
  if (field !== 0x0a || linked.length === 0 || linked.length > NODE_LINKS_MAX)
    throw reader.invalid('not a node of our form')
  if (reader.varint() !== reader.left) throw reader.invalid('its data has another length')
  expect(0x08)
  expect(2)
  expect(0x18)
  const sizeBytes = reader.varint()
  const links = linked.map(({ cid, dagBytes }) => {
    expect(0x20)
    return { cid, sizeBytes: reader.varint(), dagBytes }
  })
  reader.end()
  return checkNode({ sizeBytes, links, dagBytes: sum(links.map(link => link.dagBytes)) + bytes.length })
}

/** An extent with its node; none for a raw one. */
export interface CutExtent {
  readonly extent: Extent
  readonly node?: DagNode
}

/** Gathers an item's chunks into extents: the rule of docs/formats.md. */
export class ExtentCutter {
  #chunks: ChunkRef[] = []
  #sizeBytes = 0
  #ended = 0

  /** @returns the extent that has ended before or with this chunk, if one has. */
  add(chunk: ChunkRef): CutExtent | undefined {
    if (this.#sizeBytes + chunk.sizeBytes > EXTENT_BYTES_MAX) {
      const ended = this.#take()
      this.#push(chunk)
      return ended
    }
    this.#push(chunk)
    return endsExtent(this.#chunks.length, chunk.digest) ? this.#take() : undefined
  }

  /** The item has ended. @returns its last extent, unless that has been returned already. */
  end(): CutExtent | undefined {
    if (this.#ended > 0) return this.#chunks.length > 0 ? this.#take() : undefined
    if (this.#chunks.length > 1) return this.#take()
    return rawExtent(this.#chunks[0] ?? { digest: sha256Of(''), sizeBytes: 0 })
  }

  #push(chunk: ChunkRef): void {
    this.#chunks.push(chunk)
    this.#sizeBytes += chunk.sizeBytes
  }

  #take(): CutExtent {
    const chunks = this.#chunks
    this.#chunks = []
    this.#sizeBytes = 0
    this.#ended += 1
    return nodeExtent(chunks)
  }
}

/** An extent that is the whole of an item of at most one chunk. */
export function rawExtent(chunk: ChunkRef): CutExtent {
  const { digest, sizeBytes } = chunk
  return { extent: { cid: rawCidOf(digest), sizeBytes, dagBytes: sizeBytes, chunks: [chunk] } }
}

export function nodeExtent(chunks: readonly ChunkRef[]): CutExtent {
  const { cid, bytes, sizeBytes, dagBytes } = extentNode(chunks)
  return { extent: { cid, sizeBytes, dagBytes, chunks }, node: { cid, bytes } }
}

function endsExtent(count: number, digest: Sha256): boolean {
  if (count === NODE_LINKS_MAX) return true
  return count >= EXTENT_CHUNKS_MIN && (Number.parseInt(digest.slice(-2), 16) & 31) === 0
}

function nodeOver(links: readonly ExtentRef[]): SizedNode {
  const sizeBytes = sum(links.map(link => link.sizeBytes))
  const data = new ByteWriter().varint(0x08).varint(2).varint(0x18).varint(sizeBytes)
  const node = new ByteWriter()
  for (const link of links) {
    node.varint(0x12).varint(CID_BYTES + 5 + varintBytes(link.dagBytes))
    node.varint(0x0a).varint(CID_BYTES).bytes(cidBytes(link.cid))
    node.varint(0x12).varint(0)
    node.varint(0x18).varint(link.dagBytes)
    data.varint(0x20).varint(link.sizeBytes)
  }
  node.varint(0x0a).varint(data.length).bytes(data.done())
  const bytes = Buffer.from(node.done())
  const dagBytes = sum(links.map(link => link.dagBytes)) + bytes.length
  return { cid: cidOf('dag-pb', sha256Of(bytes)), bytes, sizeBytes, dagBytes }
}

function varintBytes(value: number): number {
  let count = 1
  for (; value >= 0x80; count++) value = Math.floor(value / 0x80)
  return count
}

function readCid(reader: ByteReader): Cid {
  try {
    return cidFromBytes(reader.bytes(CID_BYTES))
  } catch (cause) {
    if (!isEdgeError(cause, 'REQUEST_INVALID')) throw cause
    throw new EdgeError('CATALOG_INVALID', 'a link is not a CID of our form', { cause })
  }
}

function checkNode(node: ParsedNode): ParsedNode {
  const codec = codecOf(node.links[0]!.cid)
  const sane = node.links.every(
    link =>
      codecOf(link.cid) === codec &&
      (codec === 'raw' ? link.dagBytes === link.sizeBytes : link.dagBytes > link.sizeBytes),
  )
  if (
    !sane ||
    sum(node.links.map(link => link.sizeBytes)) !== node.sizeBytes ||
    !Number.isSafeInteger(node.dagBytes)
  ) {
    throw new EdgeError('CATALOG_INVALID', "the sizes or kinds of a node's links do not fit together")
  }
  return node
}

function sum(values: readonly number[]): number {
  return values.reduce((total, value) => total + value, 0)
}
