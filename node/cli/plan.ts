/** `tower plan`: what a fill would bring, in bytes on the wire. Fetches metadata and directories, nothing big. */
import type { Command } from 'commander'
import type { PlanNews } from '../../warmers/fill-once.ts'
import type { PlanReport } from '../../warmers/plan-report.ts'
import type { Schedule } from '../../warmers/schedule.ts'
import { formatByteSize } from '../byte-size.ts'
import { answer, newCommand, tableOf } from './command.ts'
import { interruption } from './interrupt.ts'
import { askOwner, type OwnerFlags } from './owner-call.ts'

interface PlanFlags extends OwnerFlags {
  readonly dataset: readonly string[]
}

export function planCommand(): Command {
  return newCommand('plan', {
    summary: 'What a fill would bring, and its exact bytes on the wire. Fetches nothing big.',
    examples: [
      ['tower plan', 'all datasets'],
      [
        'tower plan --dataset health/guide --json',
        'one of them, for a program: wireBytes is down and up together',
      ],
    ],
  })
    .option('--dataset <name>', 'only this one; repeatable', collect, [])
    .option('--data <folder>', 'instead of TOWER_DATA')
    .action(plan)
}

async function plan(flags: PlanFlags): Promise<void> {
  const options = { signal: interruption() }
  const report = await askOwner<PlanReport & PlanNews>(flags, 'plan', wishOf(flags), options)
  const { wire } = report
  answer(flags.json, { wireBytes: wire.down + wire.up, ...report }, () => textOf(report))
}

function textOf({ datasets, wire, contentBytes, refresh, schedule }: PlanReport & PlanNews): string {
  const rows = datasets
    .filter(({ extents, wire }) => extents > 0 || wire.down > 0)
    .map(({ dataset, revision, contentBytes, wire, byReason, unobtainable }) => [
      dataset,
      `release ${revision}`,
      formatByteSize(contentBytes),
      formatByteSize(wire.down + wire.up),
      `${wire.requests} requests`,
      [
        ...Object.entries(byReason).flatMap(([reason, { down }]) =>
          down > 0 ? [`${formatByteSize(down)} as ${reason}`] : [],
        ),
        ...(unobtainable > 0 ? [`${unobtainable} extents that no source has`] : []),
      ].join(', '),
    ])
  if (rows.length === 0)
    return `Nothing is missing. Asking for news takes ${formatByteSize(refresh.down + refresh.up)}.`
  const total = `${formatByteSize(contentBytes)} of content by ${formatByteSize(wire.down + wire.up)} on the wire (${wire.down + wire.up} bytes)`
  const table = tableOf([['DATASET', 'TO', 'CONTENT', 'WIRE', '', 'HOW'], ...rows])
  return [table, total, schedule && windowsOf(schedule)].filter(Boolean).join('\n\n')
}

/** Which window brings what; nothing to say where a link may be used at any time. */
function windowsOf({ windows, later, complete }: Pick<Schedule, 'windows' | 'later' | 'complete'>): string {
  if (windows.every(({ window }) => window === '')) return ''
  const rows = windows.map(({ link, start, end, wireBytes, datasets }) => [
    start,
    end,
    link,
    formatByteSize(wireBytes),
    datasets.map(({ dataset }) => dataset).join(', '),
  ])
  const rest = later.wireBytes > 0 ? `\nLater than that: ${formatByteSize(later.wireBytes)}.` : ''
  const end = complete ? `\nComplete by ${complete}.` : ''
  return `${tableOf([['FROM', 'TO', 'LINK', 'WIRE', 'WHAT'], ...rows])}${end}${rest}`
}

/** Options as the owner takes them: none means all. */
export function wishOf({ dataset }: Pick<PlanFlags, 'dataset'>): { datasets?: readonly string[] } {
  return dataset.length > 0 ? { datasets: dataset } : {}
}

export function collect(value: string, before: readonly string[]): string[] {
  return [...before, value]
}
