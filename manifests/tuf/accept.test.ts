import { describe, expect, it } from 'vitest'
import { EdgeError } from '../errors.ts'
import {
  expiresAtMs,
  findTarget,
  initialState,
  servedDigest,
  targetPaths,
  trustedRoot,
} from './accepted-state.ts'
import { currentSnapshot, DAY_MS, metaOf, newKeys, republish, TestRepository } from './testing.ts'

const PATH = 'health/guide/manifest.json'

describe('accepting metadata', () => {
  it('finds what a publisher signed, and nothing else', async () => {
    const repository = await TestRepository.open()
    const sha256 = await repository.publish(PATH, 'one')
    const state = await repository.accept()
    expect(findTarget(state, PATH)).toMatchObject({ sha256, lengthBytes: 3, role: 'health' })
    expect(findTarget(state, 'health/other/manifest.json')).toBeUndefined()
    expect(targetPaths(state)).toEqual([PATH])
    expect(expiresAtMs(state)).toBe(repository.now.getTime() + 90 * DAY_MS)
    expect(state.problems).toEqual([])
  })

  it('asks for nothing but the next root and the timestamp when nothing is new', async () => {
    const repository = await TestRepository.open()
    await repository.publish(PATH, 'one')
    const state = await repository.accept()
    const asked: string[] = []
    const again = await repository.accept(state, {
      fetchMetadata: async name => {
        asked.push(name)
        return repository.fetchMetadata(name)
      },
    })
    expect(asked).toEqual(['2.root.json', 'timestamp.json'])
    expect(servedDigest(again)).toBe(servedDigest(state))
  })

  it('follows twenty rotations of a two-of-three root that it missed', async () => {
    const repository = await TestRepository.open({ rootKeys: 3, threshold: 2 })
    const state = await repository.accept()
    for (let version = 0; version < 20; version++) await repository.rotate('root')
    const sha256 = await repository.publish(PATH, 'after')
    for (const from of [state, initialState(repository.root)]) {
      const after = await repository.accept(from)
      expect(trustedRoot(after).version).toBe(21)
      expect(after.roots).toHaveLength(21)
      expect(findTarget(after, PATH)?.sha256).toBe(sha256)
    }
  })

  it('keeps what is served until all of an update is here, wherever it breaks off', async () => {
    const repository = await TestRepository.open()
    const old = await repository.publish(PATH, 'old')
    const before = await repository.accept()
    await repository.rotate('root')
    await repository.rotate('targets')
    await repository.rotate('timestamp')
    const recent = await repository.publish(PATH, 'new')

    let broken = 0
    for (let step = 0; ; step++) {
      let kept = before
      let left = step
      const update = repository.accept(before, {
        onAdvance: async state => void (kept = state),
        fetchMetadata: async name => {
          if (left-- === 0) throw new EdgeError('WINDOW_CLOSED', 'now')
          return repository.fetchMetadata(name)
        },
      })
      if ((await update.catch(() => undefined)) !== undefined) break
      broken++
      expect(findTarget(kept, PATH)?.sha256).toBe(old)
      const after = await repository.accept(kept)
      expect(findTarget(after, PATH)?.sha256).toBe(recent)
    }
    expect(broken).toBeGreaterThan(6)
  })

  it('goes on with the others when one publisher has signed badly', async () => {
    const repository = await TestRepository.open({
      publishers: { health: ['health/*/manifest.json'], edu: ['edu/*/manifest.json'] },
    })
    const healthy = await repository.publish(PATH, 'one')
    await repository.publish('edu/maths/manifest.json', 'one')
    const before = await repository.accept()
    const recent = await repository.publish(PATH, 'two')
    const bad = repository.forge('2.edu.json', {}, { by: newKeys(1) })
    const { version, meta } = currentSnapshot(repository)
    republish(repository, version + 1, { ...meta, 'edu.json': metaOf(2, bad) })

    const state = await repository.accept(before)
    expect(state.problems).toMatchObject([{ role: 'edu', code: 'TRUST_SIGNATURE' }])
    expect(findTarget(state, PATH)?.sha256).toBe(recent)
    expect(recent).not.toBe(healthy)
    expect(findTarget(state, 'edu/maths/manifest.json')).toBeDefined()
  })

  it('stops serving a publisher who was revoked', async () => {
    const { removePublisher } = await import('./ceremony.ts')
    const { loadRepository } = await import('./repository.ts')
    const repository = await TestRepository.open()
    await repository.publish(PATH, 'one')
    const before = await repository.accept()
    await removePublisher(repository.context, await loadRepository(repository.storage), 'health')
    const after = await repository.accept(before)
    expect(findTarget(before, PATH)).toBeDefined()
    expect(findTarget(after, PATH)).toBeUndefined()
  })
})
