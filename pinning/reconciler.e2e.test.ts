import { afterAll, beforeAll, beforeEach, describe, expect, it } from 'vitest'
import type { Cid } from '../manifests/cid.ts'
import { openKuboTarget } from './kubo-target.ts'
import { openPinRecord, type PinRecord } from './pin-record.ts'
import type { PinTarget } from './pin-target.ts'
import { type PinSource, reconcile } from './reconciler.ts'
import { type MemoryItem, memoryItem } from '../manifests/testing/memory-item.ts'
import { haveServer, type KuboServer, startKubo } from './testing/servers.ts'

const signal = new AbortController().signal

describe.runIf(haveServer('ipfs'))('reconciling with Kubo', () => {
  let kubo: KuboServer
  let target: PinTarget
  let record: PinRecord
  let items: MemoryItem[]
  let wishes: MemoryItem[]
  let nowMs = 1000
  let complete = true

  const source: PinSource = {
    async wanted() {
      const pins = wishes.map(({ root, sizeBytes }) => ({ root, sizeBytes, why: 'a test wishes it' }))
      return { pins, complete }
    },
    item: ({ root }) => items.find(item => item.root === root),
  }
  const round = () => reconcile({ target, source, record, nowMs: () => nowMs }, { signal })
  const rootsOf = (some: readonly MemoryItem[]) => some.map(({ root }) => root).toSorted()
  const listed = async () => (await Array.fromAsync(target.list({ signal }))).toSorted()

  beforeAll(async () => {
    kubo = await startKubo()
    target = await openKuboTarget({ apiUrl: kubo.url, callMs: 5000, importMs: 60_000 })
    items = await Promise.all(
      Array.from({ length: 600 }, (_, n) => memoryItem(Buffer.alloc(50 + n, `item ${n} `))),
    )
  }, 60_000)
  afterAll(() => kubo?.[Symbol.asyncDispose]())
  beforeEach(async () => {
    record = openPinRecord(':memory:')
    wishes = []
    await target.unpin(await listed(), { signal })
    complete = true
    return () => record[Symbol.dispose]()
  }, 60_000)

  it('pins what is wished in batches, then has nothing to do', async () => {
    wishes = items
    expect(await round()).toMatchObject({ pinned: 600, failed: 0, unpinned: 0, lost: 0 })
    expect(await listed()).toEqual(rootsOf(items))
    expect(await round()).toMatchObject({ pinned: 0, failed: 0, unpinned: 0, lost: 0 })
    expect(record.summary()).toMatchObject([{ target: 'kubo', status: 'pinned', pins: 600 }])
  })

  it('lets go what is no longer wished, and never what others pinned', async () => {
    const [foreign] = items.slice(20, 21) as [MemoryItem]
    await target.pin([foreign], { signal })
    wishes = items.slice(0, 10)
    await round()
    wishes = items.slice(5, 10)
    expect(await round()).toMatchObject({ unpinned: 5 })
    expect(await listed()).toEqual(rootsOf([...wishes, foreign]))
    wishes = []
    complete = false // a catalog cannot be read just now
    expect(await round()).toMatchObject({ unpinned: 0 })
    expect(await listed()).toHaveLength(6)
  })

  it('finds and repairs what was unpinned behind our back', async () => {
    wishes = items.slice(0, 10)
    await round()
    await kubo.run('pin', 'rm', items[3]?.root ?? '')
    expect(await round()).toMatchObject({ lost: 1, pinned: 1 })
    expect(await listed()).toEqual(rootsOf(wishes))
  })

  it('tries a failed pin again after its back-off, without holding up the others', async () => {
    const broken: MemoryItem = {
      ...(items[0] as MemoryItem),
      readExtent: () => Promise.reject(new Error('bad disk')),
    }
    const failing: PinSource = {
      ...source,
      item: wish => (wish.root === broken.root ? broken : source.item(wish)),
    }
    const failingRound = () => reconcile({ target, source: failing, record, nowMs: () => nowMs }, { signal })
    wishes = items.slice(0, 5)
    expect(await failingRound()).toMatchObject({ failed: 1, pinned: 4 })
    expect((await record.known('kubo')).get(broken.root)).toMatchObject({
      status: 'failed',
      error: 'bad disk',
    })
    expect(await round()).toMatchObject({ waiting: 1, pinned: 0 })
    nowMs += 1001
    expect(await round()).toMatchObject({ waiting: 0, pinned: 1 })
  })

  it('refuses pins that cannot fit before anything moves', async () => {
    wishes = items.slice(0, 2)
    const moved: Cid[] = []
    const small: PinTarget = {
      ...target,
      roomBytes: () => Promise.resolve(60),
      pin: (some, options) => {
        moved.push(...some.map(({ root }) => root))
        return target.pin(some, options)
      },
    }
    const refused = reconcile({ target: small, source, record, nowMs: () => nowMs }, { signal })
    await expect(refused).rejects.toMatchObject({
      code: 'PIN_REFUSED',
      message: expect.stringMatching(/41 bytes short/),
    })
    expect(moved).toEqual([])
  })

  it('a target that is killed in mid-pin is brought to the wishes after it returns', async () => {
    wishes = items
    const killed: PinTarget = {
      ...target,
      pin: async (some, options) => {
        if (some.some(({ root }) => root === items[300]?.root)) kubo.process.kill('SIGKILL')
        return await target.pin(some, options)
      },
    }
    const cut = reconcile({ target: killed, source, record, nowMs: () => nowMs }, { signal })
    await expect(cut).rejects.toMatchObject({ code: 'PIN_TARGET_DOWN' })
    kubo = await kubo.restart()
    await round()
    expect(await listed()).toEqual(rootsOf(items))
    expect(record.summary()).toMatchObject([{ status: 'pinned', pins: 600 }])
  }, 60_000)
})
