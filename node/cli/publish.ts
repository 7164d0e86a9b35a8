/** `tower publish`: a folder becomes a signed release in a repository. */
import { type Command, InvalidArgumentError } from 'commander'
import type { PinPolicy } from '../../manifests/manifest.ts'
import {
  type Priority,
  publishRelease,
  type PublishProgress,
  type PublishReport,
} from '../../manifests/publish/publish-release.ts'
import { releaseSigner } from '../../manifests/tuf/release-signer.ts'
import { formatByteSize } from '../byte-size.ts'
import { loadConfig } from '../config.ts'
import { loadKeys, loadPinnedRoot } from '../key-folder.ts'
import { answer, newCommand } from './command.ts'
import { interruption } from './interrupt.ts'
import { openProgress, type Progress } from './progress.ts'
import { repositoryAt } from './repository-at.ts'

interface PublishFlags {
  readonly json?: boolean
  readonly dataset: string
  readonly to: string
  readonly keys: readonly string[]
  readonly publisher?: string
  readonly title?: string
  readonly priority?: Priority
  readonly pin?: PinPolicy
  readonly date?: Date
  readonly deltas: boolean
  readonly keep?: number
}

/** Long stages ask for no signal; being killed is safe, so they are not waited for. */
const INTERRUPT_MS = 500

export function publishCommand(): Command {
  return newCommand('publish', {
    summary:
      'Make a signed release of a folder. The same folder again changes nothing; an interrupted run is repeated.',
    examples: [
      [
        'tower publish ./course --dataset education/course --keys ./keys --to ./repo',
        'into a folder: copy it to any web server',
      ],
      [
        'tower publish ./course --dataset education/course --keys ./keys --to http://tower:8081/',
        'to a running node',
      ],
      [
        'tower publish ./guide --dataset health/guide --keys ./keys --to s3 --pin ipfs,s3',
        'into the bucket of TOWER_S3_URL',
      ],
    ],
  })
    .argument('<folder>', 'its files become the items')
    .requiredOption('--dataset <name>', 'two segments, such as education/course')
    .requiredOption('--to <folder|url>', 'the repository')
    .requiredOption(
      '--keys <folder>',
      "folder with the publisher's, snapshot and timestamp keys; repeatable",
      collect,
    )
    .option('--publisher <role>', 'sign as this one, where several keys may')
    .option('--title <text>', 'for people; stays what it was when not given')
    .option('--priority <class>', '0 health, 1 education, 2 other, 3 bulk', priority)
    .option('--pin <targets>', 'keep everywhere: ipfs, s3, ipfs,s3 or none', pins)
    .option('--date <time>', 'date of the release, for reproducible bytes (or SOURCE_DATE_EPOCH)', time)
    .option('--keep <n>', 'releases that the repository keeps (default: 9)', count)
    .option('--no-deltas', 'full frames only')
    .action(publish)
}

async function publish(folder: string, flags: PublishFlags): Promise<void> {
  const { dataset, to, keys: folders, publisher, json } = flags
  const signal = interruption({ endsWithinMs: INTERRUPT_MS })
  const { config } = await loadConfig({ env: process.env, cwd: process.cwd() })
  const keys = await loadKeys(folders)
  const repository = await repositoryAt(to, { config, keys, signal })
  const signer = releaseSigner({ keys, publisher, pinnedRoot: await loadPinnedRoot(folders) })

  using progress = openProgress({ json })
  const report = await publishRelease({
    folder,
    dataset,
    repository,
    signer,
    now: new Date(),
    options: {
      ...(flags.title !== undefined && { title: flags.title }),
      ...(flags.priority !== undefined && { priority: flags.priority }),
      ...(flags.pin && { pin: flags.pin }),
      ...(flags.keep !== undefined && { keepRevisions: flags.keep }),
      ...dateOf(flags),
      deltas: flags.deltas,
      onProgress: step => {
        signal.throwIfAborted() // what was packed is used by the next run
        showStep(progress, step)
      },
    },
  })
  progress[Symbol.dispose]()
  const { manifest: _, ...rest } = report
  answer(json, rest, () => reportText(report, to))
}

function dateOf({ date }: PublishFlags): { date?: Date } {
  const epoch = process.env['SOURCE_DATE_EPOCH']
  if (date) return { date }
  return epoch ? { date: new Date(Number(epoch) * 1000) } : {}
}

function showStep(
  progress: Progress,
  { stage, doneBytes, totalBytes, doneItems, totalItems, path }: PublishProgress,
): void {
  const items = doneItems !== undefined && `${doneItems} of ${totalItems} items`
  progress.show({
    label: stage,
    doneBytes,
    ...(totalBytes !== undefined && { totalBytes }),
    detail: [items, path].filter(Boolean).join('  '),
  })
}

export function reportText(report: PublishReport, to: string): string {
  const { dataset, revision, changed, items, itemBytes, packBytes, deltaBytes, skipped } = report
  const size = `${items} items, ${formatByteSize(itemBytes)}`
  const lines = changed
    ? [
        `${dataset}, release ${revision}: ${size}, in ${to}`,
        `  new: ${formatByteSize(packBytes)} of packs, ${formatByteSize(deltaBytes)} of deltas`,
      ]
    : [`${dataset} has not changed since release ${revision} (${size}); nothing was written`]
  for (const { path, why } of skipped) lines.push(`  left out: ${path} (${why})`)
  return lines.join('\n')
}

function collect(value: string, all: readonly string[] = []): string[] {
  return [...all, value]
}

function priority(text: string): Priority {
  if (!/^[0-3]$/.test(text)) throw new InvalidArgumentError('0, 1, 2 or 3 is needed')
  return Number(text) as Priority
}

function pins(text: string): PinPolicy {
  const targets = text === 'none' ? [] : text.split(',')
  if (targets.some(target => target !== 'ipfs' && target !== 's3')) {
    throw new InvalidArgumentError('ipfs, s3, ipfs,s3 or none is needed')
  }
  return { ipfs: targets.includes('ipfs'), s3: targets.includes('s3') }
}

function time(text: string): Date {
  const date = new Date(text)
  if (Number.isNaN(date.getTime()))
    throw new InvalidArgumentError('a time such as 2026-05-01T12:00:00Z is needed')
  return date
}

function count(text: string): number {
  if (!/^[1-9]\d{0,3}$/.test(text)) throw new InvalidArgumentError('a number from 1 on is needed')
  return Number(text)
}
