/** `tower pin`: what must never be lost, where it is kept, and whether that is proven. */
import { Command } from 'commander'
import type { PinRow } from '../../pinning/pin-record.ts'
import type { PinEvent, PinTargetReport, VerifyProgress } from '../../pinning/pin-service.ts'
import { formatByteSize } from '../byte-size.ts'
import { answer, newCommand, tableOf } from './command.ts'
import { EXIT } from './exit-codes.ts'
import { interruption } from './interrupt.ts'
import { askOwner, callOwner, type OwnerFlags } from './owner-call.ts'
import type { PinAdded, PinReport } from './pin-methods.ts'
import { openProgress } from './progress.ts'

type Examples = readonly (readonly [line: string, what: string])[]

export function pinCommand(): Command {
  const command = new Command('pin').description('What must never be lost: kept here, in Kubo and in S3.')
  command.addCommand(
    subcommand('add', 'keep a dataset, a folder of it or an item for good', [
      ['tower pin add health/who-guides', 'a whole dataset'],
      ['tower pin add education/physics-book/chapters/', 'a folder: it ends in a slash'],
    ])
      .argument('<what>', '<dataset>, <dataset>/<folder>/ or <dataset>/<path>')
      .action(add),
  )
  command.addCommand(
    subcommand('rm', 'let it go, unless its publisher pins it', [['tower pin rm health/who-guides', '']])
      .argument('<what>', 'as it was added')
      .action(remove),
  )
  command.addCommand(
    subcommand('ls', 'every pin with its state, target by target', [['tower pin ls --json | jq .pins', '']])
      .option('--target <name>', 'one target only')
      .action(list),
  )
  command.addCommand(
    subcommand('status', 'targets, and how many pins they keep', [['tower pin status', '']]).action(status),
  )
  command.addCommand(
    subcommand('verify', 'read everything pinned back from its targets, and prove it', [
      ['tower pin verify', 'exit code 1 when something was not as it should be; it is pinned anew'],
    ]).action(verify),
  )
  return command
}

function subcommand(name: string, summary: string, examples: Examples): Command {
  return newCommand(name, { summary, examples }).option('--data <folder>', 'instead of TOWER_DATA')
}

async function add(wish: string, flags: OwnerFlags): Promise<void> {
  await change('pin-add', wish, flags, value => {
    const { items, bytes, missingBytes } = value as PinAdded
    const missing = missingBytes > 0 ? `; ${formatByteSize(missingBytes)} of it is still to come` : ''
    return `${wish} is pinned: ${items} items, ${formatByteSize(bytes)}${missing}`
  })
}

async function remove(wish: string, flags: OwnerFlags): Promise<void> {
  await change('pin-rm', wish, flags, () => `${wish} is no longer pinned`)
}

/** The first value is the answer; what follows is what was done about it at once. */
async function change(
  method: string,
  wish: string,
  flags: OwnerFlags,
  textOf: (value: unknown) => string,
): Promise<void> {
  const options = { signal: interruption() }
  using progress = openProgress({ json: flags.json })
  let first: unknown
  for await (const value of callOwner(flags, method, { wish }, options)) {
    if (first === undefined) first = value
    else noteEvent(value as PinEvent, progress)
  }
  progress[Symbol.dispose]()
  answer(flags.json, first, () => textOf(first))
}

function noteEvent(event: PinEvent, progress: ReturnType<typeof openProgress>): void {
  if (event.type === 'progress') {
    const { target, done, total, bytes } = event
    progress.show({ label: `pin ${target}`, doneBytes: bytes, detail: `${done} of ${total}` })
  } else if (event.type === 'failed') progress.note(`${event.target}: ${event.message}`)
}

