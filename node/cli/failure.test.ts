import { CommanderError } from 'commander'
import { expect, it } from 'vitest'
import { EdgeError } from '../../manifests/errors.ts'
import { failureOf } from './failure.ts'

it.each([
  [new EdgeError('CONFIG_INVALID', 'x'), 'CONFIG_INVALID', 2],
  [new EdgeError('PUBLISH_FOLDER_EMPTY', 'x'), 'PUBLISH_FOLDER_EMPTY', 1],
  [new EdgeError('UPSTREAM_UNREACHABLE', 'x'), 'UPSTREAM_UNREACHABLE', 3],
  [new EdgeError('STORE_LOCKED', 'x'), 'STORE_LOCKED', 3],
  [new CommanderError(1, 'commander.unknownOption', "error: unknown option '--x'"), 'USAGE', 2],
  [Object.assign(new Error('no space left on device'), { code: 'ENOSPC' }), 'ENOSPC', 1],
  [Object.assign(new Error('x'), { code: 'ERR_INVALID_ARG_TYPE' }), 'UNEXPECTED', 1],
  [new TypeError('x is not a function'), 'UNEXPECTED', 1],
])('%s is %s, exit code %d', (error, code, exitCode) => {
  expect(failureOf(error)).toMatchObject({ code, exitCode, hint: expect.any(String) as string })
})

it('shows where a mistake of ours happened, and no stack for an expected failure', () => {
  expect(failureOf(new TypeError('x')).message).toContain('failure.test.ts')
  expect(failureOf(new EdgeError('STORE_FULL', '12 bytes short')).message).toBe('12 bytes short')
})
