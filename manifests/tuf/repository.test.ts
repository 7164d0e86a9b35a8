import { describe, expect, it } from 'vitest'
import { findTarget, initialState } from './accepted-state.ts'
import { createRepository, removePublisher, renew, rotateRole, setPublisher } from './ceremony.ts'
import { SIGNED_AT_FIELD } from './metadata.ts'
import { releaseSigner } from './release-signer.ts'
import { expiryDaysOf, loadRepository } from './repository.ts'
import { DAY_MS, memoryStorage, newKeys, snapshotVersion, TestRepository } from './testing.ts'

const PATH = 'health/guide/manifest.json'
const code = (code: string) => ({ code })

describe('a release', () => {
  it('writes role, snapshot and timestamp, in this order, and nothing when nothing changed', async () => {
    const repository = await TestRepository.open()
    const written: string[] = []
    repository.storage.beforeWrite = path => void written.push(path.replace('metadata/', ''))
    await repository.publish(PATH, 'one')
    expect(written.slice(1)).toEqual(['2.health.json', '3.snapshot.json', 'timestamp.json'])

    const before = repository.saved()
    await repository.publish(PATH, 'one')
    expect(repository.saved()).toEqual(before)
  })

  it('that breaks off at any write leaves the one before, and the next goes through', async () => {
    for (let at = 0; at < 3; at++) {
      const repository = await TestRepository.open()
      const old = await repository.publish(PATH, 'old')
      let left = at + 1
      repository.storage.beforeWrite = () => {
        if (left-- === 0) throw new Error('power cut')
      }
      await expect(repository.publish(PATH, 'lost')).rejects.toThrow('power cut')
      repository.storage.beforeWrite = () => undefined
      expect(findTarget(await repository.accept(), PATH)?.sha256).toBe(old)
      const after = await repository.publish(PATH, 'new')
      expect(findTarget(await repository.accept(), PATH)?.sha256).toBe(after)
    }
  })

  it('is refused when somebody else published in between', async () => {
    const repository = await TestRepository.open()
    const { storage } = repository
    let between = true
    storage.beforeWrite = path => {
      if (!between || !path.endsWith('snapshot.json')) return
      between = false
      repository.forge('timestamp.json', { version: 50 })
    }
    await expect(repository.publish(PATH, 'two')).rejects.toMatchObject(code('PUBLISH_CONFLICT'))
    expect(repository.signed('timestamp.json')).toMatchObject({ version: 50 })
  })

  it('tells what is current', async () => {
    const repository = await TestRepository.open()
    const signer = releaseSigner({ keys: repository.keys })
    expect(await signer.current(PATH, repository.storage)).toBeUndefined()
    const sha256 = await repository.publish(PATH, 'one')
    expect(await signer.current(PATH, repository.storage)).toEqual({ sha256, sizeBytes: 3 })
  })

  it('needs keys that may sign for the path, known before anything is written', async () => {
    const repository = await TestRepository.open()
    const before = repository.saved()
    const change = { targetPath: PATH, bytes: Buffer.from('x') }
    const signWith = (keys: typeof repository.keys, targetPath = PATH) =>
      releaseSigner({ keys }).sign({ ...change, targetPath }, repository.storage, repository.now)
    const { byRole } = repository
    const online = [...byRole.get('snapshot')!, ...byRole.get('timestamp')!]
    await expect(signWith([])).rejects.toMatchObject(code('KEY_ABSENT'))
    await expect(signWith(newKeys(1))).rejects.toMatchObject(code('KEY_NOT_AUTHORISED'))
    await expect(signWith(online)).rejects.toMatchObject(code('KEY_NOT_AUTHORISED'))
    await expect(signWith(byRole.get('health')!)).rejects.toMatchObject(code('KEY_ABSENT'))
    const healthy = [...online, ...byRole.get('health')!]
    await expect(signWith(healthy, 'edu/maths/manifest.json')).rejects.toMatchObject(
      code('KEY_NOT_AUTHORISED'),
    )
    expect(repository.saved()).toEqual(before)
    await expect(signWith(healthy)).resolves.toBeUndefined()
  })

  it('removes what is long superseded, never a root', async () => {
    const repository = await TestRepository.open()
    for (let round = 0; round < 12; round++) await repository.rotate('root')
    for (let round = 0; round < 12; round++) await repository.publish(PATH, `release ${round}`)
    const names = [...repository.storage.files.keys()].filter(path => path.startsWith('metadata/'))
    expect(names.filter(name => name.endsWith('.root.json'))).toHaveLength(13)
    expect(names.filter(name => name.endsWith('.snapshot.json'))).toHaveLength(9)
    expect(names.filter(name => name.endsWith('.health.json'))).toHaveLength(9)
  })

  it('by a clock that went back does not look expired to anybody', async () => {
    const repository = await TestRepository.open()
    await repository.publish(PATH, 'one')
    const state = await repository.accept()
    repository.now = new Date(repository.now.getTime() - 300 * DAY_MS)
    const sha256 = await repository.publish(PATH, 'two')
    expect(findTarget(await repository.accept(state), PATH)?.sha256).toBe(sha256)
  })
})

