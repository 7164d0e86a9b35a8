/** `tower explain <item>`: why an item is here or is not, where its bytes lie, when they were proven. */
import type { Command } from 'commander'
import { formatByteSize } from '../byte-size.ts'
import { answer, newCommand, tableOf } from './command.ts'
import { interruption } from './interrupt.ts'
import { askOwner, type OwnerFlags } from './owner-call.ts'
import type { ExplainReport } from './owner-methods.ts'

export function explainCommand(): Command {
  return newCommand('explain', {
    summary: 'Why an item is here or is not, where its bytes lie, when they were proven.',
    examples: [
      ['tower explain health/guide/wounds.html', 'by name'],
      ['tower explain 9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08', 'by SHA-256'],
    ],
  })
    .argument('<item>', '<dataset>/<path>, a SHA-256, or a CID')
    .option('--data <folder>', 'instead of TOWER_DATA')
    .action(async (item: string, flags: OwnerFlags) => {
      const report = await askOwner<ExplainReport>(flags, 'explain', { item }, { signal: interruption() })
      answer(flags.json, report, () => textOf(report))
    })
}

function textOf({ item, extents, events, fetched }: ExplainReport): string {
  const lines: string[] = []
  if (item) {
    const { dataset, path, revision, size, sha256, cid, present, expected, pinned } = item
    const state =
      present === expected ? 'here' : present === 0 ? 'not here' : `${formatByteSize(present)} of it here`
    lines.push(
      `${dataset}/${path}, release ${revision}: ${formatByteSize(size)}, ${state}${pinned ? ', pinned' : ''}`,
      `SHA-256 ${sha256}`,
      `CID     ${cid}`,
    )
  }
  lines.push(
    '',
    tableOf([
      ['EXTENT', 'SIZE', 'TIER', 'PROVEN'],
      ...extents.map(extent => [
        extent.cid,
        formatByteSize(extent.sizeBytes),
        extent.tier ?? 'absent',
        extent.verifiedAt ?? '',
      ]),
    ]),
  )
  for (const { atMs, what, subject, why } of events) {
    lines.push(`${new Date(atMs).toISOString()}  ${what} ${subject}: ${why}`)
  }
  if (fetched.length > 0) {
    lines.push(
      '',
      `The dataset cost ${fetched.map(({ key, bytesDown }) => `${formatByteSize(bytesDown)} ${key}`).join(', ')}`,
    )
  }
  return lines.join('\n')
}
