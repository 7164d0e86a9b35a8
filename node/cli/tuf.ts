/**
 * `tower tuf`: the node's own accepting modules as a plain TUF client, in the protocol of the public
 * TUF conformance suite, so that anybody can drive the code that decides what a tower trusts.
 *
 * Trust lives in `<metadata-dir>/trust-v1/` as in a node. The files `root.json`, `timestamp.json`, …
 * beside it are copies for people and tests to look at: written after each step, never read, and
 * written again when somebody damaged them. Exit code 0, or 1 for anything that failed.
 */
import { mkdir, open, readFile, rename, rm } from 'node:fs/promises'
import { join } from 'node:path'
import { Command } from 'commander'
import { request } from 'undici'
import { sha256Of } from '../../manifests/digest.ts'
import { EdgeError } from '../../manifests/errors.ts'
import { TufUpdate } from '../../manifests/tuf/accept.ts'
import { initialState, type AcceptedState, type FoundTarget } from '../../manifests/tuf/accepted-state.ts'
import { fileNameOf } from '../../manifests/tuf/json.ts'
import { requireTargetBytes } from '../../manifests/tuf/verify.ts'
import { openTrustStore, type TrustStore } from '../trust-store.ts'

interface TufOptions {
  readonly metadataDir: string
  readonly metadataUrl?: string
  readonly targetName: readonly string[]
  readonly targetBaseUrl?: string
  readonly targetDir?: string
}

const STALL_MS = 30_000
const FILE_NAME_BYTES_MAX = 200

export function tufCommand(): Command {
  const command = new Command('tuf')
    .description("a TUF client made of the node's accepting modules (conformance protocol)")
    .requiredOption('--metadata-dir <folder>', 'where trusted metadata is kept')
    .option('--metadata-url <url>', "the repository's metadata")
    .option(
      '--target-name <path>',
      'target to download; may be repeated',
      (path, all: string[]) => [...all, path],
      [],
    )
    .option('--target-base-url <url>', "the repository's targets")
    .option('--target-dir <folder>', 'where downloaded targets are kept')
  const optionsOf = (child: Command) => child.optsWithGlobals<TufOptions>()
  command
    .command('init <root>')
    .description('trust this root file; makes no request')
    .action((root: string, _options, child: Command) => initialise(optionsOf(child), root))
  command
    .command('refresh')
    .description('accept the top-level metadata on offer')
    .action((_options, child: Command) => refresh(optionsOf(child)))
  command
    .command('download')
    .description('refresh, then download targets in order; what is here already is not fetched again')
    .action((_options, child: Command) => download(optionsOf(child)))
  return command
}

async function initialise({ metadataDir }: TufOptions, rootFile: string): Promise<void> {
  const store = await openStore(metadataDir)
  const state = initialState(await readFile(rootFile))
  const trusted = store.record.accepted
  if (trusted && !trusted.roots.some(root => Buffer.compare(root, state.roots[0]!) === 0)) {
    throw new EdgeError('TRUST_ROLLBACK', `${metadataDir} trusts another root already; use an empty folder`)
  }
  await publishCopies(metadataDir, trusted ?? (await save(store, state)))
}

async function refresh(options: TufOptions): Promise<void> {
  await openUpdate(options)
}

async function download(options: TufOptions): Promise<void> {
  const { targetName, targetBaseUrl, targetDir } = options
  if (targetName.length === 0 || targetBaseUrl === undefined || targetDir === undefined) {
    throw new EdgeError('REQUEST_INVALID', 'download needs --target-name, --target-base-url and --target-dir')
  }
  const update = await openUpdate(options)
  await mkdir(targetDir, { recursive: true })
  for (const path of targetName) {
    const target = await update.find(path)
    if (!target) throw new EdgeError('ITEM_UNKNOWN', `no role vouches for a target ${JSON.stringify(path)}`)
    const file = join(targetDir, localNameOf(path))
    if (await isHere(file, target)) continue
    const bytes = await fetchTarget(targetBaseUrl, target, update.consistentSnapshot)
    await replace(file, bytes)
  }
}

/** A refreshed update; whatever it accepts is durable, and visible, before it goes on. */
async function openUpdate({ metadataDir, metadataUrl }: TufOptions): Promise<TufUpdate> {
  if (metadataUrl === undefined) throw new EdgeError('REQUEST_INVALID', '--metadata-url is needed')
  const store = await openStore(metadataDir)
  const state = store.record.accepted
  if (!state) throw new EdgeError('TRUST_ROOT_ABSENT', `no root is trusted in ${metadataDir}: run init first`)
  await publishCopies(metadataDir, state)
  const update = new TufUpdate({
    state,
    now: new Date(),
    fetchMetadata: (name, maxBytes) => fetchBytes(new URL(name, folderUrl(metadataUrl)), maxBytes),
    onAdvance: async advanced => publishCopies(metadataDir, await save(store, advanced)),
    limits: { anyRoleName: true },
  })
  await update.refresh()
  return update
}

