/**
 * An item as one buffer, for what is made from it: renditions, encodings. Each chunk is verified, and
 * recovered where it fails; the caller bounds the size.
 */
import { isEdgeError } from '../../manifests/errors.ts'
import type { Abortable } from '../../manifests/extent.ts'
import type { OpenItem } from '../library.ts'

/** @throws EdgeError as `OpenItem.recover`; the signal's reason. */
export async function readWhole(item: OpenItem, options: Abortable): Promise<Buffer> {
  const parts: Buffer[] = []
  for (const slice of item.slices({ first: 0, last: item.sizeBytes - 1 })) {
    const buffer = Buffer.allocUnsafeSlow(slice.sizeBytes)
    try {
      await item.read(slice, buffer, options)
      parts.push(buffer)
    } catch (error) {
      if (!isEdgeError(error, 'CHUNK_ABSENT', 'CHUNK_CORRUPT')) throw error
      parts.push(await item.recover(slice, options))
    }
  }
  return Buffer.concat(parts)
}
