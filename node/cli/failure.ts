/**
 * How a command says that it failed: one line, `error CODE: message`, then what to do about it.
 */
import { CommanderError } from 'commander'
import { EdgeError, type EdgeErrorCode } from '../../manifests/errors.ts'
import { EXIT } from './exit-codes.ts'

export interface Failure {
  /** An EdgeError's code, the system's (`ENOSPC`), `USAGE`, or `UNEXPECTED`: a mistake of ours. */
  readonly code: string
  readonly message: string
  readonly hint?: string
  readonly exitCode: number
}

type OtherCode = 'EACCES' | 'EADDRINUSE' | 'ENOSPC' | 'EROFS' | 'USAGE' | 'UNEXPECTED'

const HINTS: Partial<Record<EdgeErrorCode | OtherCode, string>> = {
  CONFIG_INVALID: 'tower config --explain shows every setting and where it comes from',
  DEPENDENCY_ABSENT: 'npm start installs it; or see the README',
  KEY_ABSENT: 'tower keys init makes keys; tower keys --help shows where they are looked for',
  KEY_NOT_AUTHORISED: 'the root key holder allows it: tower keys add',
  NOT_READY: 'is the node running? tower serve, or npm start for a whole tower',
  PORT_IN_USE: 'another program listens there: choose one with TOWER_PORT, or 0 for any',
  PUBLISH_FILE_CHANGED: 'publish again when nothing writes into the folder',
  PUBLISH_FOLDER_EMPTY: 'is it the right folder? A dataset has at least one file',
  STORE_FULL: 'free space, or lower TOWER_HOT_BYTES, TOWER_WARM_BYTES or what is pinned',
  STORE_LOCKED: 'the node that runs holds the store; commands reach it by TOWER_DATA, so set the same one',
  STORE_READ_ONLY: 'make the data folder writable, or set TOWER_DATA to another one',
  TRUST_EXPIRED: 'the publisher must renew its timestamp; what is here is served meanwhile, marked not fresh',
  TRUST_SIGNATURE:
    'is it the right root? TOWER_ROOT (for a publisher: root.json beside the keys) is that of this repository',
  TRUST_STATE_DAMAGED: 'set trust-v1/ in the data folder aside and start again with TOWER_ROOT',
  UPSTREAM_UNREACHABLE: 'what arrived is kept; run it again when the link is up',
  UPSTREAM_STALLED: 'what arrived is kept; run it again',
  WINDOW_CLOSED: 'what arrived is kept; the next window goes on from there',
  EACCES: 'the user who runs this may not do that there',
  EADDRINUSE: 'another program listens there: choose one with TOWER_PORT, or 0 for any',
  ENOSPC: 'the disk is full: free some space and run it again',
  EROFS: 'the folder is read-only: set TOWER_DATA to another one',
  USAGE: 'see --help',
  UNEXPECTED: 'this should not happen: please report it, with the lines above',
}

export function failureOf(error: unknown): Failure {
  if (error instanceof EdgeError) {
    const { code, message } = error
    const lasting = code === 'CONFIG_INVALID' ? EXIT.usage : EXIT.failed
    return withHint({ code, message, exitCode: error.retryable ? EXIT.again : lasting })
  }
  if (error instanceof CommanderError) {
    return withHint({ code: 'USAGE', message: error.message.replace(/^error: /, ''), exitCode: EXIT.usage })
  }
  const system = systemCodeOf(error)
  if (system) return withHint({ code: system, message: (error as Error).message, exitCode: EXIT.failed })
  const message = error instanceof Error ? (error.stack ?? error.message) : String(error)
  return withHint({ code: 'UNEXPECTED', message, exitCode: EXIT.failed })
}

/** @returns the exit code. */
export function reportFailure(error: unknown, { json }: { readonly json: boolean }): number {
  const { exitCode, ...failure } = failureOf(error)
  if (json) {
    console.log(JSON.stringify({ error: failure }))
  } else {
    console.error(`error ${failure.code}: ${failure.message}`)
    if (failure.hint) console.error(`  → ${failure.hint}`)
  }
  return exitCode
}

function withHint(failure: Failure): Failure {
  const hint = HINTS[failure.code as keyof typeof HINTS]
  return hint === undefined ? failure : { ...failure, hint }
}

/** `EACCES`, `ENOSPC`, …: the operating system's, not `ERR_…` ones, which are mistakes of ours. */
function systemCodeOf(error: unknown): string | undefined {
  const code = error instanceof Error && 'code' in error ? error.code : undefined
  return typeof code === 'string' && /^E[A-Z0-9]+$/.test(code) ? code : undefined
}
