/**
 * A trace's catalog as real releases: an item per key, of bytes that nothing can compress, in datasets
 * of items that are published together; signed, packed, and served as plain files over HTTP.
 */
import { createCipheriv } from 'node:crypto'
import { mkdir, rm, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { folderStorage } from '../../manifests/publish/folder-storage.ts'
import { publishRelease } from '../../manifests/publish/publish-release.ts'
import { createRepository, setPublisher } from '../../manifests/tuf/ceremony.ts'
import { releaseSigner } from '../../manifests/tuf/release-signer.ts'
import { loadRepository } from '../../manifests/tuf/repository.ts'
import { generateKeyPem, parseSigningKey } from '../../manifests/tuf/signing-key.ts'
import { openStaticOrigin, type StaticOrigin } from '../../node/static-origin.ts'

export interface Published {
  readonly name: string
  readonly publishedMs: number
  readonly items: readonly { readonly key: number; readonly sizeBytes: number }[]
}

export interface RealOrigin extends AsyncDisposable {
  readonly url: string
  readonly rootPath: string
  /** Bytes of all catalogs: content to the node, and not to the trace. */
  readonly catalogBytes: number
  readonly served: StaticOrigin['served']
}

/** Benches run for years of virtual time. */
const EXPIRY_DAYS = 36_500

/** @param folder of the bench, where everything is put. */
export async function openRealOrigin(folder: string, datasets: readonly Published[]): Promise<RealOrigin> {
  const repository = folderStorage(join(folder, 'repository'))
  const keys = [parseSigningKey(generateKeyPem())]
  const role = { keys, threshold: 1 }
  const now = new Date(Math.min(...datasets.map(({ publishedMs }) => publishedMs)))
  const expiry = {
    root: EXPIRY_DAYS,
    targets: EXPIRY_DAYS,
    publisher: EXPIRY_DAYS,
    snapshot: EXPIRY_DAYS,
    timestamp: EXPIRY_DAYS,
  }
  const context = { storage: repository, keys, now }
  await createRepository(context, { root: role, targets: role, snapshot: role, timestamp: role }, expiry)
  const paths = ['*/*/manifest.json']
  await setPublisher(context, await loadRepository(repository), { name: 'all', paths, ...role })
  const files = join(folder, 'files')
  let catalogBytes = 0
  for (const { name, publishedMs, items } of datasets) {
    await mkdir(files, { recursive: true })
    for (const { key, sizeBytes } of items) await writeFile(join(files, String(key)), bytesOf(key, sizeBytes))
    const { manifest } = await publishRelease({
      folder: files,
      dataset: name,
      repository,
      signer: releaseSigner({ keys }),
      options: { level: 1, priority: 2, date: new Date(publishedMs) },
      now,
    })
    catalogBytes += manifest.catalog.size
    await rm(files, { recursive: true })
  }
  const rootPath = join(folder, 'root.json')
  await writeFile(rootPath, (await repository.read('metadata/1.root.json'))!)
  const origin = await openStaticOrigin(join(folder, 'repository'))
  const { url, served } = origin
  return { url, served, rootPath, catalogBytes, [Symbol.asyncDispose]: () => origin[Symbol.asyncDispose]() }
}

function bytesOf(key: number, sizeBytes: number): Buffer {
  const seed = Buffer.alloc(16)
  seed.writeUInt32LE(key)
  return createCipheriv('aes-128-ctr', seed, seed).update(Buffer.alloc(sizeBytes))
}
