/**
 * `npm run check`: format, types, lint, unused code, import direction, and text that must not be
 * tracked. Runs all of them even when one fails; prints what failed and one line for each.
 *
 *   .ci/check.ts [--json FILE]   exit code 0 when all passed, 1 when not
 */
import { spawn } from 'node:child_process'
import { writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { parseArgs } from 'node:util'
import { findWrongImports, readSources } from './import-direction.ts'
import { findForbiddenText, isText } from './tracked-text.ts'

const ROOT = join(import.meta.dirname, '..')
const { values } = parseArgs({ options: { json: { type: 'string' } } })

interface Outcome {
  readonly passed: boolean
  readonly output: string
}

const CHECKS: Record<string, () => Promise<Outcome>> = {
  format: () => tool('biome', 'format', '--colors=off', '.'),
  types: () => tool('tsc', '--noEmit', '--pretty', 'false'),
  lint: () => tool('oxlint', '--type-aware'),
  'unused code': () => tool('knip', '--no-progress'),
  'import direction': async () => outcomeOf(findWrongImports(await tracked(path => path.endsWith('.ts')))),
  'tracked text': async () => outcomeOf(findForbiddenText(await tracked(isText))),
  'file length': async () => outcomeOf(findLongFiles(await tracked(path => /\.(ts|mjs)$/.test(path)))),
}
/** More lines are two nouns in one file. */
const LINES_MAX = 450

let failed = 0
for (const [name, check] of Object.entries(CHECKS)) {
  const startedMs = performance.now()
  const { passed, output } = await check()
  if (!passed) {
    failed += 1
    console.log(output.trimEnd())
  }
  console.log(
    `${passed ? 'ok    ' : 'FAILED'} ${name} (${((performance.now() - startedMs) / 1000).toFixed(1)} s)`,
  )
}
if (values.json) {
  await writeFile(values.json, JSON.stringify({ passed: Object.keys(CHECKS).length - failed, failed }))
}
process.exitCode = failed > 0 ? 1 : 0

/** Runs a program of node_modules/.bin; passes when it ends with 0. */
function tool(name: string, ...args: string[]): Promise<Outcome> {
  const { promise, resolve } = Promise.withResolvers<Outcome>()
  const child = spawn(join(ROOT, 'node_modules', '.bin', name), args, {
    cwd: ROOT,
    stdio: ['ignore', 'pipe', 'pipe'],
  })
  let output = ''
  child.stdout.setEncoding('utf8').on('data', (text: string) => (output += text))
  child.stderr.setEncoding('utf8').on('data', (text: string) => (output += text))
  child.on('error', error => resolve({ passed: false, output: `${name}: ${error.message}` }))
  child.on('close', code => resolve({ passed: code === 0, output }))
  return promise
}

/** What git tracks or would track; everything but what .gitignore names. */
async function tracked(wanted: (path: string) => boolean) {
  const { stdout } = await gitFiles()
  return readSources(
    ROOT,
    stdout.split('\0').filter(path => path !== '' && wanted(path)),
  )
}

async function gitFiles(): Promise<{ stdout: string }> {
  const { promise, resolve, reject } = Promise.withResolvers<{ stdout: string }>()
  const child = spawn(
    'git',
    ['ls-files', '-z', '--cached', '--others', '--exclude-standard', '--deduplicate'],
    { cwd: ROOT },
  )
  let stdout = ''
  child.stdout.setEncoding('utf8').on('data', (text: string) => (stdout += text))
  child.on('error', reject)
  child.on('close', code =>
    code === 0 ? resolve({ stdout }) : reject(new Error(`git ls-files ended with ${code}`)),
  )
  return promise
}

function findLongFiles(sources: Awaited<ReturnType<typeof readSources>>): string[] {
  return sources
    .map(({ path, text }) => ({ path, lines: text.split('\n').length - 1 }))
    .filter(({ lines }) => lines > LINES_MAX)
    .map(({ path, lines }) => `${path}: ${lines} lines; more than ${LINES_MAX} are usually two nouns`)
}

function outcomeOf(findings: readonly string[]): Outcome {
  return { passed: findings.length === 0, output: findings.join('\n') }
}
