/** `tower status`: what is here, how fresh it is, what it cost. */
import type { Command } from 'commander'
import { formatByteSize } from '../byte-size.ts'
import { answer, newCommand, tableOf } from './command.ts'
import { interruption } from './interrupt.ts'
import { askOwner, type OwnerFlags } from './owner-call.ts'
import { pinTextOf } from './pin.ts'
import type { ReadReport } from '../http/reads.ts'
import type { ScrubReport } from '../scrubbing.ts'
import type { StatusReport, TrustReport } from './owner-methods.ts'

export function statusCommand(): Command {
  return newCommand('status', {
    summary: 'What is here and how much of it, how fresh it is, what it cost.',
    examples: [
      ['tower status', 'for people'],
      ['tower status --json', 'for programs'],
    ],
  })
    .option('--data <folder>', 'instead of TOWER_DATA')
    .action(async (flags: OwnerFlags) => {
      const report = await askOwner<StatusReport>(flags, 'status', null, { signal: interruption() })
      answer(flags.json, report, () => textOf(report))
    })
}

function readLines({
  requests,
  objectHit,
  byteHit,
  drift,
  byOutcome,
  byDataset,
  byClass,
}: ReadReport): string[] {
  const outcomes = byOutcome.filter(one => one.requests > 0)
  const rows = [...byClass, ...byDataset].map(one => [
    one.name,
    `${one.requests} requests`,
    `${percent(one.objectHit)} hits`,
    `${percent(one.byteHit)} of bytes`,
  ])
  const moved = `${percent(drift.recent)} in the last hours, ${percent(drift.baseline)} in the last weeks`
  return [
    `Hits: ${percent(objectHit)} of ${requests} requests, ${percent(byteHit)} of bytes (${outcomes.map(one => `${one.outcome} ${one.requests}`).join(', ')})`,
    ...(drift.alert ? [`The hit rate has dropped: ${moved}.`] : []),
    tableOf(rows),
  ]
}

function percent(share: number): string {
  return `${(100 * share).toFixed(1)} %`
}

function textOf(report: StatusReport): string {
  const { url, store, datasets, trust, wire, queue } = report
  const rows = datasets.map(({ dataset, revision, present, expected, items, next, freshness }) => [
    dataset,
    `release ${revision}`,
    `${items} items`,
    `${formatByteSize(present)} of ${formatByteSize(expected)}`,
    freshness.fresh ? 'fresh' : 'not confirmed of late',
    next
      ? `release ${next.revision} under way: ${formatByteSize(next.present)} of ${formatByteSize(next.expected)}`
      : '',
  ])
  const free = `${formatByteSize(store.freeBytes)} free`
  const lines = [
    url ? `Serving on ${url} for ${report.upSeconds} s` : 'No node runs on this data folder.',
    trustLine(trust),
    `Hot ${formatByteSize(store.hotBytes)} of ${formatByteSize(store.hotBytesMax)}, warm ${formatByteSize(store.warmBytes)} of ${formatByteSize(store.warmBytesMax)}, ${free}`,
    `Queue: ${queue.name}${queue.connected ? '' : ' (no Redis: runs inside the node)'}; healed ${store.healed}, quarantined ${store.quarantined}`,
    '',
    rows.length > 0 ? tableOf(rows) : 'No dataset is here yet: tower fill --once',
  ]
  if (report.reads && report.reads.requests > 0) lines.push('', ...readLines(report.reads))
  const pins = pinTextOf(report.pins)
  if (pins.length > 0) lines.push('', ...pins)
  if (report.scrub) lines.push('', scrubLine(report.scrub))
  if (wire.length > 0) {
    const spent = wire.map(
      ({ reason, bytesDown, bytesUp }) => `${formatByteSize(bytesDown + bytesUp)} ${reason}`,
    )
    lines.push('', `On the wire so far: ${spent.join(', ')}`)
  }
  return lines.join('\n')
}

function scrubLine({
  state,
  days,
  rounds,
  extents,
  extentsTotal,
  damaged,
  verifiedSince,
}: ScrubReport): string {
  const since =
    verifiedSince === null ? 'not everything was proven yet' : `every byte proven since ${verifiedSince}`
  return `Scrub: ${since}, within ${days} days again (${state}, ${extents} of ${extentsTotal}, round ${rounds + 1}; ${damaged} damaged)`
}

function trustLine({ damaged, rootVersion, confirmedAt, expiresAt, fresh, problems }: TrustReport): string {
  if (damaged) return `Trust: DAMAGED: ${damaged}`
  if (rootVersion === null) return 'Trust: no root yet: set TOWER_ROOT'
  if (confirmedAt === null) return `Trust: root ${rootVersion}, nothing accepted yet`
  const notes = problems.map(({ role, message }) => `\n  role ${role}: ${message}`).join('')
  return `Trust: root ${rootVersion}, confirmed ${confirmedAt}, ${fresh ? 'fresh until' : 'EXPIRED'} ${expiresAt}${notes}`
}
