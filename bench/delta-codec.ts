/**
 * The static delta alone, without a repository or a network: built in memory, applied, compared.
 */
import { readFile } from 'node:fs/promises'
import { deltaBytes } from '../manifests/delta/build.ts'
import { type ReadBase, StaticDelta } from '../manifests/delta/delta.ts'
import { keyOf } from '../manifests/delta/head.ts'
import { releaseOf } from '../manifests/delta/testing.ts'
import { sha256Of } from '../manifests/digest.ts'
import { EdgeError } from '../manifests/errors.ts'
import { filesOf } from './delta-rivals.ts'

export interface CodecFigures {
  readonly deltaBytes: number
  readonly headBytes: number
  readonly rebuiltExtents: number
  readonly omittedExtents: number
  readonly buildCpuS: number
  readonly applyCpuS: number
  readonly appliedBytes: number
}

export async function codecFigures(oldPath: string, newPath: string): Promise<CodecFigures> {
  const from = releaseOf(await load(oldPath))
  const to = releaseOf(await load(newPath))
  const beforeBuild = process.cpuUsage()
  const { bytes, directory, rebuiltExtents, omittedExtents, sizeBytes } = await deltaBytes(from, to)
  const buildCpuS = secondsSince(beforeBuild)

  const byKey = new Map([...from.byCid].map(([cid, content]) => [keyOf(cid), content]))
  const readBase: ReadBase = async ({ key }, offset, length) => {
    const content = byKey.get(key)
    if (!content) throw new EdgeError('DELTA_BASE_ABSENT', key)
    return content.subarray(offset, offset + length)
  }
  const extentsOf = new Map([from.catalog, ...from.all].map(({ root, extents }) => [keyOf(root), extents]))
  const head = bytes.subarray(directory.offset, directory.offset + directory.size)
  const beforeApply = process.cpuUsage()
  const delta = await StaticDelta.open(head, { ...directory, sha256: sha256Of(head) })
  delta.nameCatalog(to.catalog, key => extentsOf.get(key))
  delta.nameItems(to.entries, key => extentsOf.get(key))
  let appliedBytes = 0
  for (const cid of delta.extents.keys()) {
    const rebuilt = await delta.rebuild(cid, async (at, length) => bytes.subarray(at, at + length), readBase)
    appliedBytes += rebuilt.length
  }
  const applyCpuS = secondsSince(beforeApply)
  return {
    deltaBytes: sizeBytes,
    headBytes: directory.size,
    rebuiltExtents,
    omittedExtents,
    buildCpuS,
    applyCpuS,
    appliedBytes,
  }
}

async function load(path: string): Promise<Map<string, Uint8Array>> {
  const files = new Map<string, Uint8Array>()
  for (const [name, file] of await filesOf(path)) files.set(name, await readFile(file))
  return files
}

function secondsSince(before: NodeJS.CpuUsage): number {
  const { user, system } = process.cpuUsage(before)
  return (user + system) / 1e6
}
