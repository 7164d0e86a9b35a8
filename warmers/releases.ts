/**
 * What filling needs to know of datasets: which release is served, which is wanted, and what of it
 * is not here. Implemented beside the library, over the store and the trust record.
 */
import type { DatasetReleases, ListedItem, Missing } from '../node/releases.ts'

export type { DatasetReleases, Missing, MissingExtent } from '../node/releases.ts'

export interface Releases {
  releases(): readonly DatasetReleases[]
  /**
   * Takes a manifest whose bytes are what TUF says they are.
   * @throws EdgeError `MANIFEST_INVALID`, `TRUST_ROLLBACK` (a revision below one accepted before)
   */
  acceptRelease(dataset: string, manifestBytes: Uint8Array): Promise<void>
  /** Of the newest accepted release. Only the catalog's own extents until the catalog is here. */
  missing(dataset: string): Missing | Promise<Missing>
  /** Items of the newest accepted release, page by page, all or every so many; nothing while its catalog is not whole. */
  streamItems?(dataset: string, every?: number): AsyncIterable<readonly ListedItem[]>
  /** Makes `next` the current release when all that must be here is (I5). @returns whether it did. */
  activateIfWhole(dataset: string): Promise<boolean>
}
