/** `tower config`: the settings in force, and with `--explain` where each of them comes from. */
import type { Command } from 'commander'
import { formatByteSize } from '../byte-size.ts'
import { loadConfig } from '../config.ts'
import { answer, newCommand, tableOf } from './command.ts'

export function configCommand(): Command {
  return newCommand('config', {
    summary:
      'Show the settings in force: defaults, tower.config.json and TOWER_* variables, in rising order.',
    examples: [
      ['tower config', 'what a node started here and now would use'],
      ['tower config --explain', 'the same, with where each value comes from and what it means'],
      ['TOWER_HOT_BYTES=20GiB tower config --json', 'for programs; passwords are masked'],
    ],
  })
    .option('--explain', 'say where each value comes from and what it means')
    .action(async ({ json, explain }: { json?: boolean; explain?: boolean }) => {
      const settings = (await loadConfig({ env: process.env, cwd: process.cwd() })).explain()
      const plain = Object.fromEntries(settings.map(({ name, value }) => [name, value]))
      answer(json, explain ? settings : plain, () =>
        tableOf(
          settings.map(({ name, value, from, variable, meaning }) =>
            explain ? [name, textOf(name, value), from, variable, meaning] : [name, textOf(name, value)],
          ),
        ),
      )
    })
}

function textOf(name: string, value: unknown): string {
  if (value === undefined || (Array.isArray(value) && value.length === 0)) return '-'
  if (typeof value === 'number' && /Bytes(Max)?$/.test(name)) return formatByteSize(value)
  return Array.isArray(value) ? value.join(' ') : `${value as string | number | boolean}`
}
