/**
 * For tests: one flipped bit in anything that a node or its origin keeps, and what readers get over
 * HTTP then. Nodes run in this process, each on a fresh copy of the same folder.
 */
import assert from 'node:assert/strict'
import { cp, mkdir, mkdtempDisposable, readdir, readFile, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { pathToFileURL } from 'node:url'
import { pino } from 'pino'
import { isEdgeError } from '../../manifests/errors.ts'
import { sha256Of } from '../../manifests/digest.ts'
import { loadConfig } from '../config.ts'
import { startNode } from '../main.ts'
import { openWorld } from './test-world.ts'

const DATASET = 'education/fragile'
const FILL_MS = 60_000
/** A page of the database, or a page of the catalog, holds many items; most damage hits one or none. */
const LOST_IN_ALL_MAX = 0.25
type Items = ReadonlyMap<string, Buffer>

/** An item that did not come, and what was answered instead; status 0: the connection was cut. */
export interface Refused {
  readonly path: string
  readonly status: number
  readonly code: string
}

export interface Round {
  /** The file and the byte of it that is not what it was. */
  readonly where: string
  /** Items served that are not what was published: there must be none. */
  readonly wrong: readonly string[]
  /** With the damage. */
  readonly refused: readonly Refused[]
  /** Why a fill from the damaged origin did not finish. */
  readonly failed?: string | undefined
  /** What is still refused after a fill from an origin that is whole. */
  readonly unmended: readonly Refused[]
}

export interface Fragile extends AsyncDisposable {
  readonly items: number
  /** A filled node without a link is damaged; then it gets a link. */
  damageNode(seed: string): Promise<Round>
  /** A node, empty or with release 1, fills from an origin that is damaged; then from the whole one. */
  damageOrigin(seed: string): Promise<Round>
}

/** Publishes two releases and fills a node with each, by the real commands. */
export async function openFragile(): Promise<Fragile> {
  await using stack = new AsyncDisposableStack()
  const world = stack.use(await openWorld('education'))
  const [items, before] = [join(world.folder, 'items'), join(world.folder, 'before')]
  const [first, second] = [itemsOf(1), itemsOf(2)]
  await writeItems(items, first)
  await world.publish(items, DATASET)
  await world.ask(['fill', '--once'])
  await cp(world.data, before, { recursive: true })
  await writeItems(items, second)
  await world.publish(items, DATASET)
  await world.ask(['fill', '--once'])

  const whole = world.repository
  const kept = stack.move()
  return {
    items: second.size,
    [Symbol.asyncDispose]: () => kept.disposeAsync(),
    async damageNode(seed) {
      await using copy = await copyOf(world.data)
      const where = await flipOneOf(copy.path, seed, /node\.db$/)
      const { wrong, refused } = await withNode(copy.path, undefined, ({ url }) => readAll(url, [second]))
      const mended = await withNode(copy.path, whole, async ({ url, fill }) => {
        await readAll(url, [second]) // what is found damaged is fetched again
        await fill()
        return await readAll(url, [second])
      })
      return { where, refused, wrong: [...wrong, ...mended.wrong], unmended: mended.refused }
    },
    async damageOrigin(seed) {
      await using origin = await copyOf(whole)
      await using copy = await copyOf(numberOf(seed) % 2 === 0 ? before : undefined)
      const where = await flipOneOf(origin.path, seed, /\.(pack|delta)$/)
      const { failed, wrong, refused } = await withNode(copy.path, origin.path, async ({ url, fill }) => ({
        failed: await fill(),
        ...(await readAll(url, [first, second])),
      }))
      const mended = await withNode(copy.path, whole, async ({ url, fill }) => {
        await fill()
        return await readAll(url, [second])
      })
      return { where, failed, refused, wrong: [...wrong, ...mended.wrong], unmended: mended.refused }
    },
  }

  async function withNode<T>(
    data: string,
    repository: string | undefined,
    use: (node: { url: string; fill: () => Promise<string | undefined> }) => Promise<T>,
  ): Promise<T> {
    const { config } = await loadConfig({
      env: {},
      cwd: data,
      options: {
        data,
        port: 0,
        root: join(world.keys, 'root.json'),
        refreshSeconds: 1_000_000,
        ...(repository !== undefined && { upstream: [pathToFileURL(`${repository}/`).href] }),
      },
    })
    await using node = await startNode(config, pino({ level: 'silent' }))
    return await use({ url: node.url, fill: () => failureOf(node) })
  }
}

/** Fills. @returns what did not go well. */
async function failureOf(node: Awaited<ReturnType<typeof startNode>>): Promise<string | undefined> {
  let failed: string | undefined
  try {
    for await (const event of node.fill({ signal: AbortSignal.timeout(FILL_MS) })) {
      if (event.type === 'failed') failed = `${event.code}: ${event.message}`
    }
  } catch (error) {
    if (!isEdgeError(error)) throw error
    failed = `${error.code}: ${error.message}`
  }
  return failed
}

/** Every item over HTTP. @param versions what each may be: any of them. */
async function readAll(url: string, versions: readonly Items[]): Promise<Pick<Round, 'wrong' | 'refused'>> {
  const wrong: string[] = []
  const refused: Refused[] = []
  for (const path of versions.at(-1)!.keys()) {
    try {
      const response = await fetch(new URL(`data/${DATASET}/${path}`, url))
      const body = Buffer.from(await response.arrayBuffer())
      if (response.status !== 200) {
        const { code } = JSON.parse(body.toString()) as { code: string }
        refused.push({ path, status: response.status, code })
      } else if (!versions.some(items => items.get(path)?.equals(body))) {
        wrong.push(path)
      }
    } catch (error) {
      refused.push({ path, status: 0, code: String(error) })
    }
  }
  return { wrong, refused }
}

/** Of every size that is kept in a way of its own; a text that changes, a table that grows. */
function itemsOf(release: number): Items {
  const items = new Map<string, Buffer>()
  for (let at = 0; at < 16; at++) {
    const edition = at % 4 === 0 ? release : 1
    items.set(`small/${at}.txt`, Buffer.from(`${at} of edition ${edition}\n`.repeat(20 + 90 * at)))
  }
  for (let at = 0; at < 6; at++) items.set(`middle/${at}.bin`, noise(`middle ${at}`, 34_000 + 30_000 * at))
  for (let at = 0; at < 3; at++) {
    const bytes = noise(`large ${at}`, 900_000 + 400_000 * at)
    if (release > 1) bytes.write(`edition ${release}`, 500_000)
    items.set(`large/${at}.bin`, bytes)
  }
  return items
}

/** Bytes that do not compress, the same for the same seed. */
function noise(seed: string, sizeBytes: number): Buffer {
  const bytes = Buffer.alloc(sizeBytes)
  for (let from = 0; from < sizeBytes; from += 32) {
    Buffer.from(sha256Of(`${seed} ${from}`), 'hex').copy(bytes, from)
  }
  return bytes
}

async function writeItems(folder: string, items: Items): Promise<void> {
  for (const [path, bytes] of items) {
    await mkdir(join(folder, path, '..'), { recursive: true })
    await writeFile(join(folder, path), bytes)
  }
}

async function copyOf(folder: string | undefined) {
  const copy = await mkdtempDisposable(join(tmpdir(), 'towerlight-damage-'))
  // the ballast is as big as a disk's reserve, and nobody reads it
  if (folder !== undefined)
    await cp(folder, copy.path, { recursive: true, filter: from => !/ballast$|\.sock$/.test(from) })
  return copy
}

/** Flips one bit; every other time in a file of `often`, which are few among many. @returns where. */
async function flipOneOf(folder: string, seed: string, often: RegExp): Promise<string> {
  const entries = await readdir(folder, { recursive: true, withFileTypes: true })
  const files = entries
    .filter(entry => entry.isFile() && !/\.lock$|owner\.json$/.test(entry.name))
    .map(entry => join(entry.parentPath, entry.name))
    .toSorted()
  const [draw, place] = [numberOf(`${seed} file`), numberOf(`${seed} place`)]
  const among = draw % 2 === 0 ? files.filter(path => often.test(path)) : files
  const path = among[Math.floor(draw / 2) % among.length]!
  const bytes = await readFile(path)
  const at = place % Math.max(bytes.length, 1)
  if (bytes.length > 0) bytes[at]! ^= 1 << (Math.floor(place / 7) % 8)
  await writeFile(path, bytes)
  return `${path.slice(folder.length + 1)} at ${at}`
}

/** The same for the same seed. */
function numberOf(seed: string): number {
  return Number.parseInt(sha256Of(seed).slice(0, 12), 16)
}

/**
 * What one flipped bit in a node may cost: never a wrong byte, a clear answer instead, trust not at
 * all, and nothing once it could fill again.
 */
export async function nodeRounds(fragile: Fragile, rounds: number, seed: string): Promise<void> {
  let lost = 0
  for (let round = 0; round < rounds; round++) {
    const { where, wrong, refused, unmended } = await fragile.damageNode(`${seed} ${round}`)
    const unclear = refused.filter(({ status }) => status !== 503 && status !== 0)
    assert.deepEqual({ where, wrong, unclear, unmended }, { where, wrong: [], unclear: [], unmended: [] })
    if (/^(trust-v1|hot|warm)/.test(where)) assert(refused.length <= 1, `${where}: one item at most`)
    lost += refused.length
  }
  assert(lost / (rounds * fragile.items) < LOST_IN_ALL_MAX, `${lost} items lost in ${rounds} rounds`)
}

/** What one flipped bit in an origin may cost: time. */
export async function originRounds(fragile: Fragile, rounds: number, seed: string): Promise<void> {
  for (let round = 0; round < rounds; round++) {
    const { where, wrong, unmended } = await fragile.damageOrigin(`${seed} ${round}`)
    assert.deepEqual({ where, wrong, unmended }, { where, wrong: [], unmended: [] })
  }
}
