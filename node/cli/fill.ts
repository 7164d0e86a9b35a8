/** `tower fill --once`: fills now, as if a contact window were open, and shows what comes. */
import type { Command } from 'commander'
import type { FillEvent } from '../../warmers/fill-once.ts'
import { formatByteSize } from '../byte-size.ts'
import { answer, newCommand } from './command.ts'
import { EXIT } from './exit-codes.ts'
import { interruption } from './interrupt.ts'
import { callOwner, type OwnerFlags } from './owner-call.ts'
import { collect, wishOf } from './plan.ts'
import { openProgress, type Progress } from './progress.ts'

interface FillFlags extends OwnerFlags {
  readonly dataset: readonly string[]
  readonly events?: boolean
}

export function fillCommand(): Command {
  return newCommand('fill', {
    summary:
      'Fill now: ask for news, fetch what is missing, serve it. May be cut at any time; what arrived is kept.',
    examples: [
      ['tower fill --once', 'all datasets'],
      ['tower fill --once --json', 'one line at the end: wireBytes, contentBytes, complete'],
      ['tower fill --once --events', 'every event as a line of JSON'],
    ],
  })
    .option('--once', 'one round; what this command always does')
    .option('--dataset <name>', 'only this one; repeatable', collect, [])
    .option('--events', 'each event as a line of JSON')
    .option('--data <folder>', 'instead of TOWER_DATA')
    .action(fill)
}

async function fill(flags: FillFlags): Promise<void> {
  const options = { signal: interruption() }
  using progress = openProgress({ json: flags.json || flags.events })
  let done: Extract<FillEvent, { type: 'done' }> | undefined
  for await (const value of callOwner(flags, 'fill', wishOf(flags), options)) {
    const event = value as FillEvent
    if (flags.events) console.log(JSON.stringify(event))
    showEvent(progress, 'fill', event)
    if (event.type === 'done') done = event
  }
  progress[Symbol.dispose]()
  if (!done) return
  const { wire, contentBytes, seconds, complete } = done
  const wireBytes = wire.down + wire.up
  if (!flags.events) {
    answer(flags.json, { wireBytes, ...done }, () => {
      const text = `${formatByteSize(contentBytes)} of content by ${formatByteSize(wireBytes)} on the wire (${wireBytes} bytes), in ${seconds.toFixed(1)} s`
      return complete ? text : `${text}\nNot everything came: run it again when the link is better.`
    })
  }
  if (!complete) process.exitCode = EXIT.again
}

export function showEvent(progress: Progress, what: string, event: FillEvent): void {
  if (event.type === 'progress') {
    progress.show({ label: what, doneBytes: event.contentBytes, totalBytes: event.contentBytesTotal })
  } else if (event.type === 'activated') {
    progress.note(`${event.dataset}: release ${event.revision} is served now`)
  } else if (event.type === 'retry' || event.type === 'failed' || event.type === 'fallback') {
    progress.note(`${event.dataset}: ${event.message}`)
  } else if (event.type === 'refreshed') {
    for (const { what: about, code, message } of event.problems)
      progress.note(`${about}: ${code}: ${message}`)
  }
}