describe('a repository', () => {
  it('cannot be begun twice, nor on top of one whose timestamp is lost', async () => {
    const repository = await TestRepository.open()
    await repository.publish(PATH, 'one')
    const setup = { keys: newKeys(1), threshold: 1 }
    const begin = () =>
      createRepository(repository.context, { root: setup, targets: setup, snapshot: setup, timestamp: setup })
    await expect(begin()).rejects.toMatchObject(code('PUBLISH_CONFLICT'))
    repository.storage.files.delete('metadata/timestamp.json')
    await expect(begin()).rejects.toMatchObject(code('PUBLISH_CONFLICT'))
    await expect(loadRepository(repository.storage)).rejects.toMatchObject(code('TRUST_ROOT_ABSENT'))
  })

  it('begun and cut off at any write can be begun again', async () => {
    for (let at = 0; at < 4; at++) {
      const storage = memoryStorage()
      const keys = newKeys(4)
      const setup = (key: number) => ({ keys: [keys[key]!], threshold: 1 })
      const begin = () =>
        createRepository(
          { storage, keys, now: new Date() },
          { root: setup(0), targets: setup(1), snapshot: setup(2), timestamp: setup(3) },
        )
      let left = at
      storage.beforeWrite = () => {
        if (left-- === 0) throw new Error('power cut')
      }
      await expect(begin()).rejects.toThrow('power cut')
      storage.beforeWrite = () => undefined
      await begin()
      expect((await loadRepository(storage)).root.version).toBe(1)
    }
  })

  it('is refused when it cannot prove itself from a pinned root', async () => {
    const repository = await TestRepository.open()
    const other = await TestRepository.open()
    await expect(loadRepository(repository.storage, other.root)).rejects.toMatchObject(
      code('TRUST_SIGNATURE'),
    )
  })

  it('has the lifetimes that its root tells', async () => {
    const repository = await TestRepository.open()
    expect(expiryDaysOf({ 'x-towerlight-expiry-days': { timestamp: 7 } })).toMatchObject({
      timestamp: 7,
      snapshot: 90,
    })
    expect(repository.signed('1.root.json')).toMatchObject({ [SIGNED_AT_FIELD]: '2026-03-01T12:00:00Z' })
  })
})

