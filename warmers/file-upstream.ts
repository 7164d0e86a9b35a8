/**
 * A repository in a folder: a USB stick, a mounted disk. The same interface as the network, so
 * sneakernet is no second code path. Its bytes are counted too (`down`), requests cost nothing.
 */
import { constants } from 'node:fs'
import { open } from 'node:fs/promises'
import { fileURLToPath } from 'node:url'
import { join, sep } from 'node:path'
import { EdgeError } from '../manifests/errors.ts'
import {
  FREE,
  exactly,
  type ReadOptions,
  type Span,
  type Upstream,
  type WholeOptions,
  type WireRecord,
} from './upstream.ts'

const READ_BYTES = 256 * 1024

export function openFileUpstream(url: URL, onWire: (record: WireRecord) => void): Upstream {
  const folder = fileURLToPath(url)
  let bytesDown = 0
  let requests = 0

  async function* read(path: string, span: Span | undefined, options: ReadOptions & { maxBytes: number }) {
    options.signal.throwIfAborted()
    const file = await openInside(folder, path)
    let read = 0
    try {
      requests++
      const { size } = await file.stat()
      if (!span && size > options.maxBytes)
        throw new EdgeError('UPSTREAM_LIED', `${path}: ${size} bytes, at most ${options.maxBytes} expected`)
      let at = span?.offset ?? 0
      const end = span ? span.offset + span.length : size
      while (at < end) {
        options.signal.throwIfAborted()
        const { bytesRead, buffer } = await file.read(Buffer.allocUnsafe(Math.min(READ_BYTES, end - at)), {
          position: at,
        })
        if (bytesRead === 0) return
        at += bytesRead
        read += bytesRead
        yield buffer.subarray(0, bytesRead)
      }
    } finally {
      await file.close()
      bytesDown += read
      onWire({ ...options.purpose, bytesDown: read, bytesUp: 0, requests: 1 })
    }
  }

  return {
    name: `file:${folder}`,
    readSpan: (path, span, options) =>
      exactly(read(path, span, { ...options, maxBytes: span.length }), span.length, path),
    readWhole: (path: string, options: WholeOptions) => read(path, undefined, options),
    get wire() {
      return { bytesDown, bytesUp: 0, requests, connections: 0 }
    },
    cost: FREE,
    ranges: true,
    pieceBytes: Infinity,
    isLossy: false,
    async [Symbol.asyncDispose]() {},
  }
}

async function openInside(folder: string, path: string) {
  const full = join(folder, path)
  if (!full.startsWith(folder.endsWith(sep) ? folder : folder + sep))
    throw new EdgeError('NOT_FOUND', `${path}: outside the repository`)
  try {
    return await open(full, constants.O_RDONLY)
  } catch (cause) {
    const absent =
      cause instanceof Error && 'code' in cause && (cause.code === 'ENOENT' || cause.code === 'ENOTDIR')
    throw new EdgeError(absent ? 'NOT_FOUND' : 'UPSTREAM_UNREACHABLE', `${path}: cannot be read`, { cause })
  }
}
