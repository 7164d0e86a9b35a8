/**
 * Small files that go with the pins, so that an empty node can begin from a pin target: what differs
 * is written, what is named for one release and is gone from the view is removed.
 *
 * TUF's `timestamp.json` is written last: whoever reads it finds all that it names.
 */
import type { Abortable } from '../manifests/extent.ts'
import { sha256Of } from '../manifests/digest.ts'
import { isEdgeError } from '../manifests/errors.ts'
import type { PinFiles } from './pin-target.ts'

export interface KeptFile {
  readonly path: string
  readonly bytes: Uint8Array
}

/** What each target is known to have, by folder: asked once, then remembered while it answers. */
const KNOWN = new WeakMap<PinFiles, Map<string, string>>()
const FILE_BYTES_MAX = 16 * 1024 * 1024
const TIMESTAMP = 'metadata/timestamp.json'

/**
 * A node that has nothing yet, or less than what another one left there, changes nothing (I2).
 * @param folder ends in a slash. @throws EdgeError `PIN_TARGET_DOWN`
 */
export async function keepFiles(
  files: PinFiles,
  folder: string,
  wanted: readonly KeptFile[],
  options: Abortable,
): Promise<void> {
  const timestamp = wanted.find(({ path }) => path === TIMESTAMP)
  if (!timestamp) return
  const there = new Set(await files.list(folder, options))
  const known = KNOWN.get(files) ?? new Map<string, string>()
  KNOWN.set(files, known)
  const lastThere = there.has(folder + TIMESTAMP)
    ? await files.read(folder + TIMESTAMP, FILE_BYTES_MAX, options)
    : undefined
  if (versionIn(lastThere) > versionIn(timestamp.bytes)) return

  const ordered = [...wanted.filter(file => file !== timestamp), timestamp]
  for (const { path, bytes } of ordered) {
    const name = folder + path
    const digest = sha256Of(bytes)
    if (there.has(name) && known.get(name) === digest) continue
    const kept = there.has(name) ? await readQuietly(files, name, options) : undefined
    if (!kept || sha256Of(kept) !== digest) await files.write(name, bytes, options)
    known.set(name, digest)
  }
  const names = new Set(wanted.map(({ path }) => folder + path))
  const stale = [...there].filter(name => !names.has(name))
  if (stale.length > 0) await files.remove(stale, options)
}

/** One that is too long is not what we wrote. */
async function readQuietly(
  files: PinFiles,
  name: string,
  options: Abortable,
): Promise<Uint8Array | undefined> {
  try {
    return await files.read(name, FILE_BYTES_MAX, options)
  } catch (error) {
    if (isEdgeError(error, 'UPSTREAM_LIED')) return undefined
    throw error
  }
}

/** Of TUF metadata; 0 when it is none. */
function versionIn(metadata: Uint8Array | undefined): number {
  if (!metadata) return 0
  try {
    const { signed } = JSON.parse(Buffer.from(metadata).toString('utf8')) as {
      signed?: { version?: unknown }
    }
    return typeof signed?.version === 'number' ? signed.version : 0
  } catch {
    return 0
  }
}
