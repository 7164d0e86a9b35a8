/**
 * The `tower` command. Each sub-command is a file of its own beside this one, loaded when it is the
 * one asked for: `tower status` does not pay for what `tower serve` needs.
 *
 * Exit codes are in `exit-codes.ts`. An error is one line on stderr, `error CODE: message`, and a
 * hint; with `--json` it is one line of JSON on stdout instead.
 */
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { Command, CommanderError } from 'commander'
import type { NodeConfig } from '../config.ts'
import { EXIT } from './exit-codes.ts'
import { reportFailure } from './failure.ts'
import { endsOnPipeClosed, interruptedExitCode } from './interrupt.ts'

interface Entry {
  readonly summary: string
  readonly load: () => Promise<Command>
  /** A protocol of others wants exit codes 0 and 1 only. */
  readonly plainExit?: true
}

const COMMANDS: Record<string, Entry> = {
  up: {
    summary: 'a whole tower on this machine, with sample datasets',
    load: async () => (await import('./up.ts')).upCommand(startNode),
  },
  serve: {
    summary: 'the node: serves, and keeps itself filled',
    load: async () => (await import('./serve.ts')).serveCommand(),
  },
  plan: {
    summary: 'what a fill would bring, in bytes on the wire',
    load: async () => (await import('./plan.ts')).planCommand(),
  },
  fill: {
    summary: 'fill now, as if a window were open',
    load: async () => (await import('./fill.ts')).fillCommand(),
  },
  status: {
    summary: 'what is here, how fresh it is, what it cost',
    load: async () => (await import('./status.ts')).statusCommand(),
  },
  explain: {
    summary: 'why an item is here or is not',
    load: async () => (await import('./explain.ts')).explainCommand(),
  },
  verify: {
    summary: 'prove everything that is stored; --heal mends it',
    load: async () => (await import('./verify.ts')).verifyCommand(),
  },
  pin: {
    summary: 'what must never be lost, and where it is kept',
    load: async () => (await import('./pin.ts')).pinCommand(),
  },
  export: {
    summary: 'a repository on a stick, for a tower without a link',
    load: async () => (await import('./export.ts')).exportCommand(),
  },
  import: {
    summary: 'fill from a stick',
    load: async () => (await import('./import.ts')).importCommand(),
  },
  restore: {
    summary: 'a tower from nothing: from S3, Kubo or another node',
    load: async () => (await import('./restore.ts')).restoreCommand(),
  },
  publish: {
    summary: 'make a signed release of a folder',
    load: async () => (await import('./publish.ts')).publishCommand(),
  },
  keys: {
    summary: "a repository's keys: who may publish what",
    load: async () => (await import('./keys.ts')).keysCommand(),
  },
  config: {
    summary: 'show the settings in force, and where each comes from',
    load: async () => (await import('./config.ts')).configCommand(),
  },
  nginx: {
    summary: "write NGINX's configuration for this node",
    load: async () => (await import('./nginx.ts')).nginxCommand(),
  },
  tuf: {
    summary: "a plain TUF client made of the node's accepting modules",
    load: async () => (await import('./tuf.ts')).tufCommand(),
    plainExit: true,
  },
}

process.exitCode = await run(process.argv.slice(2))

async function run(args: readonly string[]): Promise<number> {
  endsOnPipeClosed(process.stdout)
  const asked = args.find(arg => !arg.startsWith('-'))
  try {
    const tower = await programFor(args[0] === 'help' ? args[1] : asked)
    await tower.parseAsync(args, { from: 'user' })
    return typeof process.exitCode === 'number' ? process.exitCode : EXIT.done
  } catch (error) {
    const plain = asked !== undefined && COMMANDS[asked]?.plainExit === true
    const code = exitCodeOf(error, args.includes('--json'))
    return plain && code !== EXIT.done ? EXIT.failed : code
  }
}

/** Only the command asked for is loaded; the others are known by name, for help. */
async function programFor(asked: string | undefined): Promise<Command> {
  const tower = new Command('tower')
    .description(
      'Towerlight: brings published datasets to a tower, verifies every byte, serves them offline.',
    )
    .version(version())
    .usage('<command> [options]')
    .helpCommand('help [command]', 'the same as <command> --help')
    .addHelpText('after', '\nEvery command has --help, and --json for programs. Exit codes: docs/cli.md.')
  for (const [name, { summary, load }] of Object.entries(COMMANDS)) {
    const command = name === asked ? await load() : new Command(name)
    tower.addCommand(command.summary(summary))
  }
  adopt(tower)
  return tower
}

function version(): string {
  const { version } = JSON.parse(readFileSync(join(import.meta.dirname, '../../package.json'), 'utf8')) as {
    version: string
  }
  return version
}

/** Its log goes to stderr: stdout is the command's. */
async function startNode(config: NodeConfig) {
  const [main, { pino, destination }] = await Promise.all([import('../main.ts'), import('pino')])
  return await main.startNode(config, pino({ level: config.logLevel }, destination(2)))
}

/** Commander ends the process by itself unless told not to, command by command. */
function adopt(command: Command): void {
  command.exitOverride()
  command.configureOutput({ outputError: () => {} })
  for (const child of command.commands) adopt(child)
}

function exitCodeOf(error: unknown, json: boolean): number {
  if (error instanceof CommanderError && error.exitCode === 0) return EXIT.done // --help, --version
  if (error instanceof CommanderError && error.code === 'commander.help') return EXIT.usage
  return interruptedExitCode() ?? reportFailure(error, { json })
}
