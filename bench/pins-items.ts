/**
 * Items to pin, without a node around them: files of a folder, or content made up from a seed, which
 * takes no disk. Their index is made beforehand, as a node has it from publishing, and kept as nodes;
 * content is read when it is pinned, and proven as the store proves it.
 */
import { closeSync, fstatSync, openSync, read, readSync } from 'node:fs'
import { glob } from 'node:fs/promises'
import { join } from 'node:path'
import { codecOf, type Cid, digestOf } from '../manifests/cid.ts'
import { sha256Of } from '../manifests/digest.ts'
import { EdgeError } from '../manifests/errors.ts'
import type { ChunkRef, DagNode, ExtentRef } from '../manifests/extent.ts'
import { CHUNKING, chunksOf, nextCut } from '../manifests/fastcdc.ts'
import { ExtentCutter, itemDag, parseNode } from '../manifests/unixfs.ts'
import type { PinItem } from '../pinning/pin-target.ts'

/** Bytes of an item from an offset on, into the whole buffer. */
type Fill = (buffer: Buffer, offset: number) => Promise<void> | void

const PIECE_BYTES = 1024 * 1024
const SCRATCH = Buffer.allocUnsafeSlow(PIECE_BYTES)
/** The store keeps so much in its database and reads it at once; more is read by other threads. */
const SMALL_BYTES = 32 * 1024

/** Distinct ones. */
export async function folderItems(folder: string): Promise<PinItem[]> {
  const items = new Map<Cid, PinItem>()
  for await (const entry of glob('**', { cwd: folder, withFileTypes: true })) {
    if (!entry.isFile()) continue
    const item = await fileItem(join(entry.parentPath, entry.name))
    items.set(item.root, item)
  }
  return [...items.values()]
}

/** Items of `sizeBytes` each. */
export async function* generatedItems({
  seed,
  totalBytes,
  sizeBytes,
}: {
  readonly seed: string
  readonly totalBytes: number
  readonly sizeBytes: number
}): AsyncGenerator<PinItem> {
  for (let n = 0; n * sizeBytes < totalBytes; n++) {
    const key = Number.parseInt(sha256Of(`${seed} ${n}`).slice(0, 8), 16)
    yield await indexed(sizeBytes, async (buffer, offset) => {
      noiseInto(buffer, key, offset)
      await new Promise(resolve => setImmediate(resolve)) // as a read would
    })
  }
}

async function fileItem(path: string): Promise<PinItem> {
  const whole = openSync(path, 'r')
  const { size } = fstatSync(whole)
  closeSync(whole)
  return await indexed(size, async (buffer, offset) => {
    const file = openSync(path, 'r')
    try {
      if (buffer.length <= SMALL_BYTES) readSync(file, buffer, 0, buffer.length, offset)
      else await readInto(file, buffer, offset)
    } finally {
      closeSync(file)
    }
  })
}

function readInto(file: number, buffer: Buffer, offset: number): Promise<void> {
  return new Promise((resolve, reject) => {
    read(file, buffer, 0, buffer.length, offset, error => (error ? reject(error) : resolve()))
  })
}

async function indexed(totalBytes: number, fill: Fill): Promise<PinItem> {
  const cutter = new ExtentCutter()
  const extents: ExtentRef[] = []
  const nodes: DagNode[] = []
  const placeOf = new Map<Cid, { readonly offset: number; readonly sizeBytes: number }>()
  let offset = 0
  const note = (cut: ReturnType<ExtentCutter['end']>) => {
    if (!cut) return
    const { cid, sizeBytes, dagBytes } = cut.extent
    extents.push({ cid, sizeBytes, dagBytes })
    if (cut.node) nodes.push(cut.node)
    placeOf.set(cid, { offset, sizeBytes })
    offset += sizeBytes
  }
  for await (const { digest, sizeBytes } of chunksIn(totalBytes, fill))
    note(cutter.add({ digest, sizeBytes }))
  note(cutter.end())
  const dag = itemDag(extents)
  nodes.push(...dag.nodes)
  const nodeOf = new Map(nodes.map(({ cid, bytes }) => [cid, bytes]))
  return {
    root: dag.root,
    sizeBytes: dag.sizeBytes,
    extents,
    async *nodes() {
      yield* nodes
    },
    async readExtent(cid) {
      const place = placeOf.get(cid)
      if (!place) throw new EdgeError('CHUNK_ABSENT', `extent ${cid}`)
      const bytes = Buffer.allocUnsafe(place.sizeBytes)
      const node = nodeOf.get(cid)
      const chunks =
        codecOf(cid) === 'raw' || !node ? [{ cid, sizeBytes: bytes.length }] : parseNode(node).links
      let from = 0
      for (const chunk of chunks) {
        const part = bytes.subarray(from, from + chunk.sizeBytes)
        await fill(part, place.offset + from)
        if (sha256Of(part) !== digestOf(chunk.cid))
          throw new EdgeError('CHUNK_CORRUPT', `extent ${cid} at ${from}`)
        from += chunk.sizeBytes
      }
      return bytes
    },
  }
}

/** Leaves no memory behind that would be taken for the pinning's. */
async function* chunksIn(totalBytes: number, fill: Fill): AsyncGenerator<ChunkRef> {
  if (totalBytes > PIECE_BYTES) return yield* chunksOf(piecesOf(totalBytes, fill))
  const bytes = SCRATCH.subarray(0, totalBytes)
  await fill(bytes, 0)
  for (let from = 0; from < totalBytes; ) {
    const to = nextCut(bytes, from, totalBytes, CHUNKING)
    yield { digest: sha256Of(bytes.subarray(from, to)), sizeBytes: to - from }
    from = to
  }
}

async function* piecesOf(sizeBytes: number, fill: Fill): AsyncGenerator<Uint8Array> {
  const buffer = SCRATCH
  for (let offset = 0; offset < sizeBytes; offset += PIECE_BYTES) {
    const piece = buffer.subarray(0, Math.min(PIECE_BYTES, sizeBytes - offset))
    await fill(piece, offset)
    yield piece
  }
}

/** A word's number and a seed, mixed: any offset can be had without what comes before, and without memory. */
function noiseInto(buffer: Buffer, seed: number, offset: number): void {
  let word = 0
  for (let at = 0; at < buffer.length; at++) {
    const place = offset + at
    const lane = place % 4
    if (lane === 0 || at === 0) {
      word = Math.imul(((place - lane) / 4 + seed) ^ 0x9e3779b9, 0x85ebca6b)
      word = Math.imul(word ^ (word >>> 15), 0xc2b2ae35)
      word ^= (word >>> 13) ^ Math.imul(seed, 0x27d4eb2f)
    }
    buffer[at] = word >>> (8 * lane)
  }
}
