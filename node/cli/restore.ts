/** `tower restore`: an empty tower gets what it can from S3, Kubo or another node, without upstream. */
import type { Command } from 'commander'
import { formatByteSize } from '../byte-size.ts'
import { answer, newCommand, tableOf } from './command.ts'
import { EXIT } from './exit-codes.ts'
import { interruption } from './interrupt.ts'
import { callOwner, type OwnerFlags } from './owner-call.ts'
import { openProgress } from './progress.ts'
import type { RestoreEvent } from './restore-methods.ts'

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
    .option('--data <folder>', 'instead of TOWER_DATA')
    .action(restore)
}

async function restore(flags: OwnerFlags): Promise<void> {
  using progress = openProgress({ json: flags.json })
  let done: Extract<RestoreEvent, { type: 'done' }> | undefined
  for await (const value of callOwner(flags, 'restore', null, { signal: interruption() })) {
    const event = value as RestoreEvent
    if (event.type === 'done') done = event
    else if (event.type === 'refreshed') {
      for (const { what, message } of event.problems) progress.note(`${what}: ${message}`)
    } else {
      const { dataset, bytes, extents, absent } = event
      progress.show({ label: dataset, doneBytes: bytes, detail: `${extents} extents, ${absent} not to be had` })
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
