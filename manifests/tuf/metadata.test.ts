import { describe, expect, it } from 'vitest'
import { canonicalBytes, parseJson } from './json.ts'
import { parseRoot, parseSnapshot, parseTargets, parseTimestamp } from './metadata.ts'

const head = { spec_version: '1.0.31', version: 1, expires: '2027-01-01T00:00:00Z' }
const file = (signed: object, signatures: object[] = []) =>
  Buffer.from(JSON.stringify({ signatures, signed }))
const targets = (more: object) => file({ _type: 'targets', ...head, targets: {}, ...more })
const invalid = expect.objectContaining({ code: 'TRUST_INVALID' })
const keyed = { keyids: ['k'], threshold: 1 }

describe('shape', () => {
  it.each([
    ['no version', targets({ version: undefined })],
    ['version 0', targets({ version: 0 })],
    ['a fraction', targets({ version: 1.5 })],
    [
      'a version that no number holds',
      Buffer.from(targets({}).toString().replace('"version":1', '"version":9007199254740993')),
    ],
    ['another time zone', targets({ expires: '2027-01-01T00:00:00+01:00' })],
    ['no such day', targets({ expires: '2027-13-01T00:00:00Z' })],
    ['a newer format', targets({ spec_version: '2.0.0' })],
    ['another type', targets({ _type: 'snapshot' })],
    ['a target without hashes', targets({ targets: { a: { length: 1, hashes: {} } } })],
    ['a negative length', targets({ targets: { a: { length: -1, hashes: { sha256: 'a' } } } })],
    [
      'two signatures of one key',
      file({ _type: 'targets', ...head, targets: {} }, [
        { keyid: 'k', sig: 'aa' },
        { keyid: 'k', sig: 'bb' },
      ]),
    ],
    [
      'a delegation to root',
      targets({ delegations: { keys: {}, roles: [{ name: 'root', ...keyed, paths: [] }] } }),
    ],
    [
      'a delegation twice',
      targets({
        delegations: {
          keys: {},
          roles: [
            { name: 'a', ...keyed, paths: [] },
            { name: 'a', ...keyed, paths: [] },
          ],
        },
      }),
    ],
    [
      'paths and prefixes',
      targets({
        delegations: { keys: {}, roles: [{ name: 'a', ...keyed, paths: [], path_hash_prefixes: [] }] },
      }),
    ],
    ['neither of them', targets({ delegations: { keys: {}, roles: [{ name: 'a', ...keyed }] } })],
    [
      'threshold 0',
      targets({ delegations: { keys: {}, roles: [{ name: 'a', keyids: ['k'], threshold: 0, paths: [] }] } }),
    ],
    [
      'a key id twice',
      targets({
        delegations: { keys: {}, roles: [{ name: 'a', keyids: ['k', 'k'], threshold: 1, paths: [] }] },
      }),
    ],
    [
      '2^33 bins',
      targets({ delegations: { keys: {}, succinct_roles: { ...keyed, bit_length: 33, name_prefix: 'b' } } }),
    ],
    ['not JSON', Buffer.from('{')],
    ['not UTF-8', Buffer.from([0x22, 0xff, 0x22])],
    ['a byte order mark', Buffer.concat([Buffer.from([0xef, 0xbb, 0xbf]), targets({})])],
    ['nothing', Buffer.alloc(0)],
    ['null', Buffer.from('null')],
  ])('%s is refused', (_what, bytes) => {
    expect(() => parseTargets(bytes, 'targets')).toThrow(invalid)
  })

  it('the other roles are checked as well', () => {
    expect(() => parseRoot(file({ _type: 'root', ...head, keys: {}, roles: { root: keyed } }))).toThrow(
      invalid,
    )
    expect(() => parseTimestamp(file({ _type: 'timestamp', ...head, meta: {} }))).toThrow(invalid)
    expect(() => parseSnapshot(file({ _type: 'snapshot', ...head, meta: {} }))).toThrow(invalid)
    expect(() =>
      parseSnapshot(
        file({ _type: 'snapshot', ...head, meta: { 'targets.json': { version: 1 }, odd: { version: 1 } } }),
      ),
    ).toThrow(invalid)
  })

  it('fields that we do not know stay in what signatures cover', () => {
    const { canonical } = parseTargets(targets({ 'x-else': { b: 1, a: ['"', '\\', '\n', 'ü'] } }), 'targets')
    expect(canonical.toString()).toContain('"x-else":{"a":["\\"","\\\\","\n","ü"],"b":1}')
  })
})

describe('cost', () => {
  it('is linear: forty thousand targets in well under a second', () => {
    const listed = Object.fromEntries(
      Array.from({ length: 40_000 }, (_, at) => [
        `d/${at}/manifest.json`,
        { length: 1, hashes: { sha256: 'a'.repeat(64) } },
      ]),
    )
    const bytes = targets({ targets: listed })
    const begun = process.cpuUsage()
    expect(parseTargets(bytes, 'targets').targets.size).toBe(40_000)
    expect(process.cpuUsage(begun).user / 1000).toBeLessThan(2000)
  })

  it('does not grow with nesting, which is bounded', () => {
    for (const depth of [33, 100_000]) {
      expect(() => parseJson(Buffer.from('['.repeat(depth) + ']'.repeat(depth)), 'x')).toThrow(invalid)
    }
    expect(parseJson(Buffer.from(`${'['.repeat(32)}"[[\\"["${']'.repeat(32)}`), 'x')).toBeDefined()
  })

  it('a value without a canonical form is refused', () => {
    expect(() => canonicalBytes({ a: 0.5 })).toThrow(invalid)
  })
})
