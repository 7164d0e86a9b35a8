/** `tower restore`: an empty tower gets what it can from S3, Kubo or another node, without upstream. */
import type { Command } from 'commander'
import { EdgeError } from '../../manifests/errors.ts'
import { formatByteSize } from '../byte-size.ts'
import { loadConfig } from '../config.ts'
import { answer, newCommand, tableOf } from './command.ts'
import { EXIT } from './exit-codes.ts'
import { interruption } from './interrupt.ts'
import { callOwner, type OwnerFlags } from './owner-call.ts'
import { openProgress } from './progress.ts'
import type { RestoreEvent, SnapshotRecords } from './restore-methods.ts'

interface RestoreFlags extends OwnerFlags {
  /** True: of the only node that has one. */
  readonly snapshot?: string | true
}

export function restoreCommand(): Command {
  return newCommand('restore', {
    summary:
      'Brings back metadata, catalogs and pinned items from where they are kept; all of it is verified.',
    examples: [
      ['TOWER_ROOT=root.json TOWER_S3_URL=http://KEY:SECRET@10.0.0.2:9000/tower tower restore', 'from S3'],
      ['TOWER_ROOT=root.json TOWER_IPFS_API=http://10.0.0.2:5001 tower restore', 'from Kubo'],
      ['TOWER_ROOT=root.json TOWER_PEERS=http://10.0.0.3 tower restore', 'from another tower'],
    ],
  })
    .option(
      '--snapshot [node id]',
      "put the node's own nightly records back first; into an empty folder, from S3",
    )
    .option('--data <folder>', 'instead of TOWER_DATA')
    .action(restore)
}

async function restore(flags: RestoreFlags): Promise<void> {
  const records = flags.snapshot === undefined ? null : await snapshotBack(flags)
  using progress = openProgress({ json: flags.json })
  let done: Extract<RestoreEvent, { type: 'done' }> | undefined
  for await (const value of callOwner(flags, 'restore', records, { signal: interruption() })) {
    const event = value as RestoreEvent
    if (event.type === 'done') done = event
    else if (event.type === 'refreshed') {
      for (const { what, message } of event.problems) progress.note(`${what}: ${message}`)
    } else {
      const { dataset, bytes, extents, absent } = event
      progress.show({
        label: dataset,
        doneBytes: bytes,
        detail: `${extents} extents, ${absent} not to be had`,
      })
    }
  }
  progress[Symbol.dispose]()
  const { bytes = 0, datasets = [] } = done ?? {}
  answer(flags.json, { bytes, datasets }, () =>
    tableOf([
      ['DATASET', 'RELEASE', 'HERE', 'OF'],
      ...datasets.map(({ dataset, revision, presentBytes, expectedBytes }) => [
        dataset,
        String(revision),
        formatByteSize(presentBytes),
        formatByteSize(expectedBytes),
      ]),
    ]),
  )
  if (datasets.length === 0) process.exitCode = EXIT.failed
}

/** Before the store is opened: the files must not be in use. */
async function snapshotBack({ snapshot, data }: RestoreFlags): Promise<SnapshotRecords> {
  const { config } = await loadConfig({
    env: process.env,
    cwd: process.cwd(),
    ...(data && { options: { data } }),
  })
  if (config.s3Url === undefined)
    throw new EdgeError('CONFIG_INVALID', 'snapshots are kept in S3: set TOWER_S3_URL')
  const [{ openS3Target }, { restoreSnapshot }] = await Promise.all([
    import('../../pinning/s3-target.ts'),
    import('../../pinning/snapshot.ts'),
  ])
  const options = { signal: interruption() }
  const limits = { region: 'us-east-1', callMs: 30_000, concurrency: 4 }
  const { files } = await openS3Target({ url: config.s3Url, ...limits }, options)
  const nodeId = snapshot === true ? undefined : snapshot
  const { pins, revisionFloors } = await restoreSnapshot({ files, folder: config.data, nodeId }, options)
  return { pins, revisionFloors }
}
