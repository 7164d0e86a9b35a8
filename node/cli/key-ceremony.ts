/**
 * What every `tower keys` command works in: the repository, held for this command alone, and the
 * keys at hand.
 */
import { EdgeError } from '../../manifests/errors.ts'
import { folderStorage } from '../../manifests/publish/folder-storage.ts'
import type { RepositoryStorage } from '../../manifests/publish/storage.ts'
import {
  loadRepository,
  type CommitContext,
  type RepositoryMetadata,
} from '../../manifests/tuf/repository.ts'
import { keyNamed, loadKeys, loadPinnedRoot, type KeyFile } from '../key-folder.ts'

export interface CeremonyOptions {
  /** Folders; new keys go to the first. */
  readonly keys: readonly string[]
  readonly to: string
}

export interface Ceremony extends AsyncDisposable {
  readonly storage: RepositoryStorage
  readonly folder: string
  readonly keys: readonly KeyFile[]
  /** With every key that is here by now. */
  context(): CommitContext
  load(): Promise<RepositoryMetadata>
  /** The key of that name in the first folder; made when it is not there. */
  keyNamed(name: string): Promise<KeyFile>
}

/**
 * @param fresh the key folder need not exist yet.
 * @throws EdgeError `KEY_ABSENT`, `KEY_INVALID`, `PUBLISH_CONFLICT` when somebody else is publishing.
 */
export async function openCeremony(
  { keys: folders, to }: CeremonyOptions,
  { fresh = false } = {},
): Promise<Ceremony> {
  const [folder] = folders
  if (folder === undefined) throw new EdgeError('KEY_ABSENT', 'name the key folder with --keys')
  if (/^[a-z][a-z0-9+.-]*:\/\//i.test(to)) {
    throw new EdgeError('REQUEST_INVALID', `${to}: keys are managed where the repository's folder is`)
  }
  const keys = fresh ? [] : await loadKeys(folders)
  const pinnedRoot = fresh ? undefined : await loadPinnedRoot(folders)
  const storage = folderStorage(to)
  const lock = await storage.lock()
  return {
    storage,
    folder,
    keys,
    context: () => ({ storage, keys, now: new Date() }),
    load: () => loadRepository(storage, pinnedRoot),
    async keyNamed(name) {
      const key = await keyNamed(folder, name)
      if (!keys.some(({ keyId }) => keyId === key.keyId)) keys.push(key)
      return key
    },
    [Symbol.asyncDispose]: () => lock[Symbol.asyncDispose](),
  }
}