describe('keys', () => {
  const ROLES = ['root', 'timestamp', 'snapshot', 'targets'] as const

  it.each(ROLES)(
    'rotating %s leaves no moment without a valid chain, and can break off anywhere',
    async role => {
      for (let at = 0; at < 5; at++) {
        const repository = await TestRepository.open()
        const sha256 = await repository.publish(PATH, 'one')
        const state = await repository.accept()
        let left = at
        const moments: ReadonlyMap<string, Uint8Array>[] = []
        repository.storage.beforeWrite = () => {
          if (left-- === 0) throw new Error('power cut')
          moments.push(repository.saved())
        }
        const finished = await repository.rotate(role).then(
          () => true,
          () => false,
        )
        repository.storage.beforeWrite = () => undefined
        const end = repository.saved()
        for (const moment of [...moments, end]) {
          repository.restore(moment)
          for (const from of [state, initialState(repository.root)]) {
            expect(findTarget(await repository.accept(from), PATH)?.sha256).toBe(sha256)
          }
        }
        repository.restore(end)
        if (finished) break
        await repository.rotate(role)
        expect(findTarget(await repository.accept(state), PATH)?.sha256).toBe(sha256)
        expect(at).toBeLessThan(4)
      }
    },
  )

  it.each(ROLES.slice(1))(
    '%s whose key was lost is rotated too; a cut in between is mended by renew',
    async role => {
      for (let at = 0; at < 4; at++) {
        const repository = await TestRepository.open()
        const sha256 = await repository.publish(PATH, 'one')
        const lost = new Set(repository.byRole.get(role))
        const remaining = () => ({
          ...repository.context,
          keys: repository.keys.filter(key => !lost.has(key)),
        })
        const base = await loadRepository(repository.storage)
        const keys = repository.newKeys(role, 1)
        let left = at
        repository.storage.beforeWrite = () => {
          if (left-- === 0) throw new Error('power cut')
        }
        const finished = await rotateRole(remaining(), base, role, { keys, threshold: 1 }).then(
          () => true,
          () => false,
        )
        repository.storage.beforeWrite = () => undefined
        if (!finished) {
          const again = await loadRepository(repository.storage)
          if (again.root.version === 1) await rotateRole(remaining(), again, role, { keys, threshold: 1 })
          else await renew(remaining(), again)
        }
        const state = await repository.accept()
        expect(findTarget(state, PATH)?.sha256).toBe(sha256)
      }
    },
  )

  it('a root needs its old threshold to change', async () => {
    const repository = await TestRepository.open({ rootKeys: 3, threshold: 2 })
    const base = await loadRepository(repository.storage)
    const keys = newKeys(3)
    const one = [
      ...repository.byRole.get('root')!.slice(0, 1),
      ...repository.keys.filter(key => !repository.byRole.get('root')!.includes(key)),
      ...keys,
    ]
    const before = repository.saved()
    await expect(
      rotateRole({ ...repository.context, keys: one }, base, 'root', { keys, threshold: 2 }),
    ).rejects.toMatchObject(code('KEY_ABSENT'))
    expect(repository.saved()).toEqual(before)
  })

  it('publishers get new keys, new paths, and go', async () => {
    const repository = await TestRepository.open()
    const sha256 = await repository.publish(PATH, 'one')
    const paths = ['health/*/manifest.json', 'clinic/*/manifest.json']
    await repository.addPublisher('health', paths)
    expect(findTarget(await repository.accept(), PATH)?.sha256).toBe(sha256)
    await repository.publish('clinic/x/manifest.json', 'two')
    await removePublisher(repository.context, await loadRepository(repository.storage), 'health')
    expect(findTarget(await repository.accept(), PATH)).toBeUndefined()
    await expect(
      removePublisher(repository.context, await loadRepository(repository.storage), 'health'),
    ).rejects.toMatchObject(code('REQUEST_INVALID'))
  })

  it.each(['Health', 'targets', '../x', '1st', ''])('%j is no name for a publisher', async name => {
    const repository = await TestRepository.open()
    await expect(repository.addPublisher(name, ['a/*'])).rejects.toMatchObject(code('REQUEST_INVALID'))
  })

  it.each(['/health/*', 'health/**[a]', '{a,b}/*', '!x', 'a//b', '../x', ''])(
    '%j is no pattern',
    async pattern => {
      const repository = await TestRepository.open()
      await expect(repository.addPublisher('new', [pattern])).rejects.toMatchObject(code('REQUEST_INVALID'))
    },
  )

  it('a publisher whose key is elsewhere can be let in by its public key', async () => {
    const repository = await TestRepository.open()
    const [theirs] = newKeys(1)
    const base = await loadRepository(repository.storage)
    await setPublisher(repository.context, base, {
      name: 'edu',
      keys: [theirs!],
      threshold: 1,
      paths: ['edu/*/manifest.json'],
    })
    expect(repository.storage.files.has('metadata/1.edu.json')).toBe(false)
    repository.keys.push(theirs!)
    const sha256 = await repository.publish('edu/maths/manifest.json', 'one')
    expect(findTarget(await repository.accept(), 'edu/maths/manifest.json')?.sha256).toBe(sha256)
  })

  it('renewal signs what is past a third of its time, and says what it cannot', async () => {
    const repository = await TestRepository.open()
    await repository.publish(PATH, 'one')
    const online = repository.keys.filter(key =>
      ['snapshot', 'timestamp', 'health'].some(role => repository.byRole.get(role)?.includes(key)),
    )
    const renewWith = async (keys: typeof online) =>
      renew({ ...repository.context, keys }, await loadRepository(repository.storage))
    expect(await renewWith(online)).toEqual({ renewed: ['snapshot', 'timestamp'], lacking: [] })
    repository.now = new Date(repository.now.getTime() + 200 * DAY_MS)
    await expect(repository.accept()).rejects.toMatchObject(code('TRUST_EXPIRED'))
    const report = await renewWith(online)
    expect(report).toEqual({ renewed: ['health', 'snapshot', 'timestamp'], lacking: ['targets', 'root'] })
    const versions = snapshotVersion(repository)
    expect((await renewWith(repository.keys)).renewed).toEqual(['targets', 'root', 'snapshot', 'timestamp'])
    expect(snapshotVersion(repository)).toBe(versions + 1)
    repository.now = new Date(repository.now.getTime() + 80 * DAY_MS)
    await expect(repository.accept()).resolves.toBeDefined()
  })
})
