/**
 * What every `tower keys` command works in: the repository, held for this command alone, and the
 * keys at hand.
 */
import { resolve } from 'node:path'
import { EdgeError } from '../../manifests/errors.ts'
import { folderStorage } from '../../manifests/publish/folder-storage.ts'
import type { RepositoryStorage } from '../../manifests/publish/storage.ts'
import {
  loadRepository,
  type CommitContext,
  type RepositoryMetadata,
} from '../../manifests/tuf/repository.ts'
import { loadConfig } from '../config.ts'
import { keyNamed, loadKeys, loadPinnedRoot, type KeyFile } from '../key-folder.ts'
import { interruption } from './interrupt.ts'
import { repositoryAt } from './repository-at.ts'

const INTERRUPT_MS = 500

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
  const keys = fresh ? [] : await loadKeys(folders)
  const pinnedRoot = fresh ? undefined : await loadPinnedRoot(folders)
  const storage = await storageOf(to)
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

/** A running node receives releases, not ceremonies: its keys are managed where its folder is. */
async function storageOf(to: string): Promise<RepositoryStorage> {
  if (/^https?:\/\//i.test(to)) {
    throw new EdgeError(
      'REQUEST_INVALID',
      `${to}: keys are managed where the repository's folder or bucket is`,
    )
  }
  if (!/^s3$|^[a-z][a-z0-9+.-]*:\/\//i.test(to)) return folderStorage(resolve(to))
  const { config } = await loadConfig({ env: process.env, cwd: process.cwd() })
  return repositoryAt(to, { config, keys: [], signal: interruption({ endsWithinMs: INTERRUPT_MS }) })
}
