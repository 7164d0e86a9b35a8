/**
 * For tests: things that happen to a store behind a running node's back, and what readers get then.
 */
import { open, readdir, rename, rm, stat, truncate } from 'node:fs/promises'
import { join } from 'node:path'
import { DatabaseSync } from 'node:sqlite'
import { type Cid, cidFromBytes, parseCid } from '../../manifests/cid.ts'
import { sha256Of } from '../../manifests/digest.ts'
import { extentsUnder } from '../dag-walk.ts'
import type { RunningNode } from '../main.ts'
import { DATASET } from './test-pins.ts'

export const DAMAGES = ['flip', 'truncate', 'delete', 'swap', 'small block', 'stale row'] as const
export type Damage = (typeof DAMAGES)[number]

export interface Outcome {
  readonly damage: Damage
  readonly extents: readonly Cid[]
  /** Items read, and of these the ones that came with other bytes, or not at all. */
  readonly read: number
  readonly wrong: readonly string[]
  readonly refused: readonly string[]
  readonly slowestMs: number
}

/** Damages what the same seed always damages, then reads every item that it touches, over HTTP. */
export async function damageAndRead(
  node: RunningNode,
  files: ReadonlyMap<string, Buffer>,
  damage: Damage,
  seed: string,
): Promise<Outcome> {
  const extentsOf = layoutOf(node, files)
  const touched = await damageStore(node.owner.config.data, damage, seed)
  const known = [...extentsOf.values()].flat()
  const isCatalog = touched.some(cid => !known.includes(cid))
  const wrong: string[] = []
  const refused: string[] = []
  let slowestMs = 0
  let read = 0
  for (const [path, bytes] of files) {
    const isTouched = extentsOf.get(path)!.some(cid => touched.includes(cid))
    if (!isTouched && !(isCatalog && read === 0)) continue
    read++
    const before = performance.now()
    const response = await fetch(new URL(`data/${DATASET}/${path}`, node.url))
    const body = Buffer.from(await response.arrayBuffer().catch(() => new ArrayBuffer()))
    slowestMs = Math.max(slowestMs, performance.now() - before)
    if (response.status !== 200 || body.length !== bytes.length) refused.push(`${path}: ${response.status}`)
    else if (!body.equals(bytes)) wrong.push(path)
  }
  return { damage, extents: touched, read, wrong, refused, slowestMs }
}

/** Asked once: later the catalog may be what is damaged. */
const LAYOUTS = new WeakMap<ReadonlyMap<string, Buffer>, ReadonlyMap<string, readonly Cid[]>>()

function layoutOf({ owner: { library, store } }: RunningNode, files: ReadonlyMap<string, Buffer>) {
  let layout = LAYOUTS.get(files)
  layout ??= new Map(
    files.keys().map(path => {
      const { root, sizeBytes } = library.open(DATASET, path)
      return [path, extentsUnder(store, root, sizeBytes).extents.map(({ cid }) => cid)]
    }),
  )
  LAYOUTS.set(files, layout)
  return layout
}

/** @returns the extents that are not what they were. */
async function damageStore(folder: string, damage: Damage, seed: string): Promise<Cid[]> {
  const draw = (what: string, below: number) => numberOf(`${seed} ${what}`) % Math.max(below, 1)
  if (damage === 'small block' || damage === 'stale row') {
    using database = new DatabaseSync(join(folder, 'node.db'), { timeout: 5000 })
    return damage === 'small block' ? damageBlock(database, draw) : damageRow(database, draw)
  }
  const paths = await extentFiles(folder)
  const path = paths[draw('file', paths.length)]!
  const { size } = await stat(path)
  if (damage === 'delete') await rm(path)
  else if (damage === 'truncate') await truncate(path, draw('length', size))
  else if (damage === 'flip') await flip(path, draw('place', size))
  else {
    const other = paths[draw('other', paths.length)]!
    const aside = `${folder}.aside` // the node clears what it does not know inside
    await rename(path, aside)
    if (other !== path) await rename(other, path)
    await rename(aside, other)
    return [cidIn(path), cidIn(other)]
  }
  return [cidIn(path)]
}

type Draw = (what: string, below: number) => number

function damageBlock(database: DatabaseSync, draw: Draw): Cid[] {
  const rows = database.prepare('SELECT id, cid, bytes FROM small_blocks ORDER BY id').all()
  const row = rows[draw('row', rows.length)]!
  const bytes = Buffer.from(row['bytes'] as Uint8Array)
  bytes[draw('place', bytes.length)]! ^= 1
  database.prepare('UPDATE small_blocks SET bytes = ? WHERE id = ?').run(bytes, Number(row['id']))
  return [cidFromBytes(row['cid'] as Uint8Array)]
}

/** It says that the content is in the other tier. */
function damageRow(database: DatabaseSync, draw: Draw): Cid[] {
  const rows = database.prepare('SELECT id, cid, place FROM extents WHERE place > 0 ORDER BY id').all()
  const row = rows[draw('row', rows.length)]!
  database.prepare('UPDATE extents SET place = 3 - place WHERE id = ?').run(Number(row['id']))
  return [cidFromBytes(row['cid'] as Uint8Array)]
}

async function extentFiles(folder: string): Promise<string[]> {
  const tiers = await Promise.all(
    ['hot', 'warm'].map(async tier => {
      const base = join(folder, tier, 'extents-v1')
      const entries = await readdir(base, { recursive: true, withFileTypes: true }).catch(() => [])
      return entries.filter(entry => entry.isFile()).map(entry => join(entry.parentPath, entry.name))
    }),
  )
  return tiers
    .flat()
    .filter(path => /bafy|bafk/.test(path))
    .toSorted()
}

async function flip(path: string, at: number): Promise<void> {
  await using file = await open(path, 'r+')
  const byte = Buffer.alloc(1)
  await file.read(byte, 0, 1, at)
  byte[0]! ^= 1 << (at % 8)
  await file.write(byte, 0, 1, at)
}

function cidIn(path: string): Cid {
  return parseCid(path.slice(path.lastIndexOf('/') + 1))
}

function numberOf(seed: string): number {
  return Number.parseInt(sha256Of(seed).slice(0, 12), 16)
}
