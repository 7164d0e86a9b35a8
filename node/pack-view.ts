/**
 * Packs, deltas and older manifests of a repository folder, verified on each read (I1).
 *
 * Such a file is named by the SHA-256 of all of it, which says nothing about a part. So the first
 * read proves the whole against its name in one pass, which also yields a digest per mebibyte; from
 * then on a read proves the mebibytes that it touches. The list is derived, kept in memory for the
 * files in use, and made again when the file changed or the process started anew.
 */
import { open, stat } from 'node:fs/promises'
import { join } from 'node:path'
import { LRUCache } from 'lru-cache'
import { openSha256, type Sha256, sha256Of } from '../manifests/digest.ts'
import { EdgeError } from '../manifests/errors.ts'
import type { Abortable } from '../manifests/extent.ts'
import type { RepoView } from './http/repo-handler.ts'

const PIECE_BYTES = 1024 * 1024
/** 32 KiB of digests for the largest pack. */
const FILES_KNOWN_MAX = 256
const DIGEST_PATH =
  /^(?:packs|deltas|targets(?:\/[a-z0-9][a-z0-9._-]*){2})\/([0-9a-f]{64})\.(?:pack|delta|manifest\.json)$/

interface Proven {
  readonly sizeBytes: number
  readonly pieces: readonly Sha256[]
}

export function packView(folder: string): RepoView {
  const proven = new LRUCache<string, Promise<Proven>>({ max: FILES_KNOWN_MAX })
  const prove = (path: string, options: Abortable) => {
    const known = proven.get(path)
    if (known) return known
    const proof = proveWhole(join(folder, path), digestIn(path), options)
    proven.set(path, proof)
    proof.catch(() => proven.delete(path))
    return proof
  }
  return {
    async size(path) {
      if (!DIGEST_PATH.test(path)) return undefined
      return await stat(join(folder, path)).then(
        ({ size }) => size,
        () => undefined,
      )
    },

    async read(path, { offset, length }, options) {
      if (!DIGEST_PATH.test(path)) return undefined
      const { sizeBytes, pieces } = await prove(path, options)
      const first = Math.floor(offset / PIECE_BYTES)
      const last = Math.ceil(Math.min(offset + length, sizeBytes) / PIECE_BYTES)
      const bytes = await readAt(join(folder, path), first * PIECE_BYTES, (last - first) * PIECE_BYTES)
      for (let piece = first; piece < last; piece++) {
        const at = (piece - first) * PIECE_BYTES
        if (sha256Of(bytes.subarray(at, at + PIECE_BYTES)) !== pieces[piece]) {
          proven.delete(path)
          throw new EdgeError('CHUNK_CORRUPT', `${path} is damaged near byte ${piece * PIECE_BYTES}`)
        }
      }
      const from = offset - first * PIECE_BYTES
      return bytes.subarray(from, from + length)
    },
  }
}

/** @throws EdgeError `CHUNK_CORRUPT` when the bytes are not what the name says. */
async function proveWhole(path: string, sha256: string | undefined, { signal }: Abortable): Promise<Proven> {
  await using file = await open(path)
  const hash = openSha256()
  const pieces: Sha256[] = []
  const buffer = Buffer.allocUnsafeSlow(PIECE_BYTES)
  let sizeBytes = 0
  for (;;) {
    signal.throwIfAborted()
    const { bytesRead } = await file.read(buffer, 0, PIECE_BYTES, sizeBytes)
    if (bytesRead === 0) break
    const piece = buffer.subarray(0, bytesRead)
    hash.update(piece)
    pieces.push(sha256Of(piece))
    sizeBytes += bytesRead
  }
  if (hash.digest() !== sha256) throw new EdgeError('CHUNK_CORRUPT', `${path} is not what its name says`)
  return { sizeBytes, pieces }
}

async function readAt(path: string, offset: number, length: number): Promise<Buffer> {
  await using file = await open(path)
  const buffer = Buffer.allocUnsafeSlow(length)
  const { bytesRead } = await file.read(buffer, 0, length, offset)
  return buffer.subarray(0, bytesRead)
}

function digestIn(path: string): string | undefined {
  return DIGEST_PATH.exec(path)?.[1]
}
