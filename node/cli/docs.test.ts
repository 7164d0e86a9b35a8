import { readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { expect, it } from 'vitest'
import { loadConfig } from '../config.ts'

const CLI = await readFile(join(import.meta.dirname, '../../docs/cli.md'), 'utf8')

it('docs/cli.md has every setting, with its meaning', async () => {
  const { explain } = await loadConfig({ env: {}, cwd: import.meta.dirname })
  for (const { name, variable, meaning } of explain()) {
    expect(CLI).toContain(`| \`${variable}\` | \`${name}\` |`)
    expect(CLI).toContain(`| ${meaning} |`)
  }
})

it('docs/cli.md has every command, and its files are those of the program', async () => {
  const main = await readFile(join(import.meta.dirname, 'main.ts'), 'utf8')
  const names = [...main.matchAll(/import\('\.\/(\w+)\.ts'\)/g)].map(([, name]) => name)
  expect(names.length).toBeGreaterThan(1)
  for (const name of names) expect(CLI).toContain(`\`tower ${name}`)
})
