import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { describe, expect, it } from 'vitest'
import { lockStore } from './lock.ts'
import { temporaryFolder } from './testing.ts'

const HOLDER = `
  import { lockStore } from ${JSON.stringify(fileURLToPath(new URL('lock.ts', import.meta.url)))}
  lockStore(process.argv[1])
  process.stdout.write('locked')
  setInterval(() => {}, 1000)
`

describe('the lock', () => {
  it('refuses a second owner within a second and says who is first; a killed one holds nothing', async () => {
    await using folder = await temporaryFolder()
    const holder = spawn(process.execPath, ['--input-type=module', '-e', HOLDER, folder.path], {
      stdio: ['ignore', 'pipe', 'inherit'],
    })
    await using _holder = { [Symbol.asyncDispose]: async () => void holder.kill('SIGKILL') }
    await once(holder.stdout, 'data')
    const began = performance.now()
    expect(() => lockStore(folder.path)).toThrow(
      expect.objectContaining({
        code: 'STORE_LOCKED',
        message: expect.stringContaining(`process ${holder.pid}`),
      }),
    )
    expect(performance.now() - began).toBeLessThan(1000)

    holder.kill('SIGKILL')
    await once(holder, 'close')
    lockStore(folder.path)[Symbol.dispose]()
  })

  it('is refused inside one process, too, and is free when given back', async () => {
    await using folder = await temporaryFolder()
    const lock = lockStore(folder.path)
    expect(() => lockStore(folder.path)).toThrow(expect.objectContaining({ code: 'STORE_LOCKED' }))
    const other = spawn(process.execPath, ['--input-type=module', '-e', HOLDER, folder.path], {
      stdio: 'ignore',
    })
    const [code] = (await once(other, 'close')) as [number]
    expect(code).not.toBe(0)
    lock[Symbol.dispose]()
    lockStore(folder.path)[Symbol.dispose]()
  })

  it('survives rubbish in its file', async () => {
    await using folder = await temporaryFolder()
    await writeFile(join(folder.path, 'owner.lock'), 'rubbish '.repeat(1000))
    lockStore(folder.path)[Symbol.dispose]()
  })
})
