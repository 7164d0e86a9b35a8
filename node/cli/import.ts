/** `tower import`: fills from a stick that another tower wrote. The same code as the network. */
import { resolve } from 'node:path'
import type { Command } from 'commander'
import type { FillEvent } from '../../warmers/fill-once.ts'
import { formatByteSize } from '../byte-size.ts'
import type { StickProblem } from './carrier-methods.ts'
import { answer, newCommand } from './command.ts'
import { EXIT } from './exit-codes.ts'
import { showEvent } from './fill.ts'
import { interruption } from './interrupt.ts'
import { callOwner, type OwnerFlags } from './owner-call.ts'
import { collect, wishOf } from './plan.ts'
import { openProgress } from './progress.ts'

interface ImportFlags extends OwnerFlags {
  readonly dataset: readonly string[]
}

export function importCommand(): Command {
  return newCommand('import', {
    summary: 'Fill from a folder that tower export wrote. Everything is verified; a missing piece is named.',
    examples: [['tower import /media/stick', 'all that is on it']],
  })
    .argument('<folder>', 'the stick')
    .option('--dataset <name>', 'only this one; repeatable', collect, [])
    .option('--data <folder>', 'instead of TOWER_DATA')
    .action(importAll)
}

async function importAll(folder: string, flags: ImportFlags): Promise<void> {
  const params = { folder: resolve(folder), ...wishOf(flags) }
  using progress = openProgress({ json: flags.json })
  const problems: Omit<StickProblem, 'type'>[] = []
  let done: Extract<FillEvent, { type: 'done' }> | undefined
  for await (const value of callOwner(flags, 'import', params, { signal: interruption() })) {
    const event = value as FillEvent | StickProblem
    if (event.type === 'problem') {
      problems.push({ path: event.path, problem: event.problem })
      progress.note(`${event.path} is ${event.problem}`)
    } else {
      if (event.type === 'done') done = event
      showEvent(progress, 'import', event)
    }
  }
  progress[Symbol.dispose]()
  if (!done) return
  const { contentBytes, complete } = done
  answer(flags.json, { contentBytes, complete, problems }, () => {
    const text = `${formatByteSize(contentBytes)} of content from ${params.folder}`
    return complete ? text : `${text}\nNot everything came: ${problems.length} pieces are missing or damaged.`
  })
  if (!complete) process.exitCode = EXIT.again
}
