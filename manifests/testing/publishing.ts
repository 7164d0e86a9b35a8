/** A repository with one publisher for `health/*` and one for `education/*`, and folders to publish. */
import { mkdir, writeFile } from 'node:fs/promises'
import { dirname, join } from 'node:path'
import { publishRelease, type PublishReport } from '../publish/publish-release.ts'
import type { RepositoryStorage } from '../publish/storage.ts'
import { createRepository, setPublisher } from '../tuf/ceremony.ts'
import { releaseSigner } from '../tuf/release-signer.ts'
import { loadRepository } from '../tuf/repository.ts'
import { generateKeyPem, parseSigningKey, type SigningKey } from '../tuf/signing-key.ts'

export interface TestKeys {
  readonly root: SigningKey
  readonly targets: SigningKey
  readonly snapshot: SigningKey
  readonly timestamp: SigningKey
  readonly health: SigningKey
  readonly education: SigningKey
}

export function testKeys(): TestKeys {
  const key = () => parseSigningKey(generateKeyPem())
  return { root: key(), targets: key(), snapshot: key(), timestamp: key(), health: key(), education: key() }
}

/** @returns the trusted root's bytes. */
export async function testRepository(
  storage: RepositoryStorage,
  keys: TestKeys,
  now: Date,
): Promise<Uint8Array> {
  const context = { storage, keys: Object.values(keys) as SigningKey[], now }
  const only = (key: SigningKey) => ({ keys: [key], threshold: 1 })
  const { root, targets, snapshot, timestamp } = keys
  await createRepository(context, {
    root: only(root),
    targets: only(targets),
    snapshot: only(snapshot),
    timestamp: only(timestamp),
  })
  for (const name of ['health', 'education'] as const) {
    const paths = [`${name}/*/manifest.json`]
    await setPublisher(context, await loadRepository(storage), { name, paths, ...only(keys[name]) })
  }
  return (await storage.read('metadata/1.root.json')) as Uint8Array
}

export async function publishTest(
  storage: RepositoryStorage,
  keys: readonly SigningKey[],
  release: { readonly folder: string; readonly dataset: string; readonly now: Date },
): Promise<PublishReport> {
  return await publishRelease({ ...release, repository: storage, signer: releaseSigner({ keys }) })
}

export async function writeFiles(
  folder: string,
  files: Readonly<Record<string, Uint8Array | string>>,
): Promise<void> {
  for (const [path, bytes] of Object.entries(files)) {
    await mkdir(dirname(join(folder, path)), { recursive: true })
    await writeFile(join(folder, path), bytes)
  }
}
