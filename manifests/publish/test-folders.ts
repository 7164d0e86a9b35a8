/** Folders, repositories and a signer without keys, for tests of publishing. */
import { lstatSync, readdirSync, readFileSync } from 'node:fs'
import { mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { sha256Of, type Sha256 } from '../digest.ts'
import { parseManifest, type Manifest } from '../manifest.ts'
import { folderStorage } from './folder-storage.ts'
import { publishRelease, type PublishOptions, type PublishReport } from './publish-release.ts'
import { ReleaseReader } from './release-reader.ts'
import type { ReleaseSigner } from './release-signer.ts'
import type { RepositoryStorage } from './storage.ts'

export const NOW = new Date('2026-11-20T09:30:00Z')
const TARGETS = 'metadata/targets.json'

/** Says which manifest is current in one file, as `timestamp.json` does in the end. */
export const plainSigner: ReleaseSigner = {
  async current(targetPath, storage) {
    return (await readTargets(storage))[targetPath]
  },
  async sign({ targetPath, bytes }, storage) {
    const targets = {
      ...(await readTargets(storage)),
      [targetPath]: { sha256: sha256Of(bytes), sizeBytes: bytes.length },
    }
    await storage.write(TARGETS, Buffer.from(JSON.stringify(targets)))
  },
}

async function readTargets(storage: RepositoryStorage) {
  const bytes = await storage.read(TARGETS)
  return (bytes ? JSON.parse(Buffer.from(bytes).toString()) : {}) as Record<
    string,
    { sha256: Sha256; sizeBytes: number }
  >
}

export type Files = Record<string, string | Uint8Array>

export interface Bench extends AsyncDisposable {
  readonly folder: string
  readonly repo: string
  readonly storage: RepositoryStorage
  write(files: Files): Promise<void>
  remove(...paths: string[]): Promise<void>
  publish(options?: PublishOptions, dataset?: string, signer?: ReleaseSigner): Promise<PublishReport>
  /** What a reader gets: every item's bytes by path. */
  read(dataset?: string): Promise<Map<string, Buffer>>
}

/** A folder to publish and a repository beside it, both removed in the end. */
export async function openBench(files: Files = {}): Promise<Bench> {
  const root = await mkdtemp(join(tmpdir(), 'tower-publish-'))
  const folder = join(root, 'folder')
  const repo = join(root, 'repo')
  const storage = folderStorage(repo)
  const bench: Bench = {
    folder,
    repo,
    storage,
    async write(more) {
      for (const [path, content] of Object.entries(more)) {
        await mkdir(dirname(join(folder, path)), { recursive: true })
        await writeFile(join(folder, path), content)
      }
    },
    async remove(...paths) {
      for (const path of paths) await rm(join(folder, path))
    },
    async publish(options = {}, dataset = 'education/test', signer = plainSigner) {
      return await publishRelease({
        ...{ folder, dataset, repository: storage, signer, now: NOW },
        options: { level: 3, threads: 1, ...options },
      })
    },
    async read(dataset = 'education/test') {
      return await readRelease(storage, await currentManifest(storage, dataset))
    },
    async [Symbol.asyncDispose]() {
      await rm(root, { recursive: true, force: true })
    },
  }
  await mkdir(folder)
  await bench.write(files)
  return bench
}

export async function currentManifest(storage: RepositoryStorage, dataset: string): Promise<Manifest> {
  const target = await plainSigner.current(`${dataset}/manifest.json`, storage)
  return parseManifest((await storage.read(`targets/${dataset}/${target!.sha256}.manifest.json`))!)
}

export async function readRelease(
  storage: RepositoryStorage,
  manifest: Manifest,
): Promise<Map<string, Buffer>> {
  const release = await ReleaseReader.open(storage, manifest)
  const items = new Map<string, Buffer>()
  for await (const { path, extents, sha256 } of release.items()) {
    const parts: Uint8Array[] = []
    for (const { cid } of extents) parts.push(Uint8Array.from(await release.readExtent(cid)))
    const bytes = Buffer.concat(parts)
    if (sha256Of(bytes) !== sha256) throw new Error(`${path} came out wrong`)
    items.set(path, bytes)
  }
  return items
}

/** Every file beneath a folder with its digest and, if asked, when it was written. */
export function treeOf(folder: string, withTimes = false): Record<string, string> {
  const files = readdirSync(folder, { recursive: true, encoding: 'utf8' }).filter(path =>
    lstatSync(join(folder, path)).isFile(),
  )
  return Object.fromEntries(
    files.sort().map(path => {
      const { mtimeMs, ino } = lstatSync(join(folder, path))
      return [path, sha256Of(readFileSync(join(folder, path))) + (withTimes ? ` ${mtimeMs} ${ino}` : '')]
    }),
  )
}
