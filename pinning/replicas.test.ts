import { expect, it } from 'vitest'
import { rawCidOf } from '../manifests/cid.ts'
import { sha256Of } from '../manifests/digest.ts'
import { isKeptOn, parseReplication, type ReplicaHost } from './replicas.ts'

const roots = Array.from({ length: 600 }, (_, n) => rawCidOf(sha256Of(`item ${n}`)))
const names = ['kubo@a:1', 'kubo@b:1', 'kubo@c:1', 'kubo@d:1']

type States = Readonly<Record<string, ReplicaHost['state']>>

function hostsWith(states: States, pinned: (name: string) => Iterable<(typeof roots)[number]> = () => []) {
  return names.map(name => ({ name, state: states[name] ?? 'there', pinned: new Set(pinned(name)) }))
}

function kept(hosts: readonly ReplicaHost[], replication: { min: number; max: number }) {
  return new Map(
    names.map(name => [name, roots.filter(root => isKeptOn(name, root, hosts, replication))] as const),
  )
}

function copiesOf(shares: ReturnType<typeof kept>): number[] {
  return roots.map(root => [...shares.values()].filter(share => share.includes(root)).length)
}

it('every item is kept on as many hosts as wished, in even shares', () => {
  const shares = kept(hostsWith({}), { min: 1, max: 2 })
  expect(new Set(copiesOf(shares))).toEqual(new Set([2]))
  for (const share of shares.values()) expect(Math.abs(share.length - 300)).toBeLessThan(75)
})

it('a host that is away is stood in for where fewer than the least are left, and nowhere else', () => {
  const before = kept(hostsWith({}), { min: 2, max: 2 })
  const after = kept(hostsWith({ 'kubo@b:1': 'away' }), { min: 2, max: 2 })
  for (const root of roots) {
    const there = names.filter(name => name !== 'kubo@b:1' && after.get(name)!.includes(root))
    expect(there).toHaveLength(2)
    for (const name of names) if (before.get(name)!.includes(root)) expect(after.get(name)).toContain(root)
  }
  const enough = kept(hostsWith({ 'kubo@b:1': 'away' }), { min: 1, max: 2 })
  expect(enough).toEqual(kept(hostsWith({}), { min: 1, max: 2 }))
})

it('who stood in lets go when the others have it, not before', () => {
  const replication = { min: 1, max: 1 }
  const [root] = roots as [(typeof roots)[number]]
  const owner = names.find(name => isKeptOn(name, root, hostsWith({}), replication))!
  const away = hostsWith({ [owner]: 'away' })
  const stand = names.find(name => name !== owner && isKeptOn(name, root, away, replication))!
  const back = hostsWith({}, name => (name === stand ? [root] : []))
  expect(isKeptOn(stand, root, back, replication)).toBe(true)
  const both = hostsWith({}, name => (name === stand || name === owner ? [root] : []))
  expect(isKeptOn(stand, root, both, replication)).toBe(false)
  expect(isKeptOn(owner, root, both, replication)).toBe(true)
})

it('a full host keeps what it has and takes nothing more', () => {
  const replication = { min: 1, max: 1 }
  const mine = kept(hostsWith({}), replication).get('kubo@c:1')!
  const half = mine.slice(0, mine.length / 2)
  const hosts = hostsWith({ 'kubo@c:1': 'full' }, name => (name === 'kubo@c:1' ? half : []))
  const others = names.filter(name => name !== 'kubo@c:1')
  for (const root of mine) {
    expect(others.filter(name => isKeptOn(name, root, hosts, replication))).toHaveLength(
      half.includes(root) ? 0 : 1,
    )
  }
})

it('says which wishes cannot be', () => {
  expect(parseReplication(undefined, 3)).toEqual({ min: 3, max: 3 })
  expect(parseReplication('1-2', 3)).toEqual({ min: 1, max: 2 })
  expect(parseReplication('2', 2)).toEqual({ min: 2, max: 2 })
  for (const [text, hosts] of [
    ['3', 2],
    ['2-1', 4],
  ] as const)
    expect(() => parseReplication(text, hosts)).toThrow(expect.objectContaining({ code: 'CONFIG_INVALID' }))
})