async function list(flags: OwnerFlags & { readonly target?: string }): Promise<void> {
  const { target } = flags
  const pins: PinRow[] = []
  const options = { signal: interruption() }
  for await (const value of callOwner(flags, 'pin-ls', target === undefined ? {} : { target }, options)) {
    pins.push(value as PinRow)
  }
  answer(flags.json, { pins }, () =>
    tableOf([
      ['TARGET', 'STATUS', 'SIZE', 'PROVEN', 'ROOT', 'WHY'],
      ...pins.map(({ target, status, sizeBytes, provedAtMs, root, why, error }) => [
        target,
        status,
        formatByteSize(sizeBytes),
        timeOf(provedAtMs),
        root,
        error === null ? why : `${why} (${error})`,
      ]),
    ]),
  )
}

async function status(flags: OwnerFlags): Promise<void> {
  const report = await askOwner<PinReport>(flags, 'pin-status', null, { signal: interruption() })
  answer(flags.json, report, () => pinTextOf(report).join('\n'))
}

async function verify(flags: OwnerFlags): Promise<void> {
  using progress = openProgress({ json: flags.json })
  const last = new Map<string, VerifyProgress>()
  for await (const value of callOwner(flags, 'pin-verify', null, { signal: interruption() })) {
    const proof = value as VerifyProgress
    const { target, proved, failed, total, bytesRead, finding } = proof
    last.set(target, proof)
    progress.show({
      label: `prove ${target}`,
      doneBytes: bytesRead,
      detail: `${proved + failed} of ${total}`,
    })
    if (finding) progress.note(`${target}: ${finding.why} (${finding.root}): ${finding.message}`)
  }
  progress[Symbol.dispose]()
  const targets = [...last.values()].map(({ target, proved, total, bytesRead, failed }) => {
    return { target, proved, total, bytesRead, failed }
  })
  answer(flags.json, { targets }, () =>
    targets
      .map(
        ({ target, proved, total, bytesRead, failed }) =>
          `${target}: ${proved} of ${total} pins proven, ${bytesRead} bytes read back, ${failed} failed`,
      )
      .join('\n'),
  )
  if (targets.some(({ failed }) => failed > 0)) process.exitCode = EXIT.failed
}

/** For `tower status`, too. Empty when nothing is pinned and there is nowhere to. */
export function pinTextOf({ wishes, policies, targets, replicas }: PinReport): string[] {
  const asked = [
    ...policies.map(({ dataset, paths }) => (paths ? `${dataset} (${paths.join(', ')})` : dataset)),
    ...wishes,
  ]
  if (asked.length === 0 && targets.length === 0) return []
  return [
    `Pinned: ${asked.length > 0 ? [...new Set(asked)].join(', ') : 'nothing'}`,
    ...(targets.length > 0
      ? targets.map(lineOf)
      : ['  nowhere but here: set TOWER_IPFS_API or TOWER_S3_URL']),
    ...(replicas ? [replicaLine(replicas)] : []),
  ]
}

function lineOf({ target, state, error, pins, progress }: PinTargetReport): string {
  const counts = pins.map(({ status, pins, bytes }) => `${pins} ${status} (${formatByteSize(bytes)})`)
  const proofs = pins.filter(({ status }) => status === 'pinned').map(({ provedAtMs }) => provedAtMs)
  const proven =
    proofs.every(at => at !== null) && proofs.length > 0 ? `, proven since ${timeOf(proofs[0] ?? null)}` : ''
  const under = progress ? `, ${progress.done} of ${progress.total} under way` : ''
  return `  ${target}: ${state}${error === null ? '' : ` (${error})`}; ${counts.join(', ') || 'no pins'}${proven}${under}`
}

function replicaLine({ min, max, hosts, under }: NonNullable<PinReport['replicas']>): string {
  const copies = min === max ? `${min}` : `${min} to ${max}`
  const short = under === null ? '' : `; ${under} pins have fewer`
  return `  Kubo: ${copies} copies of each on ${hosts} hosts${short}`
}

function timeOf(ms: number | null): string {
  return ms === null ? 'never' : new Date(ms).toISOString()
}
