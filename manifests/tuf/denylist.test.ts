import { describe, expect, it } from 'vitest'
import { readDenylist, writeDenylist } from './ceremony.ts'
import { DENYLIST_TARGET, encodeDenylist, parseDenylist } from './denylist.ts'
import { findTarget } from './accepted-state.ts'
import { loadRepository } from './repository.ts'
import { TestRepository } from './testing.ts'

const DIGEST = 'a'.repeat(64)
const invalid = expect.objectContaining({ code: expect.stringMatching(/_INVALID$/) })
const listOf = (...entries: object[]) =>
  Buffer.from(JSON.stringify({ format: 'towerlight-denylist-v1', entries }))

describe('the denylist', () => {
  it('denies by content, by dataset, and by path', () => {
    const list = parseDenylist(
      encodeDenylist([
        { sha256: DIGEST, reason: 'wrong dosage' },
        { dataset: 'edu/old' },
        { dataset: 'edu/new', path: 'a b/ü.html' },
      ]),
    )
    expect(list.deniesDigest(DIGEST)).toBe(true)
    expect(list.denies('health/any', 'x', DIGEST)).toBe(true)
    expect(list.denies('edu/old', 'anything', 'b'.repeat(64))).toBe(true)
    expect(list.denies('edu/new', 'a b/ü.html', 'b'.repeat(64))).toBe(true)
    expect(list.denies('edu/new', 'else', 'b'.repeat(64))).toBe(false)
    expect(list.deniesDigest('b'.repeat(64))).toBe(false)
  })

  it.each([
    ['another format', Buffer.from('{"format":"towerlight-denylist-v2","entries":[]}')],
    ['an entry that names nothing', listOf({})],
    ['both at once', listOf({ sha256: DIGEST, dataset: 'a/b' })],
    ['a path without its dataset', listOf({ sha256: DIGEST, path: 'x' })],
    ['no digest', listOf({ sha256: 'abc' })],
    ['no name for a dataset', listOf({ dataset: 'one' })],
    ['a path that leads out', listOf({ dataset: 'a/b', path: '../x' })],
  ])('%s is refused, so that no denial gets lost', (_what, bytes) => {
    expect(() => parseDenylist(bytes)).toThrow(invalid)
  })

  it('is a target of the top-level role', async () => {
    const repository = await TestRepository.open()
    await writeDenylist(repository.context, await loadRepository(repository.storage), [{ sha256: DIGEST }])
    const state = await repository.accept()
    const found = findTarget(state, DENYLIST_TARGET)
    expect(found?.role).toBe('targets')
    expect(repository.storage.files.has(`targets/${found?.sha256}.denylist.json`)).toBe(true)
    expect(await readDenylist(repository.storage, await loadRepository(repository.storage))).toMatchObject([
      { sha256: DIGEST },
    ])
  })

  it('cannot be spoken for by a publisher', async () => {
    const repository = await TestRepository.open({ publishers: { all: ['*', '*/*/manifest.json'] } })
    await writeDenylist(repository.context, await loadRepository(repository.storage), [{ sha256: DIGEST }])
    await expect(repository.publish(DENYLIST_TARGET, '{}', 'all')).rejects.toMatchObject({
      code: 'KEY_NOT_AUTHORISED',
    })
  })
})
