/** `tower verify`: reads and proves everything that is stored; `--heal` gets damaged parts again. */
import type { Command } from 'commander'
import { formatByteSize } from '../byte-size.ts'
import type { VerifyProgress } from '../store/store.ts'
import { answer, newCommand } from './command.ts'
import { EXIT } from './exit-codes.ts'
import { interruption } from './interrupt.ts'
import { callOwner, type OwnerFlags } from './owner-call.ts'
import { openProgress } from './progress.ts'

interface VerifyFlags extends OwnerFlags {
  readonly heal?: boolean
}

export function verifyCommand(): Command {
  return newCommand('verify', {
    summary: 'Read and prove everything that is stored. Damage is set aside; with --heal it is got again.',
    examples: [
      ['tower verify', 'exit code 1 when there is damage'],
      ['tower verify --heal', 'exit code 1 when some could not be healed'],
    ],
  })
    .option('--heal', 'mend what is damaged')
    .option('--data <folder>', 'instead of TOWER_DATA')
    .action(verify)
}

async function verify(flags: VerifyFlags): Promise<void> {
  const options = { signal: interruption() }
  using progress = openProgress({ json: flags.json })
  let last: VerifyProgress = { extents: 0, extentsTotal: 0, bytes: 0, damaged: 0, healed: 0 }
  for await (const value of callOwner(flags, 'verify', { heal: flags.heal ?? false }, options)) {
    last = value as VerifyProgress
    progress.show({
      label: 'verify',
      doneBytes: last.bytes,
      detail: `${last.extents} of ${last.extentsTotal}`,
    })
    const { last: extent } = last
    if (extent?.finding) progress.note(`${extent.cid}: ${extent.finding}${extent.healed ? ', healed' : ''}`)
  }
  progress[Symbol.dispose]()
  const { extents, bytes, damaged, healed } = last
  answer(
    flags.json,
    { extents, bytes, damaged, healed },
    () => `${extents} extents, ${formatByteSize(bytes)} proven; ${damaged} damaged, ${healed} healed`,
  )
  if (damaged > healed) process.exitCode = EXIT.failed
}
