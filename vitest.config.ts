/**
 * Which tests run: `*.test.ts` in every folder, and with `--mode long` the `*.long.test.ts` instead.
 *
 * Each file has a process of its own, two at a time, as on the smallest machine we support.
 */
import { defineConfig } from 'vitest/config'

export default defineConfig(({ mode }) => {
  const long = mode === 'long'
  return {
    test: {
      include: long ? ['**/*.long.test.ts'] : ['**/*.test.ts', '.ci/*.test.ts'],
      exclude: ['**/node_modules/**', ...(long ? [] : ['**/*.long.test.ts'])],
      pool: 'forks',
      maxWorkers: long ? 1 : 2,
      testTimeout: long ? 30 * 60_000 : 60_000,
      hookTimeout: long ? 5 * 60_000 : 60_000,
    },
  }
})
