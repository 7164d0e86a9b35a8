/**
 * CARv1 archives, as a stream: what `ipfs dag import` takes and the trustless gateway answers.
 * Byte-identical to @ipld/car's writer (the test compares), in memory of one block at a time.
 *
 * Source: https://ipld.io/specs/transport/car/carv1/
 */
import { CID_BYTES, type Cid, cidBytes } from './cid.ts'
import type { DagNode } from './extent.ts'

/** Larger blocks are handed on as they are. */
const COPIED_BYTES_MAX = 32 * 1024

/** @param roots at least one. @param blocks in any order; each is written as it comes. */
export async function* carOf(
  roots: readonly Cid[],
  blocks: AsyncIterable<DagNode> | Iterable<DagNode>,
): AsyncGenerator<Uint8Array> {
  const header = carHeader(roots)
  yield Buffer.concat([varint(header.length), header])
  for await (const { cid, bytes } of blocks) {
    const head = [varint(CID_BYTES + bytes.length), cidBytes(cid)]
    if (bytes.length < COPIED_BYTES_MAX) {
      yield Buffer.concat([...head, bytes])
    } else {
      yield Buffer.concat(head)
      yield bytes
    }
  }
}

/** DAG-CBOR of `{ roots: [CID…], version: 1 }`, written out: a map of two fixed keys needs no library. */
function carHeader(roots: readonly Cid[]): Buffer {
  const TAG_CID = [0xd8, 0x2a, 0x58, CID_BYTES + 1, 0x00]
  return Buffer.concat([
    Buffer.from([0xa2, 0x65, ...Buffer.from('roots')]),
    cborLength(0x80, roots.length),
    ...roots.map(root => Buffer.concat([Buffer.from(TAG_CID), cidBytes(root)])),
    Buffer.from([0x67, ...Buffer.from('version'), 0x01]),
  ])
}

function cborLength(majorType: number, length: number): Buffer {
  if (length < 24) return Buffer.from([majorType | length])
  if (length < 0x100) return Buffer.from([majorType | 24, length])
  if (length < 0x10000) return Buffer.from([majorType | 25, length >> 8, length & 255])
  const bytes = Buffer.alloc(5, majorType | 26)
  bytes.writeUInt32BE(length, 1)
  return bytes
}

function varint(value: number): Buffer {
  const bytes = []
  for (; value >= 0x80; value = Math.floor(value / 128)) bytes.push((value % 128) | 0x80)
  return Buffer.from([...bytes, value])
}
