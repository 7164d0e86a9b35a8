import * as fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { sha256Of } from '../digest.ts'
import { delegationNamed, delegationsFor, isDelegatedTo, matchesPattern } from './delegation.ts'
import type { DelegatedRole, Delegations } from './metadata.ts'

const role = (scope: Partial<DelegatedRole>): DelegatedRole => ({
  name: 'role',
  keyIds: new Set(['k']),
  threshold: 1,
  terminating: false,
  paths: undefined,
  pathHashPrefixes: undefined,
  ...scope,
})

describe('path patterns', () => {
  it.each([
    ['targets/foo.tgz', 'targets/*.tgz', true],
    ['targets/foo.txt', 'targets/*.tgz', false],
    ['foo-version-2.tgz', 'foo-version-?.tgz', true],
    ['foo-version-alpha.tgz', 'foo-version-?.tgz', false],
    ['targets/foo.tgz', '*.tgz', false],
    ['README.MD', '*.md', false],
    ['health/a/b/manifest.json', 'health/*/manifest.json', false],
    ['health//manifest.json', 'health/*/manifest.json', true],
    ['a[1]', 'a[1]', true],
    ['a1', 'a[1]', false],
  ])('%s in %s: %s', (path, pattern, expected) => {
    expect(matchesPattern(path, pattern)).toBe(expected)
  })

  it('match as the same pattern does as a regular expression', () => {
    const letters = fc.string({ unit: fc.constantFrom('a', 'b', '/', '.'), maxLength: 12 })
    const patterns = fc.string({ unit: fc.constantFrom('a', 'b', '/', '.', '*', '?'), maxLength: 8 })
    fc.assert(
      fc.property(letters, patterns, (path, pattern) => {
        const source = pattern.replace(/[.]/g, '\\.').replaceAll('*', '[^/]*').replaceAll('?', '[^/]')
        expect(matchesPattern(path, pattern)).toBe(new RegExp(`^${source}$`).test(path))
      }),
      { numRuns: 3000 },
    )
  })

  it('cost no more than a blink on hostile input', () => {
    const begun = performance.now()
    expect(matchesPattern('a'.repeat(4096), `${'*a'.repeat(1000)}b`)).toBe(false)
    expect(performance.now() - begun).toBeLessThan(500)
  })
})

describe('hashed paths', () => {
  it('match by the prefix of their SHA-256', () => {
    const prefix = sha256Of('some/path').slice(0, 3)
    expect(isDelegatedTo(role({ pathHashPrefixes: ['zz', prefix] }), 'some/path')).toBe(true)
    expect(isDelegatedTo(role({ pathHashPrefixes: ['zz'] }), 'some/path')).toBe(false)
  })

  it('go to the bin that the first bits of their SHA-256 name', () => {
    const succinct = { keyIds: new Set(['k']), threshold: 1, bitLength: 10, namePrefix: 'bin' }
    const delegations: Delegations = { keys: new Map(), roles: [], succinct }
    fc.assert(
      fc.property(fc.string(), path => {
        const bits = BigInt(`0x${sha256Of(path)}`)
          .toString(2)
          .padStart(256, '0')
          .slice(0, 10)
        const [delegation] = delegationsFor(delegations, path)
        expect(delegation?.name).toBe(`bin-${Number.parseInt(bits, 2).toString(16).padStart(3, '0')}`)
        expect(delegationNamed(delegations, delegation!.name)).toMatchObject({ name: delegation!.name })
      }),
    )
    expect(delegationNamed(delegations, 'bin-3ff')).toBeDefined()
    for (const strange of ['bin-400', 'bin-0', 'bin-00g', 'bin-0x1', 'other-000', 'bin--01']) {
      expect(delegationNamed(delegations, strange)).toBeUndefined()
    }
  })
})
