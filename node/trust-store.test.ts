import { mkdir, mkdtemp, readdir, readFile, rm, stat, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { findTarget, initialState } from '../manifests/tuf/accepted-state.ts'
import { TestRepository } from '../manifests/tuf/testing.ts'
import { decodeTrust, EMPTY_TRUST, encodeTrust, type TrustRecord } from './trust-record.ts'
import { decodeCopy, openTrustStore } from './trust-store.ts'

const PATH = 'health/guide/manifest.json'
let folder: string

beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), 'trust-'))
})
afterEach(() => rm(folder, { recursive: true, force: true }))

async function sample(): Promise<{ repository: TestRepository; older: TrustRecord; record: TrustRecord }> {
  const repository = await TestRepository.open()
  await repository.publish(PATH, 'one')
  const older = { ...EMPTY_TRUST, accepted: await repository.accept() }
  await repository.publish(PATH, 'two')
  const record: TrustRecord = {
    accepted: await repository.accept(older.accepted),
    manifests: new Map([['health/guide', { current: Buffer.from('{"a":"ü"}'), next: undefined }]]),
    revisionFloors: new Map([['health/guide', 2]]),
    denylist: Buffer.from('{}'),
    pins: ['health/guide'],
  }
  return { repository, older, record }
}

/** A store whose two copies hold the newer record, after an older one. */
async function prepared() {
  const given = await sample()
  const store = await openTrustStore(folder)
  await store.update(() => given.older)
  await store.update(() => given.record)
  return { ...given, bytes: await readFile(join(folder, 'a')) }
}

describe('trust record', () => {
  it('comes back as it was, byte for byte', async () => {
    const { record } = await sample()
    expect(decodeTrust(encodeTrust(record))).toEqual(record)
    expect(decodeTrust(encodeTrust(EMPTY_TRUST))).toEqual(EMPTY_TRUST)
  })
})

