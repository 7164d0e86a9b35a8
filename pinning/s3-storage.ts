/**
 * A repository in an S3 bucket, as `RepositoryStorage`: put a CDN in front of it, and it is an origin.
 *
 * Version-named metadata is written with `If-None-Match: *`, so two publishers never overwrite each
 * other. The lock is a courtesy on top, an object with a time in it: S3 has nothing that ends with a
 * process, so a lock older than ten minutes is taken over. Large files are spooled locally to learn
 * their digest, kept there for building the next delta, and uploaded in one piece (at most 1 GiB).
 */
import { randomUUID } from 'node:crypto'
import { readFile } from 'node:fs/promises'
import { EdgeError } from '../manifests/errors.ts'
import type { Abortable } from '../manifests/extent.ts'
import { Spool } from '../manifests/publish/spool.ts'
import type { RepositoryStorage } from '../manifests/publish/storage.ts'
import { Bucket, type S3Options } from './bucket.ts'

const LOCK = '.publish.lock'
const LOCK_MS = 10 * 60_000

export interface S3StorageOptions extends S3Options, Abortable {
  readonly spoolFolder: string
  readonly now: () => number
}

/** Creates the bucket when it is missing. @throws EdgeError `PIN_TARGET_DOWN` */
export async function openS3Storage(options: S3StorageOptions): Promise<RepositoryStorage> {
  const bucket = new Bucket(options)
  await bucket.create(options)
  const { signal, now } = options
  const spool = new Spool(options.spoolFolder)

  return {
    async read(path, range) {
      const spooled = await spool.read(path, range)
      if (spooled || range?.length !== 0) return spooled ?? (await bucket.read(path, { signal }, range))
      return (await bucket.sizeOf(path, { signal })) === undefined ? undefined : new Uint8Array(0)
    },
    size: path => bucket.sizeOf(path, { signal }),
    write: (path, bytes, { ifAbsent = false } = {}) =>
      ifAbsent ? bucket.writeNew(path, bytes, { signal }) : bucket.write(path, bytes, { signal }),

    add: (pathOf, pieces) =>
      spool.add(pathOf, pieces, async ({ path, file, sizeBytes }) => {
        if ((await bucket.sizeOf(path, { signal })) !== sizeBytes)
          await bucket.write(path, await readFile(file), { signal })
      }),

    async list(prefix) {
      return (await Array.fromAsync(bucket.keys(prefix, { signal }))).sort()
    },
    async remove(path) {
      await spool.remove(path)
      await bucket.remove([path], { signal })
    },

    async lock() {
      const mine = Buffer.from(JSON.stringify({ holder: randomUUID(), untilMs: now() + LOCK_MS }))
      const held = await bucket.read(LOCK, { signal })
      if (held && untilOf(held) > now()) throw busy()
      if (held) await bucket.write(LOCK, mine, { signal })
      else await bucket.writeNew(LOCK, mine, { signal })
      const winner = await bucket.read(LOCK, { signal })
      if (!winner?.equals(mine)) throw busy()
      return {
        async [Symbol.asyncDispose]() {
          await bucket.remove([LOCK], { signal })
        },
      }
    },
  }
}

function untilOf(lock: Uint8Array): number {
  try {
    return (JSON.parse(Buffer.from(lock).toString('utf8')) as { untilMs: number }).untilMs
  } catch {
    return 0
  }
}

function busy(): EdgeError {
  return new EdgeError(
    'PUBLISH_CONFLICT',
    'somebody else is publishing into this bucket: try again when that has ended',
  )
}
