import { describe, expect, it } from 'vitest'
import { EdgeError } from '../errors.ts'
import { acceptUpdate } from './accept.ts'
import { findTarget, initialState, targetPaths, timeFloorMs, trustedRoot } from './accepted-state.ts'
import type { AcceptedState } from './accepted-state.ts'
import { parseTimestamp } from './metadata.ts'
import {
  currentSnapshot,
  DAY_MS,
  metaOf,
  newKeys,
  republish,
  snapshotVersion,
  TestRepository,
} from './testing.ts'

const PATH = 'health/guide/manifest.json'
const refusal = (code: string) => expect.objectContaining({ code })

describe('attacks', () => {
  async function prepared() {
    const repository = await TestRepository.open()
    await repository.publish(PATH, 'one')
    const first = repository.saved()
    await repository.publish(PATH, 'two')
    const state = await repository.accept()
    return { repository, first, state }
  }

  it('rollback: an older release, put back whole', async () => {
    const { repository, first, state } = await prepared()
    repository.restore(first)
    await expect(repository.accept(state)).rejects.toEqual(refusal('TRUST_ROLLBACK'))
  })

  it('rollback: a new timestamp for an older snapshot', async () => {
    const { repository, state } = await prepared()
    const { version, meta } = repository.signed('timestamp.json')
    const older = snapshotVersion(repository) - 1
    const bytes = repository.storage.files.get(`metadata/${older}.snapshot.json`)!
    repository.forge('timestamp.json', {
      version: version + 1,
      meta: { ...meta, 'snapshot.json': metaOf(older, bytes) },
    })
    await expect(repository.accept(state)).rejects.toEqual(refusal('TRUST_ROLLBACK'))
  })

  it('rollback: a new snapshot that lists an older role, or no longer lists one', async () => {
    const { repository, state } = await prepared()
    const { version, meta } = currentSnapshot(repository)
    const older = repository.storage.files.get('metadata/1.health.json')!
    republish(repository, version + 1, { ...meta, 'health.json': metaOf(1, older) })
    await expect(repository.accept(state)).rejects.toEqual(refusal('TRUST_ROLLBACK'))

    const { 'health.json': _gone, ...rest } = meta
    republish(repository, version + 2, rest)
    await expect(repository.accept(state)).rejects.toEqual(refusal('TRUST_ROLLBACK'))
  })

  it('freeze: metadata that has expired, though nothing newer is known', async () => {
    const { repository, state } = await prepared()
    const later = new Date(repository.now.getTime() + 91 * DAY_MS)
    await expect(repository.accept(state, { now: later })).rejects.toEqual(refusal('TRUST_EXPIRED'))
    expect(findTarget(state, PATH)).toBeDefined() // authentic all the same
  })

  it('freeze: a clock that was set back does not bring expired metadata to life', async () => {
    const { repository } = await prepared()
    const frozen = repository.saved()
    repository.now = new Date(repository.now.getTime() + 100 * DAY_MS)
    await repository.publish(PATH, 'three')
    const state = await repository.accept()
    expect(timeFloorMs(state)).toBe(repository.now.getTime())

    repository.forge('timestamp.json', { version: 99, expires: '2026-05-01T00:00:00Z' })
    const clockBack = { now: new Date('2026-03-02T00:00:00Z') }
    await expect(repository.accept(state, clockBack)).rejects.toEqual(refusal('TRUST_EXPIRED'))
    expect(frozen.size).toBeGreaterThan(0)
  })

  it('a clock that jumped ahead blocks nothing for ever', async () => {
    const { repository, state } = await prepared()
    const ahead = new Date(repository.now.getTime() + 400 * DAY_MS)
    let kept: AcceptedState = state
    await repository
      .accept(state, { now: ahead, onAdvance: async next => void (kept = next) })
      .catch(() => undefined)
    await expect(repository.accept(kept)).resolves.toBeDefined()
  })

  it('mix and match: each file of its own release, and a snapshot with other bytes', async () => {
    const { repository, first, state } = await prepared()
    await repository.publish(PATH, 'three')
    const recent = snapshotVersion(repository)
    const genuine = repository.storage.files.get(`metadata/${recent}.snapshot.json`)!
    repository.storage.files.set(
      `metadata/${recent}.snapshot.json`,
      first.get(`metadata/${recent - 2}.snapshot.json`)!,
    )
    await expect(repository.accept(state)).rejects.toEqual(refusal('TRUST_MISMATCH'))

    repository.storage.files.set(`metadata/${recent}.snapshot.json`, genuine)
    repository.storage.files.set(
      'metadata/4.health.json',
      repository.storage.files.get('metadata/3.health.json')!,
    )
    const after = await repository.accept(state)
    expect(after.problems).toMatchObject([{ role: 'health', code: 'TRUST_MISMATCH' }])
    expect(findTarget(after, PATH)).toEqual(findTarget(state, PATH))
  })

  it('fast forward: recovered by new keys, and only by them', async () => {
    const { repository, state } = await prepared()
    const honest = repository.saved()
    const stolen = [...repository.byRole.get('timestamp')!]
    repository.forge('timestamp.json', { version: 1_000_000 })
    const attacked = await repository.accept(state)
    repository.restore(honest)
    await expect(repository.accept(attacked)).rejects.toEqual(refusal('TRUST_ROLLBACK'))

    await repository.rotate('timestamp')
    const sha256 = await repository.publish(PATH, 'recovered')
    const recovered = await repository.accept(attacked)
    expect(findTarget(recovered, PATH)?.sha256).toBe(sha256)

    repository.forge('timestamp.json', { version: 2_000_000 }, { by: stolen })
    await expect(repository.accept(recovered)).rejects.toEqual(refusal('TRUST_SIGNATURE'))
  })

  it('an honest rotation keeps the floors', async () => {
    const { repository, state } = await prepared()
    await repository.rotate('snapshot')
    const rotated = await repository.accept(state)
    expect(parseTimestamp(rotated.timestamp!).version).toBeGreaterThan(
      parseTimestamp(state.timestamp!).version,
    )
  })

  it('wrong threshold: too few root keys, the same key twice, the same key under two ids', async () => {
    const repository = await TestRepository.open({ rootKeys: 3, threshold: 2 })
    const state = await repository.accept()
    const [one] = repository.byRole.get('root')!
    const next = { version: 2 }
    repository.forge('1.root.json', next, { as: '2.root.json', by: [one!] })
    await expect(repository.accept(state)).rejects.toEqual(refusal('TRUST_SIGNATURE'))
    repository.forge('1.root.json', next, { as: '2.root.json', by: [one!, one!] })
    await expect(repository.accept(state)).rejects.toEqual(refusal('TRUST_INVALID'))

    const { keys, roles } = repository.signed('1.root.json')
    const alias = { ...one!, keyId: 'f'.repeat(64) }
    const aliased = {
      keys: { ...keys, [alias.keyId]: one!.json },
      roles: { ...roles, root: { keyids: [one!.keyId, alias.keyId], threshold: 2 } },
    }
    repository.forge('1.root.json', { ...aliased, version: 1 }, { as: 'alias.json', by: [one!, alias] })
    const trusted = repository.storage.files.get('metadata/alias.json')!
    expect(() => initialState(trusted)).toThrow(refusal('TRUST_SIGNATURE'))
  })

  it('a root that is not exactly the next one', async () => {
    const { repository, state } = await prepared()
    repository.forge('1.root.json', { version: 3 }, { as: '2.root.json' })
    await expect(repository.accept(state)).rejects.toEqual(refusal('TRUST_ROLLBACK'))
  })

  it('endless data, for each file', async () => {
    const { repository, state } = await prepared()
    await repository.publish(PATH, 'three')
    const snapshot = `${snapshotVersion(repository)}.snapshot.json`
    for (const endless of ['2.root.json', 'timestamp.json', snapshot]) {
      const update = repository.accept(state, {
        fetchMetadata: async (name, maxBytes) =>
          name === endless ? Buffer.alloc(maxBytes + 1, 0x20) : repository.fetchMetadata(name),
      })
      await expect(update).rejects.toEqual(refusal('TRUST_TOO_LONG'))
    }
  })

  it('endless roots', async () => {
    const { repository, state } = await prepared()
    for (let version = 0; version < 5; version++) await repository.rotate('root')
    const few = await repository.accept(state, { limits: { rootsMax: 3 } })
    expect(trustedRoot(few).version).toBe(4)
    expect(trustedRoot(await repository.accept(few)).version).toBe(6)
  })

  it('forged delegation: a publisher signs for paths of another one', async () => {
    const repository = await TestRepository.open({
      publishers: { edu: ['edu/*/manifest.json'], health: ['health/*/manifest.json'] },
    })
    await repository.publish('edu/maths/manifest.json', 'maths')
    const before = await repository.accept()
    const stolen = { length: 3, hashes: { sha256: 'a'.repeat(64) } }
    const bytes = repository.forge(
      '2.edu.json',
      { version: 3, targets: { [PATH]: stolen, 'health/x/../../etc': stolen } },
      { as: '3.edu.json' },
    )
    const { version, meta } = currentSnapshot(repository)
    republish(repository, version + 1, { ...meta, 'edu.json': metaOf(3, bytes) })
    const after = await repository.accept(before)
    expect(findTarget(after, PATH)).toBeUndefined()
    expect(targetPaths(after)).toEqual([])
  })

  it('a role that two others delegate to is believed by each for itself', async () => {
    const repository = await TestRepository.open({ publishers: { a: ['a/*'], b: ['b/*'] } })
    const [forA] = newKeys(1)
    const [forB] = newKeys(1)
    const shared = (key: typeof forA, paths: string[]) => ({
      delegations: {
        keys: { [key!.keyId]: key!.json },
        roles: [{ name: 'shared', keyids: [key!.keyId], threshold: 1, terminating: false, paths }],
      },
    })
    const a = repository.forge('1.a.json', { version: 2, ...shared(forA, ['a/*']) }, { as: '2.a.json' })
    const b = repository.forge('1.b.json', { version: 2, ...shared(forB, ['b/*']) }, { as: '2.b.json' })
    const file = { length: 1, hashes: { sha256: 'b'.repeat(64) } }
    const role = repository.forge(
      '1.a.json',
      { targets: { 'a/x': file, 'b/x': file } },
      { as: '1.shared.json', by: [forA!] },
    )
    const { version, meta } = currentSnapshot(repository)
    republish(repository, version + 1, {
      ...meta,
      'a.json': metaOf(2, a),
      'b.json': metaOf(2, b),
      'shared.json': metaOf(1, role),
    })
    const state = await repository.accept()
    expect(findTarget(state, 'a/x')?.role).toBe('shared')
    expect(findTarget(state, 'b/x')).toBeUndefined()
  })

  it('random damage to any file never changes what is found, unless it is refused', async () => {
    const repository = await TestRepository.open()
    const sha256 = await repository.publish(PATH, 'one')
    const genuine = repository.saved()
    let seed = 7
    const random = (below: number) => (seed = (seed * 48_271) % 2_147_483_647) % below
    for (const [path, bytes] of genuine) {
      if (!path.startsWith('metadata/') || path.endsWith('1.root.json')) continue
      for (let round = 0; round < 12; round++) {
        const damaged = Buffer.from(bytes)
        damaged[random(damaged.length)]! ^= 1 << random(8)
        repository.restore(genuine)
        repository.storage.files.set(path, damaged)
        const state = await repository.accept(initialState(repository.root)).catch(error => {
          expect(error).toBeInstanceOf(EdgeError)
        })
        if (state) expect([sha256, undefined]).toContain(findTarget(state, PATH)?.sha256)
      }
    }
  })

  it('names of roles that lead out of a folder', async () => {
    const repository = await TestRepository.open({ publishers: { health: ['health/*/manifest.json'] } })
    const { delegations } = repository.signed('2.targets.json')
    const roles = delegations.roles.map(role => ({ ...role, name: '../../etc/passwd' }))
    const bytes = repository.forge(
      '2.targets.json',
      { version: 3, delegations: { ...delegations, roles } },
      { as: '3.targets.json' },
    )
    const { version, meta } = currentSnapshot(repository)
    republish(repository, version + 1, {
      ...meta,
      'targets.json': metaOf(3, bytes),
      '../../etc/passwd.json': { version: 1 },
    })
    const asked: string[] = []
    const state = await acceptUpdate({
      state: initialState(repository.root),
      now: repository.now,
      fetchMetadata: async name => {
        asked.push(name)
        return repository.fetchMetadata(name)
      },
    })
    expect(state.problems).toMatchObject([{ code: 'TRUST_INVALID' }])
    expect(asked.filter(name => name.includes('passwd'))).toEqual([])
  })
})
