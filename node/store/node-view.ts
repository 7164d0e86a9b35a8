/**
 * A dag-pb node with its links at hand, without an object per link.
 *
 * The bytes stay the only truth: digests are taken out of them when asked for, so that hashing the
 * bytes again (the trust lease) renews everything that was derived from them.
 */
import { cidFromBytes, CID_BYTES, type Cid } from '../../manifests/cid.ts'
import type { Sha256 } from '../../manifests/digest.ts'
import { EdgeError } from '../../manifests/errors.ts'

const LINKS_MAX = 174
const RAW = 0x55

export class NodeView {
  readonly bytes: Buffer
  /** Bytes of content below. */
  readonly sizeBytes: number
  /** `chunks`: an extent's node. `nodes`: one above extents. */
  readonly over: 'chunks' | 'nodes'
  /** Where link i's content begins; one more entry than links, the last is `sizeBytes`. */
  readonly #starts: Float64Array
  /** Where link i's CID begins in `bytes`. */
  readonly #cidAt: Uint16Array
  readonly #dagBytes: Float64Array

  /** @throws EdgeError `CATALOG_INVALID` for anything but a node as we write it (docs/formats.md). */
  constructor(bytes: Uint8Array) {
    this.bytes = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength)
    const scan = scanNode(this.bytes)
    this.sizeBytes = scan.starts.at(-1)!
    this.over = scan.raw ? 'chunks' : 'nodes'
    this.#starts = scan.starts
    this.#cidAt = scan.cidAt
    this.#dagBytes = scan.dagBytes
  }

  get links(): number {
    return this.#cidAt.length
  }

  cidAt(link: number): Cid {
    const at = this.#cidAt[link]!
    return cidFromBytes(this.bytes.subarray(at, at + CID_BYTES))
  }

  digestAt(link: number): Sha256 {
    const at = this.#cidAt[link]! + CID_BYTES
    return this.bytes.toString('hex', at - 32, at) as Sha256
  }

  startOf(link: number): number {
    return this.#starts[link]!
  }

  sizeOf(link: number): number {
    return this.#starts[link + 1]! - this.#starts[link]!
  }

  dagBytesOf(link: number): number {
    return this.#dagBytes[link]!
  }

  /** The link that holds byte `at` of the content; links that are empty hold none. */
  linkAt(at: number): number {
    let low = 0
    let high = this.links - 1
    while (low < high) {
      const middle = (low + high) >>> 1
      if (this.#starts[middle + 1]! > at) high = middle
      else low = middle + 1
    }
    return low
  }
}

interface Scan {
  readonly starts: Float64Array
  readonly cidAt: Uint16Array
  readonly dagBytes: Float64Array
  readonly raw: boolean
}

function scanNode(bytes: Buffer): Scan {
  let at = 0
  const varint = () => {
    let value = 0
    for (let factor = 1; ; factor *= 0x80) {
      const byte = bytes[at++]
      if (byte === undefined || factor > 2 ** 49) throw invalid()
      value += (byte & 0x7f) * factor
      if (byte < 0x80) {
        if (byte === 0 && factor > 1) throw invalid()
        return value
      }
    }
  }
  const expect = (byte: number) => {
    if (bytes[at++] !== byte) throw invalid()
  }

  const cidAt: number[] = []
  const dagBytes: number[] = []
  while (bytes[at] === 0x12 && cidAt.length <= LINKS_MAX) {
    at++
    const linkBytes = varint()
    const linkFrom = at
    expect(0x0a)
    expect(CID_BYTES)
    cidAt.push(at)
    at += CID_BYTES
    expect(0x12)
    expect(0)
    expect(0x18)
    dagBytes.push(varint())
    if (at - linkFrom !== linkBytes) throw invalid()
  }
  if (cidAt.length === 0 || cidAt.length > LINKS_MAX) throw invalid()
  expect(0x0a)
  if (varint() !== bytes.length - at) throw invalid()
  expect(0x08)
  expect(2)
  expect(0x18)
  const sizeBytes = varint()
  const starts = new Float64Array(cidAt.length + 1)
  for (let link = 0; link < cidAt.length; link++) {
    expect(0x20)
    starts[link + 1] = starts[link]! + varint()
  }
  const codec = bytes[cidAt[0]! + 1]!
  if (at !== bytes.length || starts.at(-1) !== sizeBytes || !Number.isSafeInteger(sizeBytes)) throw invalid()
  if (cidAt.some(from => !isCid(bytes, from, codec))) throw invalid()
  return {
    starts,
    cidAt: Uint16Array.from(cidAt),
    dagBytes: Float64Array.from(dagBytes),
    raw: codec === RAW,
  }
}

function isCid(bytes: Buffer, at: number, codec: number): boolean {
  return (
    bytes[at] === 0x01 &&
    bytes[at + 1] === codec &&
    (codec === RAW || codec === 0x70) &&
    bytes[at + 2] === 0x12 &&
    bytes[at + 3] === 0x20
  )
}

function invalid(): EdgeError {
  return new EdgeError('CATALOG_INVALID', 'not a node of our form')
}