async function openStore(metadataDir: string): Promise<TrustStore> {
  const store = await openTrustStore(join(metadataDir, 'trust-v1'))
  if (store.damaged) throw store.damaged
  return store
}

async function save(store: TrustStore, accepted: AcceptedState): Promise<AcceptedState> {
  await store.update(record => ({ ...record, accepted }))
  return accepted
}

/** Brings `<folder>/*.json` in line with the state, whatever they were. */
async function publishCopies(
  folder: string,
  { roots, timestamp, snapshot, roles }: AcceptedState,
): Promise<void> {
  const wanted = new Map<string, Uint8Array | undefined>([
    ['root.json', roots.at(-1)],
    ['timestamp.json', timestamp],
    ['snapshot.json', snapshot],
  ])
  for (const [role, bytes] of roles) wanted.set(`${fileNameOf(role)}.json`, bytes)
  for (const [name, bytes] of wanted) {
    const path = join(folder, name)
    if (!bytes) {
      await rm(path, { recursive: true, force: true })
      continue
    }
    const present = await readFile(path).catch(() => undefined)
    if (!present || Buffer.compare(present, bytes) !== 0) await replace(path, bytes)
  }
}

async function isHere(file: string, target: FoundTarget): Promise<boolean> {
  const bytes = await readFile(file).catch(() => undefined)
  if (!bytes) return false
  try {
    requireTargetBytes(bytes, target, target.path)
    return true
  } catch {
    return false
  }
}

async function fetchTarget(
  base: string,
  target: FoundTarget,
  consistentSnapshot: boolean,
): Promise<Uint8Array> {
  const { path, hashes, lengthBytes } = target
  const prefix = hashes.get('sha256') ?? hashes.get('sha512') ?? [...hashes.values()][0]
  const segments = path.split('/')
  const name = segments.pop() ?? ''
  const located = [...segments, consistentSnapshot ? `${prefix}.${name}` : name]
    .map(encodeURIComponent)
    .join('/')
  const bytes = await fetchBytes(new URL(`./${located}`, folderUrl(base)), lengthBytes)
  if (!bytes) throw new EdgeError('TRUST_MISMATCH', `the repository lacks ${path}, which its metadata lists`)
  requireTargetBytes(bytes, target, path)
  return bytes
}

/** @returns `undefined` for 404 and 403. @throws EdgeError `UPSTREAM_*`, `TRUST_TOO_LONG` */
async function fetchBytes(url: URL, maxBytes: number): Promise<Uint8Array | undefined> {
  try {
    const { statusCode, body } = await request(url, { headersTimeout: STALL_MS, bodyTimeout: STALL_MS })
    if (statusCode !== 200) {
      await body.dump()
      if (statusCode === 404 || statusCode === 403) return undefined
      throw new EdgeError('UPSTREAM_REFUSED', `${url.href} answered ${statusCode}`)
    }
    const parts: Buffer[] = []
    let sizeBytes = 0
    for await (const part of body as AsyncIterable<Buffer>) {
      sizeBytes += part.length
      if (sizeBytes > maxBytes)
        throw new EdgeError('TRUST_TOO_LONG', `${url.href} is longer than ${maxBytes} bytes`)
      parts.push(part)
    }
    return Buffer.concat(parts)
  } catch (error) {
    if (error instanceof EdgeError) throw error
    throw new EdgeError('UPSTREAM_UNREACHABLE', `${url.href}: ${(error as Error).message}`, { cause: error })
  }
}

async function replace(path: string, bytes: Uint8Array): Promise<void> {
  const draft = `${path}.draft`
  {
    await using file = await open(draft, 'w')
    await file.writeFile(bytes)
    await file.sync()
  }
  await rename(draft, path).catch(async () => {
    await rm(path, { recursive: true, force: true }) // a folder in its place
    await rename(draft, path)
  })
}

/** One flat file per target path, whatever it holds. */
function localNameOf(path: string): string {
  const name = fileNameOf(path)
  if (name.length <= FILE_NAME_BYTES_MAX) return name
  return `${name.slice(0, FILE_NAME_BYTES_MAX - 65)}.${sha256Of(path)}`
}

function folderUrl(url: string): string {
  return url.endsWith('/') ? url : `${url}/`
}
