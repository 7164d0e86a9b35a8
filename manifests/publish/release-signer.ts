/**
 * What publishing needs of the trust side (TUF, `manifests/tuf/`): which manifest is the current
 * one, and making another one current.
 */
import type { Sha256 } from '../digest.ts'
import type { RepositoryStorage } from './storage.ts'

export interface ReleaseSigner {
  /**
   * What the repository's metadata say about a target now; undefined before its first release.
   * @throws EdgeError `TRUST_INVALID`, `TRUST_SIGNATURE` when the metadata are not in order.
   */
  current(
    targetPath: string,
    storage: RepositoryStorage,
  ): Promise<{ readonly sha256: Sha256; readonly sizeBytes: number } | undefined>
  /**
   * Makes `bytes` the target's content for everybody; its file is in place already. Writes the
   * delegated role, the snapshot, then the timestamp: with that last file the release is out.
   * @throws EdgeError `KEY_ABSENT`, `KEY_NOT_AUTHORISED` (before anything is written), `PUBLISH_CONFLICT`
   */
  sign(
    change: { readonly targetPath: string; readonly bytes: Uint8Array },
    storage: RepositoryStorage,
    now: Date,
  ): Promise<void>
}
