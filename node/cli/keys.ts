/**
 * `tower keys`: who may publish into a repository. Begins one, lets publishers in and out, changes
 * keys, renews what expires, denies items. What it means and who does it when: docs/trust.md.
 *
 * `--keys` may be given several times: root keys that lie on several sticks come together for the
 * one command that needs them. New keys are written to the first folder.
 */
import { readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { Command, InvalidArgumentError } from 'commander'
import { sha256Of } from '../../manifests/digest.ts'
import { EdgeError } from '../../manifests/errors.ts'
import {
  createRepository,
  readDenylist,
  removePublisher,
  renew,
  rotateRole,
} from '../../manifests/tuf/ceremony.ts'
import { requirePublisherName, setPublisher, writeDenylist } from '../../manifests/tuf/ceremony.ts'
import { isSameDenial, type DenylistEntry } from '../../manifests/tuf/denylist.ts'
import { timeText } from '../../manifests/tuf/json.ts'
import { TOP_LEVEL_ROLES, type TopLevelRole } from '../../manifests/tuf/metadata.ts'
import { EXPIRY_DAYS, type ExpiryDays, type RepositoryMetadata } from '../../manifests/tuf/repository.ts'
import { signersOf } from '../../manifests/tuf/sign-file.ts'
import { parsePublicKey, type PublicKey } from '../../manifests/tuf/signing-key.ts'
import { keyNamed, retireKey, savePinnedRoot, writePublicKey } from '../key-folder.ts'
import { answer, newCommand, tableOf } from './command.ts'
import { openCeremony, type CeremonyOptions } from './key-ceremony.ts'

interface KeysOptions extends CeremonyOptions {
  readonly json?: boolean
}

interface InitOptions extends KeysOptions {
  readonly rootKeys: number
  readonly threshold: number
  readonly expiry: Partial<ExpiryDays>
}

interface AddOptions extends KeysOptions {
  readonly paths: readonly string[]
  readonly publicKey: readonly string[]
  readonly threshold: number
}

interface DenyOptions extends KeysOptions {
  readonly sha256?: string
  readonly dataset?: string
  readonly path?: string
  readonly reason?: string
  readonly undo?: boolean
}

type Examples = readonly (readonly [line: string, what: string])[]

export function keysCommand(): Command {
  const command = new Command('keys').description('who may publish: make, add, rotate and renew keys')
  command.addCommand(
    subcommand('init', 'begin a repository: its keys, and the root that towers are given', [
      ['tower keys init --keys ./keys --to ./repo', 'one root key, for a start'],
      ['tower keys init --keys ./keys --to ./repo --root-keys 3 --threshold 2', 'two of three have to agree'],
    ])
      .option('--root-keys <n>', 'root keys to make', count, 1)
      .option('--threshold <k>', 'root keys that have to sign', count, 1)
      .option(
        '--expiry <role=days>',
        `lifetime of a role's metadata; repeatable (${expiryText()})`,
        expiry,
        {},
      )
      .action(initialise),
  )
  command.addCommand(
    newCommand('new', {
      summary: "make a publisher's key and its public half, to be handed to the repository's holder",
      examples: [['tower keys new health --keys ./my-keys', 'my-keys/publishers/health.pem and .pub']],
    })
      .argument('<publisher>')
      .requiredOption('--keys <folder>', 'where the key goes', collect)
      .action(makeKey),
  )
  command.addCommand(
    subcommand('add', 'let somebody publish, or change what they may publish', [
      ['tower keys add health --keys ./keys --to ./repo', 'datasets health/…; makes their key'],
      ["tower keys add who --paths 'health/*/manifest.json' --public-key who.pem …", 'with a key of theirs'],
    ])
      .argument('<publisher>', 'name of the role: a-z, 0-9, . _ -')
      .option(
        '--paths <pattern>',
        'what they may sign; repeatable (default: <publisher>/*/manifest.json)',
        collect,
        [],
      )
      .option('--public-key <file>', 'their public key, PEM; repeatable', collect, [])
      .option('--threshold <k>', 'how many of their keys have to sign', count, 1)
      .action(add),
  )
  command.addCommand(
    subcommand('remove', 'revoke a publisher: towers stop serving what they published', [
      ['tower keys remove health --keys ./keys --to ./repo', 'at the next update of each tower'],
    ])
      .argument('<publisher>')
      .action(remove),
  )
  command.addCommand(
    subcommand('rotate', 'replace the keys of a role: root, targets, snapshot, timestamp or a publisher', [
      ['tower keys rotate timestamp --keys ./keys --to ./repo', 'when it may have been stolen'],
      [
        'tower keys rotate root --keys ./a --keys ./b --to ./repo --root-keys 3 --threshold 2',
        'old keys sign too',
      ],
    ])
      .argument('<role>')
      .option('--root-keys <n>', 'for root: keys to make (default: as many as now)', count)
      .option('--threshold <k>', 'keys that have to sign (default: as now)', count)
      .action(rotate),
  )
  command.addCommand(
    subcommand('renew', 'sign again what is about to expire, as far as the keys here allow', [
      ['tower keys renew --keys ./keys --to ./repo', 'from cron, once a week'],
    ]).action(renewAll),
  )
  command.addCommand(
    subcommand('deny', 'name something that towers must no longer serve (410)', [
      [
        'tower keys deny --sha256 9f86d0… --reason "wrong dosage" --keys ./keys --to ./repo',
        'these bytes, anywhere',
      ],
      ['tower keys deny --dataset health/guide --path ch3.html --undo …', 'allow it again'],
    ])
      .option('--sha256 <hex>', 'by content')
      .option('--dataset <name>', 'a dataset, or with --path an item of it')
      .option('--path <path>', 'item of the dataset')
      .option('--reason <text>', 'for people')
      .option('--undo', 'take it off the list')
      .action(deny),
  )
  command.addCommand(
    subcommand('list', 'roles, thresholds, expiry, and which keys are here', [
      ['tower keys list --keys ./keys --to ./repo', ''],
    ]).action(list),
  )
  return command
}

async function initialise(options: InitOptions): Promise<void> {
  const place = options.to.replace(/\/\/[^/@]*@/, '//') // never credentials
  await using ceremony = await openCeremony(options, { fresh: true })
  if ((await ceremony.storage.size('metadata/timestamp.json')) !== undefined) {
    throw new EdgeError(
      'PUBLISH_CONFLICT',
      `${place} is a repository already: tower keys list shows its roles`,
    )
  }
  const names = Array.from({ length: options.rootKeys }, (_, at) => `root-${at + 1}`)
  const roots = await Promise.all(names.map(name => ceremony.keyNamed(name)))
  const single = async (name: string) => ({ keys: [await ceremony.keyNamed(name)], threshold: 1 })
  const setup = {
    root: { keys: roots, threshold: options.threshold },
    targets: await single('targets'),
    snapshot: await single('snapshot'),
    timestamp: await single('timestamp'),
  }
  const lifetimes = Object.keys(options.expiry).length > 0 ? options.expiry : undefined
  await createRepository(ceremony.context(), setup, lifetimes)

  const root = await ceremony.storage.read('metadata/1.root.json')
  if (!root) throw new EdgeError('TRUST_ROOT_ABSENT', 'the root was not written')
  await savePinnedRoot(ceremony.folder, root)
  const made = { repository: place, root: join(ceremony.folder, 'root.json'), sha256: sha256Of(root) }
  answer(options.json, made, () =>
    [
      `${place} is a repository now; its keys are in ${ceremony.folder}.`,
      `Give towers ${made.root} (SHA-256 ${made.sha256}).`,
      `Keep ${[...names, 'targets'].map(name => `${name}.pem`).join(', ')} off line. Publishing needs a publisher's key, snapshot.pem and timestamp.pem.`,
      `Next: tower keys add <publisher> --keys ${ceremony.folder} --to ${place}`,
    ].join('\n'),
  )
}

async function makeKey(name: string, { keys: [folder = '.'], json }: Omit<KeysOptions, 'to'>): Promise<void> {
  requirePublisherName(name)
  const { path, keyId } = await keyNamed(folder, `publishers/${name}`)
  const publicKey = await writePublicKey(path)
  answer(
    json,
    { keyId, key: path, publicKey },
    () => `Keep ${path} to yourself; hand ${publicKey} to the repository's holder.`,
  )
}

async function add(name: string, options: AddOptions): Promise<void> {
  await using ceremony = await openCeremony(options)
  const base = await ceremony.load()
  const { delegations } = base.roles.get('targets')!
  const before = delegations?.roles.find(role => role.name === name)
  const keys = await publisherKeys()
  const paths = options.paths.length > 0 ? options.paths : (before?.paths ?? [`${name}/*/manifest.json`])
  await setPublisher(ceremony.context(), base, { name, keys, threshold: options.threshold, paths })
  const added = { publisher: name, paths, keyIds: keys.map(({ keyId }) => keyId) }
  answer(
    options.json,
    added,
    () => `${name} may publish ${paths.join(', ')} (${keys.map(short).join(', ')}).`,
  )

  async function publisherKeys(): Promise<readonly PublicKey[]> {
    if (options.publicKey.length > 0) return Promise.all(options.publicKey.map(readPublicKey))
    const kept = [...(before?.keyIds ?? [])]
      .map(id => delegations?.keys.get(id))
      .filter(key => key !== undefined)
    return kept.length > 0 ? kept : [await ceremony.keyNamed(`publishers/${name}`)]
  }
}

async function remove(name: string, options: KeysOptions): Promise<void> {
  await using ceremony = await openCeremony(options)
  await removePublisher(ceremony.context(), await ceremony.load(), name)
  answer(
    options.json,
    { removed: name },
    () => `${name} is revoked: towers stop serving its datasets at their next update.`,
  )
}

async function rotate(
  role: string,
  options: KeysOptions & { rootKeys?: number; threshold?: number },
): Promise<void> {
  await using ceremony = await openCeremony(options)
  const base = await ceremony.load()
  const signers = signersOf(role, base.root, base.roles.values())
  if (!signers)
    throw new EdgeError(
      'REQUEST_INVALID',
      `there is no role ${role}: root, targets, snapshot, timestamp or a publisher`,
    )
  const { keyIds, threshold } = signers.role
  const old = ceremony.keys.filter(({ keyId }) => keyIds.has(keyId))
  const generation = (base.roles.get(role)?.version ?? base.root.version) + 1
  const place = isTopLevel(role) ? role : `publishers/${role}`
  const made = await Promise.all(
    Array.from({ length: role === 'root' ? (options.rootKeys ?? keyIds.size) : keyIds.size }, (_, at) =>
      ceremony.keyNamed(`${place}-v${generation}-${at + 1}`),
    ),
  )
  const setup = { keys: made, threshold: options.threshold ?? threshold }
  if (isTopLevel(role)) await rotateRole(ceremony.context(), base, role, setup)
  else {
    const paths = base.roles.get('targets')?.delegations?.roles.find(({ name }) => name === role)?.paths ?? []
    await setPublisher(ceremony.context(), base, { name: role, paths, ...setup })
  }
  const stillUsed = await keyIdsInUse(await ceremony.load())
  for (const key of old) if (!stillUsed.has(key.keyId)) await retireKey(key)
  const report = { role, keyIds: made.map(({ keyId }) => keyId), files: made.map(({ path }) => path) }
  answer(
    options.json,
    report,
    () => `${role} has new keys: ${report.files.join(', ')}. The old ones are kept as *.retired.pem.`,
  )
}

async function renewAll(options: KeysOptions): Promise<void> {
  await using ceremony = await openCeremony(options)
  const report = await renew(ceremony.context(), await ceremony.load())
  answer(options.json, report, () => {
    const lines = [`Renewed: ${report.renewed.join(', ')}.`]
    if (report.lacking.length > 0)
      lines.push(`Due, but their keys are not here: ${report.lacking.join(', ')}.`)
    return lines.join('\n')
  })
}

async function deny({ sha256, dataset, path, reason, undo, ...options }: DenyOptions): Promise<void> {
  if ((sha256 === undefined) === (dataset === undefined)) {
    throw new EdgeError('REQUEST_INVALID', 'say what: --sha256, or --dataset (with --path for one item)')
  }
  await using ceremony = await openCeremony(options)
  const base = await ceremony.load()
  const entry: DenylistEntry = { sha256, dataset, path, reason, since: timeText(Date.now()) }
  const others = (await readDenylist(ceremony.storage, base)).filter(other => !isSameDenial(other, entry))
  const entries = undo ? others : [...others, entry]
  await writeDenylist(ceremony.context(), base, entries)
  answer(options.json, { entries }, () => `The denylist has ${entries.length} entries now.`)
}

async function list(options: KeysOptions): Promise<void> {
  await using ceremony = await openCeremony(options)
  const base = await ceremony.load()
  const delegated = base.roles.get('targets')?.delegations?.roles.map(({ name }) => name) ?? []
  const roles = [...TOP_LEVEL_ROLES, ...delegated].map(name => {
    const role = signersOf(name, base.root, base.roles.values())!.role
    const metadata =
      name === 'root' || name === 'snapshot' || name === 'timestamp' ? base[name] : base.roles.get(name)
    return {
      role: name,
      threshold: role.threshold,
      keys: role.keyIds.size,
      here: ceremony.keys.filter(({ keyId }) => role.keyIds.has(keyId)).length,
      version: metadata?.version ?? 0,
      expires: metadata ? timeText(metadata.expiresMs) : null,
    }
  })
  answer(options.json, { roles }, () =>
    tableOf([
      ['role', 'threshold', 'keys', 'here', 'version', 'expires'],
      ...roles.map(row => Object.values(row).map(cell => String(cell ?? '-'))),
    ]),
  )
}

function subcommand(name: string, summary: string, examples: Examples): Command {
  return newCommand(name, { summary, examples })
    .requiredOption('--keys <folder>', 'folder with keys; repeatable', collect)
    .requiredOption('--to <folder>', 'the repository: a folder, or an S3 bucket as for tower publish')
}

async function keyIdsInUse({ root, roles }: RepositoryMetadata): Promise<ReadonlySet<string>> {
  return new Set([
    ...root.keys.keys(),
    ...[...roles.values()].flatMap(role => [...(role.delegations?.keys.keys() ?? [])]),
  ])
}

async function readPublicKey(path: string): Promise<PublicKey> {
  try {
    return parsePublicKey(await readFile(path, 'utf8'))
  } catch (cause) {
    throw new EdgeError('KEY_INVALID', `${path} is not an Ed25519 public key in PEM form`, { cause })
  }
}

function isTopLevel(role: string): role is TopLevelRole {
  return (TOP_LEVEL_ROLES as readonly string[]).includes(role)
}

function short({ keyId }: PublicKey): string {
  return keyId.slice(0, 12)
}

function collect(value: string, all: readonly string[] = []): string[] {
  return [...all, value]
}

function count(text: string): number {
  if (!/^[1-9]\d?$/.test(text)) throw new InvalidArgumentError('a number from 1 to 99 is needed')
  return Number(text)
}

function expiry(text: string, all: Partial<ExpiryDays>): Partial<ExpiryDays> {
  const [, role = '', days = ''] = /^([a-z]+)=([1-9]\d{0,4})$/.exec(text) ?? []
  if (!Object.hasOwn(EXPIRY_DAYS, role))
    throw new InvalidArgumentError(`such as timestamp=30; roles: ${Object.keys(EXPIRY_DAYS).join(', ')}`)
  return { ...all, [role]: Number(days) }
}

function expiryText(): string {
  return Object.entries(EXPIRY_DAYS)
    .map(([role, days]) => `${role}=${days}`)
    .join(', ')
}
