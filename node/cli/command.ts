/**
 * What every command has: a summary, `--json`, `--help` with examples, and one way to answer.
 */
import { Command } from 'commander'

export interface CommandText {
  readonly summary: string
  /** Command lines, each with what it does. */
  readonly examples: readonly (readonly [line: string, what: string])[]
}

export function newCommand(name: string, { summary, examples }: CommandText): Command {
  const width = Math.max(...examples.map(([line]) => line.length))
  const lines = examples.map(([line, what]) => `  ${line.padEnd(width)}  # ${what}`)
  return new Command(name)
    .description(summary)
    .option('--json', 'answer in JSON, for programs')
    .addHelpText('after', `\nExamples:\n${lines.join('\n')}`)
}

/** One line of JSON for a program, or `text()` for a person. */
export function answer(json: boolean | undefined, value: unknown, text: () => string): void {
  console.log(json ? JSON.stringify(value) : text())
}

/** Columns as wide as their widest cell; the last one as it is. */
export function tableOf(rows: readonly (readonly string[])[]): string {
  const widths = rows[0]?.map((_, column) => Math.max(...rows.map(row => row[column]?.length ?? 0))) ?? []
  return rows
    .map(row =>
      row.map((cell, column) => (column === row.length - 1 ? cell : cell.padEnd(widths[column]!))).join('  '),
    )
    .join('\n')
}
