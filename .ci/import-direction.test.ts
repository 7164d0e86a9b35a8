import { describe, expect, it } from 'vitest'
import { findWrongImports } from './import-direction.ts'

const findingsIn = (path: string, text: string) => findWrongImports([{ path, text }])

describe('import direction', () => {
  it.each([
    ['manifests/pack.ts', `import { sha256Of } from './digest.ts'`],
    ['node/store/store.ts', `import { sha256Of } from '../../manifests/digest.ts'`],
    ['warmers/plan.ts', `import type { Library } from '../node/library.ts'`],
    ['node/cli/fill.ts', `const { runFill } = await import('../../warmers/fill.ts')`],
    ['node/main.ts', `import { openPins } from '../pinning/pins.ts'`],
    ['manifests/publish/folder.ts', `import { open } from 'node:fs/promises'`],
    ['manifests/clock.ts', `// Date.now() is what we never call\nconst at = new Date(nowMs)`],
    ['node/x.test.ts', `import { plan } from '../warmers/plan.ts'`],
    ['pinning/testing/servers.ts', `const path = process.env.PATH`],
    ['manifests/vectors/vectors.ts', `import { readFileSync } from 'node:fs'`],
  ])('%s may: %s', (path, text) => {
    expect(findingsIn(path, text)).toEqual([])
  })

  it.each([
    ['manifests/pack.ts', `import { open } from '../node/store/store.ts'`],
    ['manifests/pack.ts', `import { connect } from 'node:net'`],
    ['manifests/pack.ts', `import { open } from 'node:fs/promises'`],
    ['manifests/pack.ts', `const now = Date.now()`],
    ['manifests/pack.ts', `const now = new Date()`],
    ['node/library.ts', `import { plan } from '../warmers/plan.ts'`],
    ['node/library.ts', `export { plan } from '../warmers/plan.ts'`],
    ['node/library.ts', `import {\n  plan,\n} from '../warmers/plan.ts'`],
    ['node/library.ts', `await import('../pinning/pins.ts')`],
    ['warmers/plan.ts', `import { folderFiles } from './testing.ts'`],
    ['pinning/pins.ts', `import { openKubo } from './testing/servers.ts'`],
    ['warmers/plan.ts', `import { pins } from '../pinning/pins.ts'`],
    ['node/library.ts', `import { startNode } from './main.ts'`],
    ['warmers/plan.ts', `import { progress } from '../node/cli/progress.ts'`],
    ['node/store/store.ts', `const folder = process.env.TOWER_DATA`],
  ])('%s may not: %s', (path, text) => {
    expect(findingsIn(path, text)).toHaveLength(1)
  })
})
