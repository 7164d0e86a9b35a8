/**
 * For tests: TUF clients that others wrote, python-tuf's `ngclient` and tuf-js's `Updater`, each as
 * a function that downloads and verifies targets from any repository's URL.
 *
 * python-tuf comes from PyPI once, into a virtual environment in our cache folder outside the tree.
 */
import { execFile } from 'node:child_process'
import { existsSync } from 'node:fs'
import { mkdir, readFile, rm, writeFile } from 'node:fs/promises'
import { homedir } from 'node:os'
import { join } from 'node:path'
import { promisify } from 'node:util'
import { Updater } from 'tuf-js'

export interface StockClientRequest {
  /** The client's own folder: metadata and targets are kept there between calls. */
  readonly folder: string
  /** The root that the client is given, when the folder is new. */
  readonly root: Uint8Array
  /** Both end with a slash. */
  readonly metadataUrl: string
  readonly targetsUrl: string
  readonly targets: readonly string[]
}

/** Downloads in order. @returns the bytes of each target. Throws what the client throws. */
export type StockClient = (request: StockClientRequest) => Promise<readonly Buffer[]>

const PYTHON_TUF = 'tuf==7.0.0'
const INSTALL_MS = 300_000
const RUN_MS = 120_000
const run = promisify(execFile)
const environment = join(
  process.env['XDG_CACHE_HOME'] ?? join(homedir(), '.cache'),
  'towerlight',
  PYTHON_TUF.replace('==', '-'),
)

const NGCLIENT = `
import sys
from tuf.ngclient import Updater
folder, metadata_url, targets_url, root, *names = sys.argv[1:]
updater = Updater(metadata_dir=folder + '/metadata', metadata_base_url=metadata_url,
                  target_dir=folder + '/targets', target_base_url=targets_url,
                  bootstrap=open(root, 'rb').read())
updater.refresh()
for name in names:
    info = updater.get_targetinfo(name)
    if info is None:
        sys.exit('no such target: ' + name)
    print(updater.download_target(info))
`

/**
 * Whether python-tuf is there, installing it if need be. Without a way to get it, an error in CI,
 * and said aloud elsewhere.
 */
export async function havePythonTuf(): Promise<boolean> {
  const ready = join(environment, 'ready')
  if (existsSync(ready)) return true
  try {
    await rm(environment, { recursive: true, force: true })
    await run('python3', ['-m', 'venv', environment], { timeout: INSTALL_MS })
    const pip = [
      '-m',
      'pip',
      'install',
      '--quiet',
      '--disable-pip-version-check',
      PYTHON_TUF,
      'securesystemslib[crypto]',
    ]
    await run(join(environment, 'bin', 'python'), pip, { timeout: INSTALL_MS })
    await writeFile(ready, '')
    return true
  } catch (cause) {
    if (process.env['CI']) throw new Error(`python-tuf cannot be installed into ${environment}`, { cause })
    console.warn(`NOT RUN: tests with python-tuf, which cannot be installed (${(cause as Error).message})`)
    return false
  }
}

export const pythonTuf: StockClient = async ({ folder, root, metadataUrl, targetsUrl, targets }) => {
  const rootFile = await prepare(folder, root)
  const args = ['-c', NGCLIENT, folder, metadataUrl, targetsUrl, rootFile, ...targets]
  const { stdout } = await run(join(environment, 'bin', 'python'), args, { timeout: RUN_MS })
  return Promise.all(
    stdout
      .trim()
      .split('\n')
      .filter(Boolean)
      .map(path => readFile(path)),
  )
}

export const tufJs: StockClient = async ({ folder, root, metadataUrl, targetsUrl, targets }) => {
  await prepare(folder, root)
  const updater = new Updater({
    metadataDir: join(folder, 'metadata'),
    metadataBaseUrl: metadataUrl.replace(/\/$/, ''),
    targetDir: join(folder, 'targets'),
    targetBaseUrl: targetsUrl.replace(/\/$/, ''),
  })
  await updater.refresh()
  const downloaded: Buffer[] = []
  for (const name of targets) {
    const info = await updater.getTargetInfo(name)
    if (!info) throw new Error(`no such target: ${name}`)
    downloaded.push(await readFile(await updater.downloadTarget(info)))
  }
  return downloaded
}

async function prepare(folder: string, root: Uint8Array): Promise<string> {
  const rootFile = join(folder, 'metadata', 'root.json')
  for (const name of ['metadata', 'targets']) await mkdir(join(folder, name), { recursive: true })
  if (!existsSync(rootFile)) await writeFile(rootFile, root)
  const given = join(folder, 'given.root.json')
  await writeFile(given, root)
  return given
}
