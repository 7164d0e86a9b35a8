import { mkdtemp, rm, stat } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, expect, it } from 'vitest'
import { EdgeError } from '../manifests/errors.ts'
import { callControl, serveControl } from './control.ts'

let folder: string
let socketPath: string
const signal = new AbortController().signal

beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), 'tower-control-'))
  socketPath = join(folder, 'control.sock')
})
afterEach(() => rm(folder, { recursive: true }))

async function* count(params: unknown) {
  for (let n = 0; n < (params as { to: number }).to; n++) yield { n }
}

it('streams what a method yields, and carries its error code', async () => {
  await using _served = await serveControl(socketPath, {
    count,
    async *fail() {
      yield 1
      throw new EdgeError('STORE_FULL', '12 bytes short')
    },
  })
  expect(await Array.fromAsync(callControl(socketPath, 'count', { to: 2000 }, { signal }))).toHaveLength(2000)
  await expect(Array.fromAsync(callControl(socketPath, 'fail', null, { signal }))).rejects.toMatchObject({
    code: 'STORE_FULL',
    message: '12 bytes short',
  })
  await expect(Array.fromAsync(callControl(socketPath, 'nope', null, { signal }))).rejects.toMatchObject({
    code: 'NOT_FOUND',
  })
})

it('is closed to other users, and says so when nobody listens', async () => {
  {
    await using _served = await serveControl(socketPath, { count })
    expect((await stat(socketPath)).mode & 0o777).toBe(0o600)
  }
  await expect(
    Array.fromAsync(callControl(socketPath, 'count', { to: 1 }, { signal })),
  ).rejects.toMatchObject({
    code: 'NOT_READY',
  })
})

it('aborts a method whose caller has left, and takes over a socket left behind', async () => {
  const aborted = Promise.withResolvers<void>()
  const method = async function* (_params: unknown, options: { signal: AbortSignal }) {
    options.signal.addEventListener('abort', () => aborted.resolve())
    for (let n = 0; ; n++) {
      yield n
      await new Promise(resolve => setImmediate(resolve))
    }
  }
  await using _first = await serveControl(socketPath, {})
  await using _served = await serveControl(socketPath, { method })
  for await (const value of callControl(socketPath, 'method', null, { signal })) if (value === 3) break
  await aborted.promise
})
