/** `tower export`: a repository on a stick, for a tower that has no link. */
import { readFile } from 'node:fs/promises'
import { resolve } from 'node:path'
import type { Command } from 'commander'
import { EdgeError } from '../../manifests/errors.ts'
import { parseWantList, type WantList } from '../../warmers/export-repository.ts'
import { formatByteSize } from '../byte-size.ts'
import type { ExportEvent } from './carrier-methods.ts'
import { answer, newCommand } from './command.ts'
import { interruption } from './interrupt.ts'
import { askOwner, callOwner, type OwnerFlags } from './owner-call.ts'
import { collect, wishOf } from './plan.ts'
import { openProgress } from './progress.ts'

interface ExportFlags extends OwnerFlags {
  readonly dataset: readonly string[]
  readonly to?: string
  readonly for?: string
  readonly wants?: boolean
}

export function exportCommand(): Command {
  return newCommand('export', {
    summary:
      'Write what another tower needs to a folder: a stick, a disk. May be cut at any time and run again.',
    examples: [
      ['tower export --to /media/stick', 'everything this tower has releases of'],
      ['tower export --dataset health/guide --to /media/stick', 'one dataset'],
      ['tower export --wants > wants.json', 'what this tower has, for whoever brings it the rest'],
      ['tower export --for wants.json --to /media/stick', 'only what that tower lacks'],
    ],
  })
    .option('--to <folder>', 'where to write')
    .option('--dataset <name>', 'only this one; repeatable', collect, [])
    .option('--for <file>', "the other tower's want-list")
    .option('--wants', "print this tower's want-list instead")
    .option('--data <folder>', 'instead of TOWER_DATA')
    .action(exportAll)
}

async function exportAll(flags: ExportFlags): Promise<void> {
  const options = { signal: interruption() }
  if (flags.wants) {
    console.log(JSON.stringify(await askOwner<WantList>(flags, 'wants', null, options)))
    return
  }
  if (!flags.to) throw new EdgeError('REQUEST_INVALID', 'where to? Name a folder with --to')
  const wants = flags.for ? parseWantList(await readFile(flags.for, 'utf8')) : undefined
  const params = { folder: resolve(flags.to), ...wishOf(flags), ...(wants && { wants }) }
  using progress = openProgress({ json: flags.json })
  let doneBytes = 0
  let totalBytes = 0
  let done: Extract<ExportEvent, { type: 'done' }> | undefined
  for await (const value of callOwner(flags, 'export', params, options)) {
    const event = value as ExportEvent
    if (event.type === 'planned') ({ bytes: totalBytes, here: doneBytes } = event)
    else if (event.type === 'file') doneBytes += event.bytes
    else done = event
    progress.show({ label: 'export', doneBytes, totalBytes })
  }
  progress[Symbol.dispose]()
  if (!done) return
  const { files, bytes } = done
  answer(
    flags.json,
    { folder: params.folder, files, bytes },
    () =>
      `${files} files, ${formatByteSize(bytes)} in ${params.folder}. There: tower import ${flags.to ?? ''}`,
  )
}
