/**
 * Adds up what vitest and the checks wrote into a folder, for the last line of `.ci/run`.
 *
 *   .ci/summary.ts FOLDER TESTS_EXIT CHECKS_EXIT → `N passed, N failed`, exit code 0 when none failed
 *
 * A part that ended badly and left no result, or counted no failure, is one failure: a crash is
 * never a pass.
 */
import { readFileSync } from 'node:fs'
import { join } from 'node:path'

const [folder = '.', testsExit, checksExit] = process.argv.slice(2)

interface Counts {
  readonly passed: number
  readonly failed: number
}

/** A file whose tests could not even be collected counts as one failure. */
function countTests(): Counts {
  const { numPassedTests, numFailedTests, testResults } = readJson('tests.json') as {
    numPassedTests: number
    numFailedTests: number
    testResults: readonly { status: string; assertionResults: readonly unknown[] }[]
  }
  const broken = testResults.filter(
    ({ status, assertionResults }) => status === 'failed' && assertionResults.length === 0,
  )
  return { passed: numPassedTests, failed: numFailedTests + broken.length }
}

function readJson(name: string): unknown {
  return JSON.parse(readFileSync(join(folder, name), 'utf8'))
}

function counted(count: () => Counts, exit: string | undefined): Counts {
  let counts: Counts = { passed: 0, failed: 0 }
  try {
    counts = count()
  } catch {
    return { passed: 0, failed: 1 }
  }
  return exit !== '0' && counts.failed === 0 ? { ...counts, failed: 1 } : counts
}

const parts = [counted(countTests, testsExit), counted(() => readJson('checks.json') as Counts, checksExit)]
const passed = parts.reduce((sum, part) => sum + part.passed, 0)
const failed = parts.reduce((sum, part) => sum + part.failed, 0)
console.log(`${passed} passed, ${failed} failed`)
process.exitCode = failed === 0 && passed > 0 ? 0 : 1
