import { describe, expect, it } from 'vitest'
import { sha256Of } from '../digest.ts'
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

  it('fetches the metadata of many publishers several at a time, and keeps what it has when cut off', async () => {
    const names = Array.from({ length: 40 }, (_, at) => `p${at}`)
    const publishers = Object.fromEntries(names.map(name => [name, [`${name}/*/manifest.json`]]))
    const repository = await TestRepository.open({ publishers })
    let atOnce = 0
    let most = 0
    let left = 30
    let kept = initialState(repository.root)
    const slowly = async (name: string) => {
      if (left-- === 0) throw new EdgeError('WINDOW_CLOSED', 'now')
      most = Math.max(most, ++atOnce)
      await new Promise(setImmediate)
      atOnce--
      return repository.fetchMetadata(name)
    }
    const onAdvance = async (state: typeof kept) => void (kept = state)
    await expect(repository.accept(kept, { fetchMetadata: slowly, onAdvance })).rejects.toMatchObject({
      code: 'WINDOW_CLOSED',
    })
    expect(most).toBe(8)
    expect(kept.served).toBeUndefined()
    expect(kept.roles.size).toBeGreaterThan(20)

    const asked: string[] = []
    const state = await repository.accept(kept, {
      fetchMetadata: async name => {
        asked.push(name)
        return repository.fetchMetadata(name)
      },
    })
    expect(state.served?.roles.size).toBe(41)
    expect(asked.length).toBe(2 + 41 - kept.roles.size)
  })

  it('walks hash bins that exist, however many are named', async () => {
    const repository = await TestRepository.open()
    const [key] = newKeys(1)
    const path = 'any/thing'
    const head = (bits: number) =>
      (Number.parseInt(sha256Of(path).slice(0, 8), 16) >>> (32 - bits)).toString(16)
    const bins = (bits: number) => ({
      keys: { [key!.keyId]: key!.json },
      succinct_roles: { keyids: [key!.keyId], threshold: 1, bit_length: bits, name_prefix: 'bin' },
    })
    const targets = { [path]: { length: 1, hashes: { sha256: 'a'.repeat(64) } } }
    for (const bits of [4, 32]) {
      const role = `bin-${head(bits).padStart(bits / 4, '0')}`
      const version = repository.signed('2.targets.json').version + bits
      const bin = repository.forge('1.health.json', { targets }, { as: `1.${role}.json`, by: [key!] })
      const top = repository.forge(
        '2.targets.json',
        { version, delegations: bins(bits) },
        { as: `${version}.targets.json` },
      )
      const { version: last, meta } = currentSnapshot(repository)
      republish(repository, last + 1, {
        ...meta,
        'targets.json': metaOf(version, top),
        [`${role}.json`]: metaOf(1, bin),
      })
      expect(findTarget(await repository.accept(), path)?.role).toBe(role)
    }
  })
})
