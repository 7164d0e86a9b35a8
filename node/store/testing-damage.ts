/**
 * For tests: a store with some of everything, bits that flip, and a neighbour who has it all.
 */
import { cp, readdir, readFile, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { rawCidOf, type Cid } from '../../manifests/cid.ts'
import { isEdgeError } from '../../manifests/errors.ts'
import { sha256Of } from '../../manifests/digest.ts'
import type { ContentStore, HealSource } from './store.ts'
import {
  admit,
  extentFor,
  MIB,
  openTestStore,
  temporaryFolder,
  UNHURRIED,
  type TestExtent,
} from './testing.ts'

export const EXTENTS: readonly TestExtent[] = [
  ...Array.from({ length: 40 }, (_, seed) => extentFor(`small ${seed}`, 100 + seed * 700)),
  ...Array.from({ length: 6 }, (_, seed) => extentFor(`block ${seed}`, 33_000 + seed * 4_000)),
  ...Array.from({ length: 3 }, (_, seed) => extentFor(`large ${seed}`, MIB + seed * 300_000)),
]

const BLOCKS = new Map<Cid, Uint8Array>()
for (const { bytes, extent, node } of EXTENTS) {
  if (node) BLOCKS.set(node.cid, node.bytes)
  let from = 0
  for (const { digest, sizeBytes } of extent.chunks) {
    BLOCKS.set(rawCidOf(digest), bytes.subarray(from, from + sizeBytes))
    from += sizeBytes
  }
}

export const NEIGHBOUR: HealSource = {
  name: 'neighbour',
  fetchChunk: async cid => BLOCKS.get(cid),
  fetchExtent: async cid => EXTENTS.find(extent => extent.cid === cid)?.bytes,
}

export type Outcome = 'right' | 'refused' | 'wrong'

/** One for each of `EXTENTS`. */
export async function readAll(store: ContentStore): Promise<Outcome[]> {
  const outcomes: Outcome[] = []
  for (const { cid, bytes } of EXTENTS) {
    try {
      outcomes.push((await store.readExtent(cid, UNHURRIED)).equals(bytes) ? 'right' : 'wrong')
    } catch (error) {
      if (!isEdgeError(error, 'CHUNK_CORRUPT', 'CHUNK_ABSENT')) throw error
      outcomes.push('refused')
    }
  }
  return outcomes
}

export async function flip(path: string, place: number): Promise<void> {
  const bytes = await readFile(path)
  if (bytes.length === 0) return
  bytes[place % bytes.length]! ^= 1 << (place % 8)
  await writeFile(path, bytes)
}

/**
 * Flips one bit in a copy of a store, opens it and reads everything, twice; again and again, every
 * other time in the database, which is but one file among many.
 * @returns how many items could not be read, in each round, once the store had settled.
 */
export async function flipRounds(
  rounds: number,
  seed: string,
  check: (outcomes: Outcome[], where: string) => void,
): Promise<number[]> {
  await using original = await temporaryFolder()
  {
    await using store = await openTestStore(original.path)
    await admit(store, ...EXTENTS)
  }
  const files = (await filesIn(original.path)).filter(path => !path.endsWith('ballast'))
  const database = join(original.path, 'node.db')
  const refused: number[] = []
  for (let round = 0; round < rounds; round++) {
    await using folder = await temporaryFolder()
    await cp(original.path, folder.path, { recursive: true, filter: from => !from.endsWith('ballast') })
    const path = round % 2 === 0 ? database : files[numberOf(`${seed} file ${round}`) % files.length]!
    const place = numberOf(`${seed} place ${round}`)
    await flip(path.replace(original.path, folder.path), place)
    const where = `${path.slice(original.path.length)} at ${place}`

    await using store = await openTestStore(folder.path)
    check(await readAll(store), where)
    await store.settled()
    const outcomes = await readAll(store)
    check(outcomes, where)
    refused.push(outcomes.filter(outcome => outcome === 'refused').length)
  }
  return refused
}

/** The same for the same seed. */
export function numberOf(seed: string): number {
  return Number.parseInt(sha256Of(seed).slice(0, 12), 16)
}

async function filesIn(folder: string): Promise<string[]> {
  const entries = await readdir(folder, { recursive: true, withFileTypes: true })
  return entries
    .filter(entry => entry.isFile())
    .map(entry => join(entry.parentPath, entry.name))
    .toSorted()
}