describe('trust store', () => {
  it('keeps what was acknowledged, in two equal copies that only their owner reads', async () => {
    const { record, bytes } = await prepared()
    expect(await readFile(join(folder, 'b'))).toEqual(bytes)
    expect((await stat(join(folder, 'a'))).mode & 0o777).toBe(0o600)
    expect(await readdir(folder)).toEqual(['a', 'b'])
    const again = await openTrustStore(folder)
    expect(again.record).toEqual(record)
    expect(again.damaged).toBeUndefined()
  })

  it('a copy cut at any byte is no copy', async () => {
    const { bytes } = await prepared()
    for (let length = 0; length < bytes.length; length++) {
      expect(decodeCopy(bytes.subarray(0, length))).toBeUndefined()
    }
    expect(decodeCopy(Buffer.concat([bytes, Buffer.from('x')]))).toBeUndefined()
  })

  it('a copy with any bit flipped is no copy', async () => {
    const { bytes } = await prepared()
    for (let at = 0; at < bytes.length; at++) {
      bytes[at]! ^= 1 << (at % 8)
      expect(decodeCopy(bytes), `byte ${at}`).toBeUndefined()
      bytes[at]! ^= 1 << (at % 8)
    }
    expect(decodeCopy(bytes)).toBeDefined()
  })

  it.each(['a', 'b'])(
    'with copy %s damaged anywhere it opens, loses nothing, and mends itself',
    async copy => {
      const { repository, record, bytes } = await prepared()
      const flipped = Buffer.from(bytes)
      flipped[200]! ^= 4
      const damages = [
        ...Array.from({ length: 40 }, (_, step) => bytes.subarray(0, Math.floor((step * bytes.length) / 40))),
        flipped,
        Buffer.alloc(bytes.length),
      ]
      for (const damage of damages) {
        await writeFile(join(folder, copy), damage)
        const store = await openTrustStore(folder)
        expect(store.record).toEqual(record)
        expect(await readFile(join(folder, copy))).toEqual(bytes)
      }
      await rm(join(folder, copy))
      expect((await openTrustStore(folder)).record).toEqual(record)

      const { accepted } = (await openTrustStore(folder)).record
      repository.forge('timestamp.json', { version: 1 })
      await expect(repository.accept(accepted)).rejects.toMatchObject({ code: 'TRUST_ROLLBACK' })
    },
  )

  it('the newer of two whole copies counts: a cut between the two writes', async () => {
    const { record, bytes } = await prepared()
    const stale = await mkdtemp(join(tmpdir(), 'trust-'))
    try {
      const old = await openTrustStore(stale)
      await old.update(() => EMPTY_TRUST)
      for (const copy of ['a', 'b']) {
        await writeFile(join(folder, copy), await readFile(join(stale, 'a')))
        expect((await openTrustStore(folder)).record).toEqual(record)
        expect(await readFile(join(folder, copy))).toEqual(bytes)
      }
    } finally {
      await rm(stale, { recursive: true })
    }
  })

  it('with both copies damaged it opens, trusts nothing, and refuses to accept anything', async () => {
    await prepared()
    await writeFile(join(folder, 'a'), 'x')
    await writeFile(join(folder, 'b'), '')
    const store = await openTrustStore(folder)
    expect(store.damaged).toMatchObject({ code: 'TRUST_STATE_DAMAGED' })
    expect(store.record).toEqual(EMPTY_TRUST)
    await expect(store.update(record => record)).rejects.toMatchObject({ code: 'TRUST_STATE_DAMAGED' })
    expect(await readFile(join(folder, 'a'), 'utf8')).toBe('x')
  })

  it('takes updates one after the other, and a failing one changes nothing', async () => {
    const store = await openTrustStore(folder)
    const add = (pin: string) => store.update(record => ({ ...record, pins: [...record.pins, pin] }))
    const all = await Promise.allSettled([
      add('a'),
      store.update(() => {
        throw new Error('no')
      }),
      add('b'),
      add('c'),
    ])
    expect(all.map(({ status }) => status)).toEqual(['fulfilled', 'rejected', 'fulfilled', 'fulfilled'])
    expect((await openTrustStore(folder)).record.pins).toEqual(['a', 'b', 'c'])
  })

  it('another process sees updates by reading again, and never goes back', async () => {
    const owner = await openTrustStore(folder)
    const reader = await openTrustStore(folder)
    expect(await reader.reload()).toBe(false)
    await owner.update(record => ({ ...record, pins: ['x'] }))
    const saved = await readFile(join(folder, 'a'))
    expect(await reader.reload()).toBe(true)
    expect(reader.record.pins).toEqual(['x'])
    await owner.update(record => ({ ...record, pins: ['y'] }))
    expect(await reader.reload()).toBe(true)

    for (const copy of ['a', 'b']) await writeFile(join(folder, copy), saved)
    expect(await reader.reload()).toBe(false)
    expect(reader.record.pins).toEqual(['y'])
    for (const copy of ['a', 'b']) await writeFile(join(folder, copy), 'damaged')
    expect(await reader.reload()).toBe(false)
    expect(reader.damaged).toBeUndefined()
  })

  it('opens where nothing can be written', async () => {
    const { record } = await prepared()
    await rm(join(folder, 'b'))
    await mkdir(join(folder, 'b', 'in the way'), { recursive: true })
    const store = await openTrustStore(folder)
    expect(store.record).toEqual(record)
    await expect(store.update(change => change)).rejects.toMatchObject({ code: 'STORE_READ_ONLY' })
    expect(store.record).toEqual(record)
  })

  it('says what is the matter when the folder cannot be made', async () => {
    await writeFile(join(folder, 'file'), '')
    await expect(openTrustStore(join(folder, 'file', 'trust'))).rejects.toMatchObject({
      code: 'STORE_READ_ONLY',
    })
  })

  it('begins empty, and with an initial root goes on from there', async () => {
    const repository = await TestRepository.open()
    const sha256 = await repository.publish(PATH, 'one')
    const store = await openTrustStore(folder)
    expect(store.record).toEqual(EMPTY_TRUST)
    await store.update(record => ({ ...record, accepted: initialState(repository.root) }))
    await repository.accept(store.record.accepted, {
      onAdvance: async accepted => void (await store.update(record => ({ ...record, accepted }))),
    })
    const { accepted } = (await openTrustStore(folder)).record
    expect(findTarget(accepted!, PATH)?.sha256).toBe(sha256)
  })
})
