/**
 * The publisher that `tower up` plays: a repository of the sample datasets in a folder, with keys of
 * its own. What is there already is gone on with, so an interrupted start is simply repeated.
 *
 * The keys lie beside the repository: fine to look at, never for a real publisher, whose root key is
 * off line (docs/trust.md).
 */
import { cp, mkdir, mkdtempDisposable } from 'node:fs/promises'
import { join } from 'node:path'
import { manifestTarget } from '../../manifests/manifest.ts'
import { folderStorage } from '../../manifests/publish/folder-storage.ts'
import { type Priority, publishRelease, type PublishReport } from '../../manifests/publish/publish-release.ts'
import { createRepository, renew, setPublisher } from '../../manifests/tuf/ceremony.ts'
import { releaseSigner } from '../../manifests/tuf/release-signer.ts'
import { loadKeys, loadPinnedRoot, savePinnedRoot } from '../key-folder.ts'
import { type Ceremony, openCeremony } from './key-ceremony.ts'

export interface SampleRepository {
  /** What any static host would serve. */
  readonly folder: string
  /** The root that a tower is given. */
  readonly rootPath: string
  /** Whether there is no release yet. */
  readonly isNew: boolean
  /** @param release 1 is the first one; 2 changes and adds a little. */
  publish(release: 1 | 2): Promise<readonly PublishReport[]>
}

interface Sample {
  readonly dataset: string
  readonly title: string
  readonly priority: Priority
}

const FOLDER = join(import.meta.dirname, '..', 'samples')
const SAMPLES: readonly Sample[] = [
  { dataset: 'health/hands-and-water', title: 'Clean hands, safe water', priority: 0 },
  { dataset: 'education/light-and-colour', title: 'Light and colour', priority: 1 },
]
/** Of the 90 days that a timestamp lasts: with fewer left than these it is signed again. */
const RENEW_BEFORE_MS = 60 * 86_400_000
const PUBLISHERS = ['education', 'health']

export async function openSampleRepository(folder: string): Promise<SampleRepository> {
  const keys = join(folder, 'keys')
  const repository = join(folder, 'repository')
  await mkdir(repository, { recursive: true })
  {
    await using ceremony = await openCeremony({ keys: [keys], to: repository }, { fresh: true })
    await begin(ceremony)
  }
  const storage = folderStorage(repository)
  const signer = releaseSigner({ keys: await loadKeys([keys]), pinnedRoot: await loadPinnedRoot([keys]) })
  const current = await Promise.all(
    SAMPLES.map(({ dataset }) => signer.current(manifestTarget(dataset), storage)),
  )
  return {
    folder: repository,
    rootPath: join(keys, 'root.json'),
    isNew: current.every(target => target === undefined),
    async publish(release) {
      const reports: PublishReport[] = []
      for (const { dataset, title, priority } of SAMPLES) {
        await using source = await mergedRelease(dataset, release, folder)
        const request = { folder: source.path, dataset, repository: storage, signer, now: new Date() }
        reports.push(await publishRelease({ ...request, options: { title, priority } }))
      }
      return reports
    },
  }
}

/** Makes what is missing of keys and metadata, and signs again what grew old while the tower was off. */
async function begin(ceremony: Ceremony): Promise<void> {
  const { storage, folder } = ceremony
  const only = async (name: string) => ({ keys: [await ceremony.keyNamed(name)], threshold: 1 })
  const root = await only('root-1')
  const others = {
    targets: await only('targets'),
    snapshot: await only('snapshot'),
    timestamp: await only('timestamp'),
  }
  if ((await storage.size('metadata/timestamp.json')) === undefined) {
    await createRepository(ceremony.context(), { root, ...others })
  }
  for (const name of PUBLISHERS) {
    const { keys, threshold } = await only(`publishers/${name}`)
    const base = await ceremony.load()
    if (base.roles.has(name)) continue
    await setPublisher(ceremony.context(), base, {
      name,
      keys,
      threshold,
      paths: [`${name}/*/manifest.json`],
    })
  }
  const base = await ceremony.load()
  if (base.timestamp.expiresMs - Date.now() < RENEW_BEFORE_MS) await renew(ceremony.context(), base)
  await savePinnedRoot(folder, (await storage.read('metadata/1.root.json'))!)
}

/** `r1/` is whole; `r2/` lies over it. */
async function mergedRelease(dataset: string, release: 1 | 2, folder: string) {
  const merged = await mkdtempDisposable(join(folder, 'sample-'))
  await cp(join(FOLDER, dataset, 'r1'), merged.path, { recursive: true })
  if (release === 2) await cp(join(FOLDER, dataset, 'r2'), merged.path, { recursive: true })
  return merged
}
