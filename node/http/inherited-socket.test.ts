import { expect, it } from 'vitest'
import { inheritedSocketOf } from './inherited-socket.ts'

it.each([
  [{ LISTEN_FDS: '1', LISTEN_PID: '42' }, 3],
  [{ LISTEN_FDS: '1', LISTEN_PID: '41' }, undefined], // meant for a parent of ours
  [{ LISTEN_FDS: '0', LISTEN_PID: '42' }, undefined],
  [{ LISTEN_PID: '42' }, undefined],
  [{}, undefined],
])('%j', (env, fd) => {
  expect(inheritedSocketOf(env, 42)).toBe(fd)
})
